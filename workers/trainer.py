"""The trainer: one distillation cycle, from what customers did to a new release, or to a refusal with its reason.

gather -> train -> judge -> publish, promote step by step, or refuse -> report
"""

import logging
import tempfile
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from model.bundle import Bundle, read_bundle, write_bundle
from model.comparison import Interval
from model.gate import GateResult, judge
from model.pipeline import Recipe, rows_digest, steps, train
from model.selector import Selector
from model.statistics import Statistics
from topics.events import Release
from topics.settings import Settings
from workers import console
from workers.cycle_options import CycleOptions
from workers.cycle_report import CycleFindings, write_cycle_report
from workers.descent import VERDICT, code_version, line, offsets_line
from workers.failpoints import reach
from workers.gathering import Gathered, gather
from workers.promotion import Promotion, promote
from workers.releases import all_releases, record, serve

log = logging.getLogger("namefree.trainer")
RECENT = 20_000  # outcomes that off-policy measures look at, the newest: enough for narrow intervals


class CycleResult(Struct, frozen=True, kw_only=True):
    """What became of a cycle. `before` is empty where nothing served. `outcome_rows`: those that are labelled;
    `believed_rows`: those of which the skill is not sure. `gain`: of the decision's top-1, mean, low and high.
    `reactions`: how customers react, as estimated, by action."""

    published: bool
    reason: str
    release: str
    parent: str
    corpus_rows: int
    outcome_rows: int
    believed_rows: int
    judged_rows: int
    statistics: str
    before: dict[str, float]
    after: dict[str, float]
    gain: Interval | None
    gate: GateResult
    provenance: dict[str, str]
    reactions: dict[str, dict[str, float]]
    promotion: Promotion | None = None


def run_cycle(settings: Settings, options: CycleOptions, stop: threading.Event | None = None) -> CycleResult:
    """One cycle. A set `stop` ends a promotion that is under way, and with it the trial.

    Raises BadData, BadBundle, BrokerError; WorkerError where there is nothing to learn from.
    """
    # 1. gather: cards, corpus, what customers did, statistics, the release that serves
    found = gather(settings, options)
    parent = read_bundle(Path(found.serving.bundle)) if found.serving else None
    # 2. train: from the parent's weights, on the corpus and on what customers did
    bundle = _train(found, options, parent)
    # 3. judge: both releases on rows that neither was trained on, and on what customers accepted
    after = Selector(bundle)
    logged = [one.logged() for one in found.newest(RECENT)]
    gate = judge(found.before, after, found.judged, logged, [*found.corpus, *found.outcomes], options.bounds)
    # 4. publish, promote step by step, or refuse and say why
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_bundle(_with_measures(bundle, gate.after()), Path(folder) / "candidate")
        reach("trainer.after_bundle")
        provenance = _provenance(found, bundle, gate, options)
        if found.serving and manifest.release == found.serving.release:
            reason, promotion = "the candidate is the release that serves", None
        else:
            release = _recorded(settings, Path(folder) / "candidate", found, gate, provenance, options)
            reason, promotion = _bring_out(settings, release, gate, options, stop)
    result = _result(found, manifest.release, gate, reason, provenance, promotion)
    # 5. report
    if options.report:
        write_cycle_report(options.report, _findings(settings, found, after, result))
    return result


def _train(found: Gathered, options: CycleOptions, parent: Bundle | None) -> Bundle:
    rows = [*found.corpus, *found.outcomes]
    recipe = _recipe(options, parent)
    statistics = found.known.statistics if options.learning.statistics else Statistics()
    total = steps(len(rows), found.cards, recipe)
    with console.progress("train", total) as advance:
        bundle = train(found.cards, rows, recipe, advance, parent, statistics)
        advance(total, "done")
    return bundle


def _recipe(options: CycleOptions, parent: Bundle | None) -> Recipe:
    """A later release starts from its parent, for as many epochs as the options say."""
    recipe = options.recipe
    if not options.learning.distillation:
        recipe = msgspec.structs.replace(recipe, teacher=0.0)
    if parent is None:
        return recipe
    training = msgspec.structs.replace(recipe.training, epochs=options.cycle_epochs)
    return msgspec.structs.replace(recipe, training=training)


def _recorded(
    settings: Settings,
    bundle: Path,
    found: Gathered,
    gate: GateResult,
    provenance: dict[str, str],
    options: CycleOptions,
) -> Release:
    """Kept in the store whatever the verdict is, so that a refused candidate can be looked at and replayed."""
    parent = found.serving.release if found.serving else ""
    return record(settings, bundle, options.store, parent, gate.after(), "cycle", provenance)


def _bring_out(
    settings: Settings, release: Release, gate: GateResult, options: CycleOptions, stop: threading.Event | None
) -> tuple[str, Promotion | None]:
    """Serves what was not refused, at once or step by step; returns why it does not serve, "" where it does."""
    if gate.refused:
        return gate.reason, None
    if options.promotion is None:
        serve(settings, release)
        return "", None
    promotion = promote(settings, release, options.promotion, log.info, stop)
    return "" if promotion.promoted else promotion.reason, promotion


def _provenance(found: Gathered, bundle: Bundle, gate: GateResult, options: CycleOptions) -> dict[str, str]:
    """What made a candidate; equal inputs give equal lines."""
    made = bundle.manifest.provenance
    rows = {"corpus": found.corpus, "outcomes": found.outcomes, "judged": found.judged}
    return {
        # lines of an event are short: what is long is a digest
        **{f"{name} rows": f"{len(part):,}, digest {rows_digest(part)}" for name, part in rows.items()},
        **{f"{topic} offsets": offsets_line(ends) for topic, ends in sorted(found.experience.offsets.items())},
        "statistics": found.known.statistics.version() or "none",
        "parent": found.serving.release if found.serving else "none",
        "seed": str(made["seed"]),
        "epochs": str(made["epochs"]),
        "code": code_version(),
        "measures": ", ".join(f"{name} {value:.4f}" for name, value in gate.after().items()),
        "left out": ", ".join(name for name, used in msgspec.structs.asdict(options.learning).items() if not used),
        VERDICT: f"refused: {gate.reason}" if gate.refused else "passed the gate",
    }


def _with_measures(bundle: Bundle, measures: dict[str, float]) -> Bundle:
    manifest = msgspec.structs.replace(bundle.manifest, measures={**bundle.manifest.measures, **measures})
    return Bundle(**{**vars(bundle), "manifest": manifest})


def _result(
    found: Gathered,
    release: str,
    gate: GateResult,
    reason: str,
    provenance: dict[str, str],
    promotion: Promotion | None,
) -> CycleResult:
    return CycleResult(
        published=not reason,
        reason=reason or "no measure fell by more than its bound",
        release=release,
        parent=found.serving.release if found.serving else "",
        corpus_rows=len(found.corpus),
        outcome_rows=found.labelled,
        believed_rows=len(found.outcomes) - found.labelled,
        judged_rows=len(found.judged),
        statistics=found.known.statistics.version(),
        before=gate.before(),
        after=gate.after(),
        gain=gate.gain(),
        gate=gate,
        provenance=provenance,
        reactions=found.reactions.told() if found.reactions else {},
        promotion=promotion,
    )


def _findings(settings: Settings, found: Gathered, after: Selector, result: CycleResult) -> CycleFindings:
    known = all_releases(settings)
    learned = {"corpus": result.corpus_rows, "outcomes": result.outcome_rows, "believed": result.believed_rows}
    return CycleFindings(
        published=result.published,
        reason=result.reason,
        before=found.before,
        after=after,
        rows=found.judged,
        gate=result.gate,
        statistics=found.known.statistics,
        learned={**learned, "judged": result.judged_rows},
        provenance=result.provenance,
        line=line(known, found.serving) if found.serving else (),
        when_ms=int(time.time() * 1000),
        release=result.release,
        buckets=found.known.buckets,
    )
