"""What onboarding is worth: skills are left out of a training, join by their cards, and are measured beside a
training that had them.

A skill's card joins with 0, 1, 3 or 10 of its training requests as phrases. Measured is the share of dev rows
whose skill is among the first three, for the skills that were left out, for their rivals (of each the three skills
nearest to it in the full training), and for all that were not left out.
"""

import hashlib
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor

from model.bundle import Bundle, read_bundle, write_bundle
from model.cells import LINK_CODE, TEXT_CODE, code_digest
from model.data import Row
from model.encoder import WordBatches
from model.evaluation import bootstrap_interval
from model.experiment import Market
from model.index import FEWEST, Index, Kind
from model.onboarding import Onboarding
from model.pipeline import Recipe, rows_digest, steps, train
from model.selector import Request, Selector
from model.shortlist import Shortlists
from model.systems import seeded, shortened
from topics.errors import BadBundle, BadData
from topics.events import SkillCard

PHRASES, QUICK_PHRASES = (0, 1, 3, 10), (0, 3)
LEFT_OUT = 200  # skills, but no more than a tenth of the catalogue
RIVALS = 3  # of each skill
WATCHED = 256  # requests of which every score is compared, bit by bit
CONDITION = 70  # percent of the rows in which the intended skill is linked
CODE = (*TEXT_CODE, *LINK_CODE, "fitting", "reranker", "shortlist", "index", "index_kinds", "bundle")

log = logging.getLogger(__name__)
Report = Callable[[float, str], None]  # how many of `work` are done, and what it is at


@dataclass(frozen=True)
class Plan:
    """What is left out, and with how many phrases it joins."""

    market: Market
    recipe: Recipe
    left_out: list[SkillCard]
    phrases: tuple[int, ...]
    seed: int

    @property
    def ids(self) -> frozenset[str]:
        """The skills left out."""
        return frozenset(card.skill_id for card in self.left_out)

    @property
    def work(self) -> int:
        """What there is to do, in units of a hundredth of a training."""
        return 200 + 20 * len(self.phrases)


def planned(market: Market, quick: bool, count: int = LEFT_OUT, seed: int = 0) -> Plan:
    """A seeded choice among the skills with enough training rows for the most phrases, and with a dev row.

    Raises BadData where there is none.
    """
    phrases = QUICK_PHRASES if quick else PHRASES
    taught = Counter(row.skill_id for row in market.rows)
    asked = {row.skill_id for row in market.conditions.texts}
    able = [card for card in market.cards if taught[card.skill_id] >= max(PHRASES) and card.skill_id in asked]
    most = min(count, len(able) // 2, len(market.cards) // 10)
    if not most:
        raise BadData(
            f"none can be left out: {len(able)} of {len(market.cards)} skills have {max(PHRASES)} training rows "
            "and a dev row; needed are two of them, and ten skills in all"
        )
    chosen = random.Random(seed).sample(able, most)
    recipe = seeded(shortened(Recipe()) if quick else Recipe(), seed)
    return Plan(market, recipe, chosen, phrases, seed)


def run(plan: Plan, folder: Path, report: Report) -> dict[str, Any]:
    """Trains with and without the skills, or finds the bundles in `folder`, then lets the skills join."""
    market, gone = plan.market, plan.ids
    full = _bundle(plan, market.cards, market.rows, folder, report, 0)
    cards = [card for card in market.cards if card.skill_id not in gone]
    rows = [_without(row, gone) for row in market.rows if row.skill_id not in gone]
    without = _bundle(plan, cards, rows, folder, report, 100)
    groups = _groups(plan, full)
    found: dict[str, Any] = {
        "skills": len(market.cards),
        "left_out": len(gone),
        "rows": {name: len(rows) for name, rows in groups.items()},
        "condition": CONDITION,
        "links": "given" if market.conditions.given else "made from the dev rows' own",
        "full": _measured(Selector(read_bundle(full)), groups),
        "without": _measured(Selector(read_bundle(without)), groups),
        "joined": [],
    }
    for at, count in enumerate(plan.phrases):
        for fine_tune in (False, True):
            report(200 + 20 * at + 10 * fine_tune, f"{count} phrases{', fine-tuned' if fine_tune else ''}")
            found["joined"].append(_joined(plan, without, groups, count, fine_tune, found["full"]))
    found["bits"] = _bits(plan, without)
    report(plan.work, "done")
    return found


def _bundle(
    plan: Plan, cards: Sequence[SkillCard], rows: Sequence[Row], folder: Path, report: Report, done: int
) -> Path:
    """The folder of a bundle trained on these, which is found again while data, recipe and code stay."""
    parts = (msgspec.json.encode(list(cards)), msgspec.json.encode(plan.recipe), rows_digest(rows).encode())
    digest = hashlib.sha256(b"\0".join((*parts, code_digest(CODE).encode()))).hexdigest()[:16]
    place = folder / "bundles" / digest
    try:
        read_bundle(place)
    except BadBundle:
        total = steps(len(rows), cards, plan.recipe)
        note = f"training with {len(cards):,} skills"
        bundle = train(
            cards, rows, plan.recipe, lambda step, _: report(done + min(99.0, 100 * step / total), note)
        )
        write_bundle(bundle, place)
    return place


def _without(row: Row, gone: Iterable[str]) -> Row:
    return replace(row, linked=None if row.linked is None else tuple(s for s in row.linked if s not in gone))


def _groups(plan: Plan, full: Path) -> dict[str, list[Row]]:
    """The dev rows that mean a skill, by what is measured on them."""
    gone, rivals = plan.ids, _rivals(read_bundle(full), plan.ids)
    rows = [row for row in plan.market.conditions.rows[CONDITION] if row.skill_id is not None]
    return {
        "left_out": [row for row in rows if row.skill_id in gone],
        "rivals": [row for row in rows if row.skill_id in rivals],
        "others": [row for row in rows if row.skill_id not in gone],
    }


@torch.no_grad()
def _rivals(full: Bundle, gone: Iterable[str]) -> set[str]:
    """Of each skill that is left out the nearest ones that are not."""
    ids, vectors = full.catalogue.ids(), full.shortlister.skill_vectors()[:-1]  # (S, D)
    mine = torch.tensor([full.catalogue.row(skill) for skill in gone])
    near = vectors[mine] @ vectors.T  # (left out, S)
    near[:, mine] = -2.0
    return {ids[row] for row in near.topk(RIVALS).indices.flatten().tolist()}


def _measured(selector: Selector, groups: dict[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """Top-3 of the shortlist with links and without, and of the decision with links, by group."""
    return {name: _of_group(selector, rows) for name, rows in groups.items()}


def _of_group(selector: Selector, rows: list[Row]) -> dict[str, Any]:
    requests = [Request(row.text, row.linked or ()) for row in rows]
    decided = [[c.skill_id for c in ranking.candidates[:3]] for ranking in selector.decide(requests)]
    listed = {
        "linked": selector.shortlist(requests, 3),
        "text": selector.shortlist([Request(row.text) for row in rows], 3),
        "decision": decided,
    }
    found = {}
    for name, lists in listed.items():
        hits = np.asarray([row.skill_id in skills for row, skills in zip(rows, lists, strict=True)], dtype=float)
        interval = bootstrap_interval(hits) if len(hits) else None
        found[name] = {"top3": round(float(hits.mean()), 4) if len(hits) else None, "interval": interval}
    return found


def _joined(
    plan: Plan, without: Path, groups: dict[str, list[Row]], phrases: int, fine_tune: bool, full: dict[str, Any]
) -> dict[str, Any]:
    """Measures after the skills have joined one by one."""
    selector = Selector(read_bundle(without))
    seconds = []
    for card in _with_phrases(plan, phrases):
        start_s = time.perf_counter()
        selector.take([card], fine_tune=fine_tune)
        seconds.append(time.perf_counter() - start_s)
    measures = _measured(selector, groups)
    return {
        "phrases": phrases,
        "fine_tuned": fine_tune,
        **measures,
        "share_of_full": {
            name: round(one["top3"] / max(1e-9, full["left_out"][name]["top3"]), 4)
            for name, one in measures["left_out"].items()
        },
        "seconds": {"median": round(float(np.median(seconds)), 4), "most": round(max(seconds), 4)},
    }


def _with_phrases(plan: Plan, count: int) -> list[SkillCard]:
    """The cards that were left out, each with `count` of its training rows in place of its phrases; fewer are
    among more."""
    texts: dict[str | None, list[str]] = defaultdict(list)
    for row in plan.market.rows:
        texts[row.skill_id].append(row.text)
    found = []
    for card in plan.left_out:
        own = texts[card.skill_id]
        chosen = random.Random(f"{plan.seed} {card.skill_id}").sample(own, max(PHRASES))[:count]
        found.append(replace(card, phrases=tuple(chosen)))
    return found


def _bits(plan: Plan, without: Path) -> dict[str, Any]:
    """How many scores of skills that were there before are other ones after all have joined, by kind of index."""
    bundle = read_bundle(without)
    rows = plan.market.conditions.rows[CONDITION][:WATCHED]
    before = len(bundle.catalogue)
    kinds = [kind for kind in get_args(Kind) if kind != "pq" or before >= FEWEST]
    makings = {kind: _making(bundle, kind) for kind in kinds}
    first = {kind: _scores(bundle, making, rows, plan.ids)[:, :before] for kind, making in makings.items()}
    joined = Onboarding(bundle).take(_with_phrases(plan, 3))
    changed = {}
    for kind, making in makings.items():
        making.put(joined)
        now = _scores(bundle, making, rows, plan.ids)[:, :before]
        seen = first[kind].isfinite() & now.isfinite()  # `pq` may not find all
        changed[kind] = int((now[seen] != first[kind][seen]).sum())
    return {"requests": len(rows), "skills": before, "changed_scores": changed}


def _making(bundle: Bundle, kind: Kind) -> Shortlists:
    with torch.no_grad():
        keys = bundle.shortlister.keys(bundle.shortlister.skill_vectors())
    return Shortlists(bundle.shortlister, Index(keys, kind))


def _scores(bundle: Bundle, making: Shortlists, rows: Sequence[Row], gone: Iterable[str]) -> Tensor:
    """With what links add, but for those to `gone`, (rows, S); NaN where the index has not found a skill."""
    words = WordBatches(bundle.vocabulary).batch(bundle.vocabulary.encode([row.text for row in rows]))
    linked = bundle.catalogue.linked_rows([_without(row, gone).linked or () for row in rows])
    size = len(bundle.catalogue)
    made = making.make(words, torch.from_numpy(linked), size)
    found = torch.full((len(rows), size + 1), float("nan"))
    return found.scatter(1, made.rows.where(made.rows >= 0, size), made.scores)[:, :size]
