"""Whether every skill is still found by its own words, and its row is still one like the others.

Means over thousands of rows do not see that one skill is gone. So each skill is looked for by its own texts,
without links: phrases of its card and rows that were taught, at most eight. A text finds it where it is among the
first five of the shortlist and of the decision.

A skill is lost where

- at least three texts can tell, three quarters of them or more found it before, and a quarter or fewer do now;
- or its learned row is less than half or more than twice as long as the median row: nothing trained ends there;
- or the release was grown from the one before, so that the rows of all skills still point where they did (the
  median cosine is 0.7 or more), and this one's does not (0.3 or less).

Between honest trainings none of these was seen. Five seeds on the sample, 20 ordered pairs of 171 skills: among
the first five no skill lost half of its texts, while at the first place, where rivals swap, 17 collapsed. Of 5,093
real skills, from a release of 15,000 rows to the one grown from it on as many more, and to one of all 74,000: none
with three texts was lost; lengths lay between 0.83 and 1.41 times the median; the grown one's cosines were 0.66 at
the least. What is not seen: in a release that was trained afresh, one row replaced by another of the same length,
where its card still finds the skill or fewer than three texts tell.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch.nn import functional as F

from model.data import Row
from model.judging import decide
from model.selector import Selector

MOST_TEXTS = 8  # of a skill
FEWEST_TEXTS = 3  # that can tell: of one or two, 83 of 5,093 skills went between honest releases
FIRST = 5  # places
FOUND, GONE = 0.75, 0.25
SHORT, LONG = 0.5, 2.0  # times the median length of a row
GROWN, TURNED = 0.7, 0.3  # cosines of rows before and after


class Lost(Struct, frozen=True):
    """A skill that customers would no longer find, and why."""

    skill_id: str
    why: str


def lost_skills(before: Selector, after: Selector, taught: Sequence[Row]) -> list[Lost]:
    """The skills of both catalogues that are lost, in the order of the catalogue, each once."""
    own = {skill: texts for skill, texts in own_texts(after, taught).items() if skill in before.bundle.catalogue}
    found = {one.skill_id: one for one in (*_not_found(before, after, own), *_rows(before, after, own))}
    return [found[skill] for skill in own if skill in found]


def own_texts(selector: Selector, taught: Sequence[Row]) -> dict[str, list[str]]:
    """Each skill's texts, by id: an even choice among all different ones, the same in every cycle."""
    rows = defaultdict(list)
    for row in taught:
        if row.skill_id is not None and not row.beliefs:  # of a row that is not sure, the skill is a guess
            rows[row.skill_id].append(row.text)
    return {
        card.skill_id: sorted({*card.phrases, *rows[card.skill_id]}, key=_shuffled)[:MOST_TEXTS]
        for card in selector.bundle.catalogue.cards()
        if card.phrases or rows[card.skill_id]
    }


def _shuffled(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _not_found(before: Selector, after: Selector, own: Mapping[str, Sequence[str]]) -> list[Lost]:
    asked = [Row(text, skill) for skill, texts in own.items() if len(texts) >= FEWEST_TEXTS for text in texts]
    hits = [_hits(selector, asked) for selector in (before, after)]
    at: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(asked):
        at[str(row.skill_id)].append(place)
    lost = []
    for skill, mine in at.items():
        was, now = (int(found[mine].sum()) for found in hits)
        if was >= FOUND * len(mine) and now <= GONE * len(mine):
            lost.append(Lost(skill, f"{was} of {len(mine)} of its own texts found it before, and {now} do now"))
    return lost


def _hits(selector: Selector, asked: Sequence[Row]) -> NDArray[np.bool_]:
    found = decide(selector, asked)
    return (found.shortlist <= FIRST) & (found.decision <= FIRST)


@dataclass(frozen=True)
class _Rows:
    """Learned rows of the same skills: lengths relative to the median, before and after, and cosines between them,
    (skills,) each; no cosines where the networks differ in width."""

    was: NDArray[np.float64]
    now: NDArray[np.float64]
    cosines: NDArray[np.float64] | None


def _rows(before: Selector, after: Selector, own: Mapping[str, Sequence[str]]) -> list[Lost]:
    if not own:
        return []
    rows, lost = _compared(before, after, list(own)), []
    catalogue, trained = before.bundle.catalogue, before.bundle.manifest.skills  # 0: not written yet
    grown = rows.cosines is not None and float(np.median(rows.cosines)) >= GROWN
    for at, skill in enumerate(own):
        was, now = rows.was[at], rows.now[at]
        if SHORT <= was <= LONG and not SHORT <= now <= LONG:
            lost.append(
                Lost(skill, f"its learned row is {now:.2f} times as long as the median, and was {was:.2f}")
            )
        elif trained and catalogue.row(skill) >= trained:
            continue  # it joined since, so its row was put there and not learned
        elif grown and rows.cosines is not None and rows.cosines[at] <= TURNED:
            most = float(np.median(rows.cosines))
            turned = f"its learned row has a cosine of {rows.cosines[at]:.2f} to that before"
            lost.append(Lost(skill, f"{turned}, where the median is {most:.2f}"))
    return lost


@torch.no_grad()
def _compared(before: Selector, after: Selector, skills: Sequence[str]) -> _Rows:
    both = []
    for selector in (before, after):
        at = [selector.bundle.catalogue.row(skill) for skill in skills]
        both.append(selector.bundle.shortlister.rows[torch.tensor(at)].double())  # (skills, D)
    lengths = [part.norm(dim=1).numpy() for part in both]
    was, now = (part / max(float(np.median(part)), 1e-12) for part in lengths)
    same = both[0].shape == both[1].shape
    return _Rows(was, now, F.cosine_similarity(both[0], both[1]).numpy() if same else None)
