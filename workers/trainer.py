"""The trainer: one distillation cycle, from what customers did to a new release, or to a refusal with its reason.

gather -> split -> train -> measure -> publish or refuse
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle, read_bundle, write_bundle
from model.data import Row, read_rows, read_skills, split_path
from model.evaluation import bootstrap_interval, places
from model.pipeline import Recipe, is_held_out, steps, train
from model.selector import Request, Selector
from model.statistics import Statistics
from topics.codec import decode
from topics.errors import BadEvent, UsageError, WorkerError
from topics.events import Release, SkillCard
from topics.kafka import read_all
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers import console
from workers.fold_store import read_statistics
from workers.joins import labelled_rows
from workers.releases import current_release, publish

log = logging.getLogger("namefree.trainer")
JUDGE_SALT = "judge:"  # another draw than the one by which a training holds texts out


@dataclass(frozen=True)
class CycleOptions:
    """`data`: a corpus to learn from beside the outcomes. `judge_share`: of the outcomes' texts, never trained on
    in any cycle. `max_loss`: how far a measure of the candidate may lie below the serving release's. `recipe`:
    of a first release; `cycle_epochs`: of every later one, which starts from its parent's weights."""

    store: Path
    data: Path | None = None
    judge_share: float = 0.1
    max_loss: float = 0.005
    min_outcomes: int = 100
    cycle_epochs: int = 4
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Gathered:
    """What a cycle learns from. `taught` and `judged` share no text."""

    cards: list[SkillCard]
    corpus: list[Row]
    outcomes: list[Row]
    judged: list[Row]
    statistics: Statistics
    serving: Release | None


@dataclass(frozen=True)
class CycleResult:
    """What became of a cycle. `before` is empty where nothing served."""

    published: bool
    reason: str
    release: str
    parent: str
    corpus_rows: int
    outcome_rows: int
    judged_rows: int
    statistics: str
    before: dict[str, float]
    after: dict[str, float]
    gain: dict[str, float]  # of the decision's top-1: mean, low, high (paired bootstrap, 95 %)


def run_cycle(settings: Settings, options: CycleOptions) -> CycleResult:
    """One cycle. Raises BadData, BadBundle, BrokerError; WorkerError where there is nothing to learn from."""
    # 1. gather: cards, corpus, outcomes, statistics, the release that serves
    found = gather(settings, options)
    parent = read_bundle(Path(found.serving.bundle)) if found.serving else None
    # 2. train: from the parent's weights, on the corpus and on what customers accepted
    candidate = _train(found, options, parent)
    # 3. measure: both on rows that neither was trained on
    before = hits(Selector(parent), found.judged) if parent else None
    after = hits(Selector(candidate), found.judged)
    # 4. publish, or refuse and say why
    reason = refusal(before, after, options.max_loss)
    measures = {name: round(float(values.mean()), 4) for name, values in after.items() if len(values)}
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_bundle(_with_measures(candidate, measures), Path(folder) / "candidate")
        parent_id = parent.manifest.release if parent else ""
        if not reason and manifest.release == parent_id:
            reason = "the candidate is the release that serves"
        if not reason:
            publish(settings, Path(folder) / "candidate", options.store, parent_id, measures, "cycle")
    return CycleResult(
        published=not reason,
        reason=reason or "no measure fell by more than the bound",
        release=manifest.release,
        parent=parent_id,
        corpus_rows=len(found.corpus),
        outcome_rows=len(found.outcomes),
        judged_rows=len(found.judged),
        statistics=found.statistics.version(),
        before={name: round(float(values.mean()), 4) for name, values in (before or {}).items() if len(values)},
        after=measures,
        gain=_gain(before, after),
    )


def gather(settings: Settings, options: CycleOptions) -> Gathered:
    """Reads everything that a cycle learns from. Raises WorkerError where it is too little."""
    serving = current_release(settings)
    cards = read_cards(settings) or (read_skills(options.data) if options.data else [])
    if not cards:
        raise UsageError(
            "the skills topic is empty: run `namefree catalogue load DIR`, or name a corpus with --data"
        )
    known = {card.skill_id for card in cards}
    corpus, dev = _corpus(options.data)
    corpus_texts = {row.text for row in corpus}
    labelled = [
        Row(row.text, row.skill_id, "outcome", row.linked)
        for row in labelled_rows(settings)
        if row.skill_id is None or row.skill_id in known
    ]
    judged = [row for row in labelled if _is_judge(row, corpus_texts, options)]
    dev_texts = {row.text for row in dev}
    taught = [row for row in labelled if not _is_judge(row, corpus_texts, options) and row.text not in dev_texts]
    if len(taught) < options.min_outcomes and (serving or not corpus):
        raise WorkerError(
            f"nothing to learn from: {len(taught)} outcomes tell the intended skill, --min-outcomes asks for "
            f"{options.min_outcomes}"
        )
    judged += [row for row in dev if row.skill_id is None or row.skill_id in known]
    if not judged:
        raise WorkerError("nothing to judge by: no row is left that neither release was trained on")
    corpus = [row for row in corpus if row.skill_id is None or row.skill_id in known]
    return Gathered(cards, corpus, taught, judged, read_statistics(settings).statistics, serving)


def read_cards(settings: Settings) -> list[SkillCard]:
    """The newest card of every skill on the topic, in order of their first loading; malformed ones are logged."""
    cards: dict[bytes, SkillCard] = {}
    for message in read_all(settings, topic_name(settings, SKILLS)):
        key, value = message.key() or b"", message.value()
        if value is None:
            cards.pop(key, None)
            continue
        try:
            cards[key] = decode(value, SkillCard)
        except BadEvent as error:
            log.warning("a card is passed over: %s", error)
    return list(cards.values())


def _corpus(data: Path | None) -> tuple[list[Row], list[Row]]:
    if data is None:
        return [], []
    return read_rows(split_path(data, "train")), read_rows(split_path(data, "dev"))


def _is_judge(row: Row, corpus_texts: set[str], options: CycleOptions) -> bool:
    """By its text's hash, so that it is the same in every cycle; a corpus text was trained on by the first."""
    return is_held_out(JUDGE_SALT + row.text, options.judge_share) and row.text not in corpus_texts


def _train(found: Gathered, options: CycleOptions, parent: Bundle | None) -> Bundle:
    rows = [*found.corpus, *found.outcomes]
    recipe = options.recipe
    if parent is not None:
        training = msgspec.structs.replace(recipe.training, epochs=options.cycle_epochs)
        recipe = msgspec.structs.replace(recipe, training=training)
    total = steps(len(rows), found.cards, recipe)
    with console.progress("train", total) as advance:
        bundle = train(found.cards, rows, recipe, advance, parent, found.statistics)
        advance(total, "done")
    return bundle


def _with_measures(bundle: Bundle, measures: dict[str, float]) -> Bundle:
    manifest = msgspec.structs.replace(bundle.manifest, measures={**bundle.manifest.measures, **measures})
    return Bundle(**{**vars(bundle), "manifest": manifest})


def hits(selector: Selector, rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """1 where the intended skill has its place, by row: the decision's top-1 and the shortlist's top-3."""
    rankings = selector.decide([Request(row.text, row.linked or ()) for row in rows])
    table = [places(row.skill_id, ranking) for row, ranking in zip(rows, rankings, strict=True)]
    shortlist, decision = (np.asarray(column) for column in zip(*table, strict=True))
    return {
        "decision_top1": (decision == 1).astype(np.float64),
        "shortlist_top3": (shortlist <= 3).astype(np.float64),
    }


def refusal(
    before: dict[str, NDArray[np.float64]] | None, after: dict[str, NDArray[np.float64]], max_loss: float
) -> str:
    """Why a candidate may not serve; "" where it may."""
    for name, values in after.items():
        if before is None:
            break
        was, now = float(before[name].mean()), float(values.mean())
        if now < was - max_loss:
            return f"{name} falls from {was:.4f} to {now:.4f} on {len(values):,} rows, more than {max_loss} allows"
    return ""


def _gain(
    before: dict[str, NDArray[np.float64]] | None, after: dict[str, NDArray[np.float64]]
) -> dict[str, float]:
    if before is None:
        return {}
    difference = after["decision_top1"] - before["decision_top1"]
    low, high = bootstrap_interval(difference)
    return {"mean": round(float(difference.mean()), 4), "low": low, "high": high}
