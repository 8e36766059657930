"""What two releases make of the same judged rows, slice by slice and in worlds of other links.

Each row is asked as it was (`as asked`), without its links (`links taken away`), and with those of some other row,
from which the skill that is meant is left out (`misleading links`): who follows links blindly shows there, also
where few judged rows have such links of their own. Axes: N rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model.data import Row
from model.evaluation import places
from model.groups import head_skills
from model.selector import Request, Selector

AS_ASKED, TAKEN_AWAY, MISLEADING = "as asked", "links taken away", "misleading links"
ALL = "all"
CHUNK = 2_048  # rows decided at once: bounds memory at so many lists of candidates
ENOUGH = 4_000  # rows of a world; of fewer, each is misled several times, by other rows' links
MOST_TIMES = 4
SEED = 20_260  # of whose links a row is given in `misleading links`; the same in every cycle
Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Decided:
    """What a release makes of N rows."""

    shortlist: NDArray[np.int64]  # (N,) place of what is meant, first is 1
    decision: NDArray[np.int64]  # (N,)
    probability: Values  # (N,) the largest of the list, none among it
    none: Values  # (N,)

    @property
    def top1(self) -> Values:
        """1 where what is meant stands first in the decision's list."""
        return np.asarray(self.decision == 1, dtype=np.float64)

    @property
    def top3(self) -> Values:
        """1 where what is meant is among the shortlist's first three."""
        return np.asarray(self.shortlist <= 3, dtype=np.float64)


def decide(selector: Selector, rows: Sequence[Row]) -> Decided:
    """What the release makes of the rows, with their own links."""
    found: list[tuple[int, int, float, float]] = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        for row, ranking in zip(
            part, selector.decide([Request(r.text, r.linked or ()) for r in part]), strict=True
        ):
            best = max([ranking.none_probability, *(one.probability for one in ranking.candidates)])
            found.append((*places(row.skill_id, ranking), best, ranking.none_probability))
    table = np.asarray(found, dtype=np.float64).reshape(-1, 4)
    return Decided(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])


def worlds(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows in each world; of a world other than the first, those that differ from what was asked."""
    generator = np.random.default_rng(SEED)
    givers = [row.linked for row in rows if row.linked]
    misled = []
    for _ in range(max(1, min(MOST_TIMES, ENOUGH // max(1, len(rows))))):
        given = generator.integers(0, max(1, len(givers)), len(rows)).tolist()
        for row, at in zip(rows, given, strict=True):
            links = tuple(skill for skill in givers[at] if skill != row.skill_id) if givers else ()
            if links and set(links) != set(row.linked or ()):
                misled.append(replace(row, linked=links))
    bare = [replace(row, linked=()) for row in rows if row.linked]
    found = {AS_ASKED: list(rows), TAKEN_AWAY: bare, MISLEADING: misled}
    return {name: part for name, part in found.items() if part}


def slices(rows: Sequence[Row], taught: Sequence[Row]) -> dict[str, Mask]:
    """Which rows are in each slice, (N,) each; empty ones are left out.

    `head`: the meant skill is one of those with most rows of `taught` (of `rows` where nothing is taught), which
    together have half of them; `tail`: any other.
    """
    counts = Counter(row.skill_id for row in taught or rows if row.skill_id is not None)
    head = head_skills(counts)
    members = {ALL: [True for _ in rows]}
    for source in sorted({row.source for row in rows}):
        members[f"source {source or 'unknown'}"] = [row.source == source for row in rows]
    members |= {
        "head": [row.skill_id in head for row in rows],
        "tail": [row.skill_id is not None and row.skill_id not in head for row in rows],
        "meant skill linked": [row.skill_id in (row.linked or ()) for row in rows],
        "linked, but not the meant skill": [_misses(row) for row in rows],
        "nothing linked": [not row.linked for row in rows],
        "no skill meant": [row.skill_id is None for row in rows],
    }
    found = {name: np.asarray(inside, dtype=np.bool_) for name, inside in members.items()}
    return {name: inside for name, inside in found.items() if inside.any()}


def _misses(row: Row) -> bool:
    return bool(row.linked) and row.skill_id is not None and row.skill_id not in (row.linked or ())
