"""Findings for the report's tests: two small trainings that are real, and customers drawn from their decisions."""

from collections.abc import Sequence
from pathlib import Path

from model.bundle import Bundle, read_bundle, write_bundle
from model.comparison import Interval
from model.data import Row, read_rows, read_skills, split_path
from model.evaluation import evaluate
from model.fitting import FittingSettings
from model.gate import GateResult
from model.linking import LinkSettings
from model.pipeline import Recipe, train
from model.reranker import RerankerSettings
from model.sample import SAMPLE_DIR
from model.selector import Request, Selector
from model.shortlister import ShortlisterSettings
from model.statistics import Statistics
from model.training import TrainingSettings
from model.wording import WordingSettings
from topics.events import Action, Decision, Outcome, OutcomeKind
from workers.behaviour import Behaviour, mood, react
from workers.crowd import Summary
from workers.findings import Check, Findings
from workers.stretch import Stretch
from workers.tally import Change, Gain, ReleaseReport, Report, share_of
from workers.trainer import CycleResult

FAMILIES = ("rides:", "weather:", "pizza:", "timers:")
RECIPE = Recipe(
    shortlister=ShortlisterSettings(word_width=32, state_width=16, width=48),
    reranker=RerankerSettings(candidates=6, width=16, heads=2, layers=1),
    training=TrainingSettings(epochs=2, batch=64),
    links=LinkSettings(epochs=2),
    wording=WordingSettings(bits=14),
    fitting=FittingSettings(epochs=4),
    pretrained=False,
)
HOSTILE = "<b>&</b><script src='http://evil.example/x.js'></script>\"$x^2$"


def small_findings(folder: Path) -> Findings:
    """Findings of two releases that a few seconds' training makes: some answers right, some wrong."""
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith(FAMILIES)]
    known = {card.skill_id for card in cards} | {None}
    rows = [row for row in read_rows(split_path(SAMPLE_DIR, "train")) if row.skill_id in known]
    dev = [row for row in read_rows(split_path(SAMPLE_DIR, "dev")) if row.skill_id in known]
    first = train(cards, rows[::2], RECIPE, lambda step, note: None)
    second = train(cards, rows, RECIPE, lambda step, note: None, first)
    return findings_of((first, second), dev, folder)


def findings_of(bundles: tuple[Bundle, Bundle], rows: Sequence[Row], folder: Path) -> Findings:
    """Findings as the demo makes them, from two bundles; what customers met is drawn from their decisions."""
    for place, bundle in enumerate(bundles):
        write_bundle(bundle, folder / str(place))
    first, second = (Selector(read_bundle(folder / str(place))) for place in range(2))
    statistics = Statistics()
    summaries = [_met(selector, rows, statistics, seed) for seed, selector in enumerate((first, second))]
    before, after = evaluate(first, rows), evaluate(second, rows)
    return Findings(
        data="the sample marketplace",
        rows={"corpus": 3_000, "asked first": len(rows), "asked second": len(rows), "judged": len(rows)},
        skills=len(first.bundle.catalogue),
        seconds={"broker": 4.2, "first release": 41.0, "customers": 9.5, "cycle": 22.1, "replay": 1.9},
        selectors=(first, second),
        judged=rows,
        before=before,
        after=after,
        first=summaries[0],
        second=summaries[1],
        cycle=_cycle(first, second, before["decision"]["top1"], after["decision"]["top1"]),
        replayed=_replayed(first, second, rows),
        statistics=statistics,
        checks=[
            Check("Each utterance has exactly one decision", True, "5,000 of 5,000"),
            Check("The replay gives the same decisions", False, "4,999 of 5,000"),
        ],
    )


def _met(selector: Selector, rows: Sequence[Row], statistics: Statistics, seed: int) -> Summary:
    actions, outcomes = dict.fromkeys(map(str, Action), 0), dict.fromkeys(map(str, OutcomeKind), 0)
    right = 0
    for number, (row, decided) in enumerate(zip(rows, _decisions(selector, rows), strict=True)):
        listed = [candidate.skill_id for candidate in decided.candidates]
        draw = mood(seed, number)
        kind, taken = react(decided.action, decided.skill_id, listed, row.skill_id, draw, Behaviour())
        outcome = Outcome(event_time_ms=1, utterance_id="u", customer_id="c", outcome=kind, skill_id=taken)
        statistics.fold(decided).fold(decided, outcome)
        actions[decided.action] += 1
        outcomes[kind] += 1
        right += decided.action is not Action.NONE and listed[0] == row.skill_id
    return Summary(
        run=f"run-{seed}",
        seed=seed,
        customers=len(rows) // 2,
        asked=len(rows),
        decided=len(rows),
        duplicates=0,
        acted=len(rows),
        seconds=2.5 - seed,
        decisions_per_s=1234.5 + seed * 300,
        actions=actions,
        outcomes=outcomes,
        right_first=right / len(rows),
        friction=1 - outcomes["accepted"] / len(rows),
        latency_ms={"p50": 41.0 + seed, "p95": 120.0 - seed, "p99": 181.0},
    )


def _decisions(selector: Selector, rows: Sequence[Row]) -> list[Decision]:
    rankings = selector.decide([Request(row.text, row.linked or ()) for row in rows])
    return [
        Decision(
            event_time_ms=0,
            utterance_id="u",
            customer_id="c",
            action=ranking.action,
            skill_id=ranking.skill_id,
            candidates=ranking.candidates,
            linked=row.linked or (),
        )
        for row, ranking in zip(rows, rankings, strict=True)
    ]


def launched(skill_id: str) -> Decision:
    return Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.LAUNCH, skill_id=skill_id)


def _cycle(first: Selector, second: Selector, before: float, after: float) -> CycleResult:
    return CycleResult(
        published=True,
        reason="no measure fell by more than the bound",
        release=second.release,
        parent=first.release,
        corpus_rows=3_000,
        outcome_rows=1_700,
        believed_rows=240,
        judged_rows=640,
        statistics="0123456789ab",
        before={"decision_top1": before, "shortlist_top3": before},
        after={"decision_top1": after, "shortlist_top3": after},
        gain=Interval(after - before, after - before - 0.01, after - before + 0.01),
        gate=GateResult(reason="", lines=[], lost=[], off_policy=None),
        provenance={},
        reactions={},
    )


def _replayed(first: Selector, second: Selector, rows: Sequence[Row]) -> Report:
    texts = [HOSTILE, *(row.text for row in rows[:4])]
    return Report(
        stretch=Stretch({0: 0}, {0: 900}),
        utterances=800,
        malformed=3,
        decided_by={first.release: 800},
        judged=share_of(500, 800),
        releases=[
            ReleaseReport(second.release, share_of(700, 800), share_of(0, 0), share_of(430, 500)),
            ReleaseReport(first.release, share_of(800, 800), share_of(800, 800), share_of(410, 500)),
        ],
        between=share_of(700, 800),
        gain=Gain(0.04, 0.01, 0.07),
        changed=100,
        changes=[Change(f"u{at}", text, "none", "launch rides:acorn", "") for at, text in enumerate(texts)],
        seconds=0.8,
        utterances_per_s=1000.0,
    )
