"""Simulated customers: what they ask, how they act, and that what they report is what the topics hold."""

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from model.data import Row
from tests.conftest import Broker
from tests.workers.aggregating import Running
from tests.workers.answering import answering
from topics.codec import E, decode
from topics.errors import UsageError, WorkerError
from topics.events import Action, Links, Outcome, OutcomeKind, Utterance
from topics.kafka import read_all
from topics.registry import LINKS, OUTCOMES, UTTERANCES, Topic, create_topics, topic_name
from topics.settings import Settings
from workers.behaviour import Behaviour, Devices, Habit, mood, react
from workers.commands.simulate import print_summary
from workers.crowd import Plan, reaction
from workers.customers import simulate
from workers.fold_store import read_statistics

SKILLS = ("rides:acorn", "weather:dew", "cats:paw", "pizza:oven")
ROWS = [
    Row(f"request {n}", None if n % 10 == 0 else SKILLS[n % 4], "made up", tuple(SKILLS[: n % 4]))
    for n in range(200)
]
BY_TEXT = {row.text: row for row in ROWS}
RATES = Behaviour()


def oracle(utterance: Utterance) -> tuple[Action, tuple[str, ...]]:
    intended = BY_TEXT[utterance.text].skill_id
    return (Action.NONE, ()) if intended is None else (Action.LAUNCH, (intended,))


def stubborn(_: Utterance) -> tuple[Action, tuple[str, ...]]:
    return Action.LAUNCH, ("cats:paw",)


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=3)
    return settings


def events(settings: Settings, topic: Topic, kind: type[E]) -> list[E]:
    return [decode(message.value(), kind) for message in read_all(settings, topic_name(settings, topic))]


def test_each_asked_utterance_is_decided_and_acted_on_once(settings: Settings) -> None:
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r"))
    outcomes = events(settings, OUTCOMES, Outcome)
    assert (summary.asked, summary.decided, summary.duplicates, summary.acted) == (200, 200, 0, 200)
    assert sorted(outcome.utterance_id for outcome in outcomes) == sorted(f"r-{n}" for n in range(200))
    assert Counter(outcome.outcome.value for outcome in outcomes) == {
        k: v for k, v in summary.outcomes.items() if v
    }
    assert summary.right_first == 1.0
    assert summary.actions == {"launch": 180, "enable": 0, "discover": 0, "none": 20}
    assert summary.friction == pytest.approx(summary.outcomes["abandoned"] / 200)
    assert summary.latency_ms["p50"] >= 0


def test_links_are_there_before_their_customer_asks_and_not_in_the_utterance(settings: Settings) -> None:
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r", count=50))
    linked = {links.customer_id: links for links in events(settings, LINKS, Links)}
    utterances = events(settings, UTTERANCES, Utterance)
    assert len({utterance.customer_id for utterance in utterances}) == summary.customers
    for utterance in utterances:
        known = linked.get(utterance.customer_id)
        expected = BY_TEXT[utterance.text].linked
        assert (tuple(link.skill_id for link in known.linked) if known else ()) == expected
        assert utterance.linked is None
        assert known is None or known.event_time_ms <= utterance.event_time_ms


def test_inline_links_travel_in_the_utterance_alone(settings: Settings) -> None:
    with answering(settings, oracle):
        simulate(settings, ROWS, Plan(run="r", count=20, inline_links=True))
    assert events(settings, LINKS, Links) == []
    for utterance in events(settings, UTTERANCES, Utterance):
        assert utterance.linked == BY_TEXT[utterance.text].linked


def test_a_second_decision_of_an_utterance_is_counted(settings: Settings) -> None:
    with answering(settings, oracle, copies=2):
        summary = simulate(settings, ROWS, Plan(run="r", count=30))
    assert (summary.decided, summary.duplicates) == (30, 30)
    assert len(events(settings, OUTCOMES, Outcome)) == 30


def test_customers_who_do_not_act_send_no_outcome(settings: Settings) -> None:
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r", act=False))
    assert (summary.decided, summary.acted, summary.friction) == (200, 0, None)
    assert events(settings, OUTCOMES, Outcome) == []


def test_nobody_waits_with_no_wait(settings: Settings) -> None:
    summary = simulate(settings, ROWS, Plan(run="r", wait=False))
    assert (summary.asked, summary.decided, summary.right_first) == (200, 0, None)
    assert len(events(settings, UTTERANCES, Utterance)) == 200


def test_rows_are_asked_again_from_the_top_where_more_are_wanted(settings: Settings) -> None:
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r", start=150, count=300))
    utterances = events(settings, UTTERANCES, Utterance)
    assert summary.decided == len({utterance.utterance_id for utterance in utterances}) == 300
    assert Counter(utterance.text for utterance in utterances)["request 160"] == 2


def test_a_rate_is_kept(settings: Settings) -> None:
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r", rate=100, duration_s=1.0))
    assert 50 <= summary.asked <= 101  # never more; fewer where the machine is busy
    assert summary.asked == summary.decided


def test_a_stop_asks_no_more_and_sees_the_asked_through(settings: Settings) -> None:
    told = threading.Event()

    def advance(done: int, note: str = "") -> None:
        if done > 0:
            told.set()

    with answering(settings, oracle):
        summary = simulate(settings, ROWS, Plan(run="r", rate=50, duration_s=60), advance, told.is_set)
    assert 0 < summary.asked == summary.decided < 200


def test_decisions_that_stay_away_end_in_an_error_that_counts_them(settings: Settings) -> None:
    with pytest.raises(WorkerError, match="7 of 7 utterances have no decision"):
        simulate(settings, ROWS, Plan(run="r", count=7, patience_s=0.3))


def test_decisions_of_others_are_not_taken_for_ones_own(settings: Settings) -> None:
    with answering(settings, oracle):
        simulate(settings, ROWS, Plan(run="other", wait=False, count=40))
        summary = simulate(settings, ROWS, Plan(run="r", count=40))
    assert (summary.decided, summary.duplicates) == (40, 0)


def test_a_start_beyond_the_rows_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no row 200"):
        simulate(settings, ROWS, Plan(run="r", start=200))


def test_wrong_launches_are_acted_on_as_the_table_says(settings: Settings) -> None:
    with answering(settings, stubborn):
        summary = simulate(settings, ROWS, Plan(run="r", seed=3, count=200))
    meant = [row.skill_id for row in ROWS]
    expected = Counter(
        react(Action.LAUNCH, "cats:paw", (), skill, mood(3, n), RATES)[0].value for n, skill in enumerate(meant)
    )
    assert {kind: count for kind, count in summary.outcomes.items() if count} == expected
    assert expected["rejected"] > expected["corrected"] > 0


def test_a_termination_ends_with_the_summary_of_what_was_asked(
    settings: Settings, tmp_path: Path, wait_until: Callable[..., object]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"\n".join(msgspec.json.encode(row) for row in ROWS))
    command = ["--bootstrap", settings.bootstrap, "--prefix", settings.prefix, "simulate", "--json"]
    command += ["--utterances", str(rows), "--rate", "50", "--duration", "120"]
    with answering(settings, oracle):
        process = subprocess.Popen(
            [sys.executable, "-c", "from workers.cli import main; main()", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: len(events(settings, OUTCOMES, Outcome)) > 5, 120, "customers act")
        process.terminate()
        out, err = process.communicate(timeout=120)
    summary = json.loads(out)
    assert (process.returncode, summary["duplicates"]) == (0, 0), err
    assert 5 < summary["asked"] == summary["decided"] == len(events(settings, UTTERANCES, Utterance))


def test_the_printed_summary_names_what_happened(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(settings, oracle):
        print_summary(simulate(settings, ROWS, Plan(run="r", count=20)))
    printed = capsys.readouterr().out
    for says in ("duplicates", "launch 18 none 2", "right first", "1.000", "p95"):
        assert says in printed


CASES = [
    (Action.LAUNCH, "a", ("a",), "a", {OutcomeKind.ACCEPTED: 0.97, OutcomeKind.ABANDONED: 0.03}),
    (
        Action.LAUNCH,
        "b",
        ("b",),
        "a",
        {OutcomeKind.REJECTED: 0.60, OutcomeKind.CORRECTED: 0.25, OutcomeKind.ABANDONED: 0.15},
    ),
    (
        Action.ENABLE,
        "a",
        ("a",),
        "a",
        {OutcomeKind.ENABLED: 0.70, OutcomeKind.REJECTED: 0.10, OutcomeKind.ABANDONED: 0.20},
    ),
    (
        Action.ENABLE,
        "b",
        ("b",),
        "a",
        {OutcomeKind.REJECTED: 0.55, OutcomeKind.CORRECTED: 0.20, OutcomeKind.ABANDONED: 0.25},
    ),
    (Action.DISCOVER, None, ("b", "c", "a"), "a", {OutcomeKind.ACCEPTED: 0.90, OutcomeKind.ABANDONED: 0.10}),
    (
        Action.DISCOVER,
        None,
        ("b", "c", "d", "a"),
        "a",
        {OutcomeKind.REJECTED: 0.30, OutcomeKind.CORRECTED: 0.30, OutcomeKind.ABANDONED: 0.40},
    ),
    (Action.NONE, None, ("a",), "a", {OutcomeKind.CORRECTED: 0.40, OutcomeKind.ABANDONED: 0.60}),
    (Action.NONE, None, ("a",), None, {OutcomeKind.ACCEPTED: 1.0}),
    (Action.LAUNCH, "a", ("a",), None, {OutcomeKind.REJECTED: 1.0}),
    (Action.DISCOVER, None, ("a", "b"), None, {OutcomeKind.REJECTED: 1.0}),
]


@pytest.mark.parametrize(("action", "skill", "offered", "intended", "rates"), CASES)
def test_customers_act_at_the_rates_of_the_table(
    action: Action,
    skill: str | None,
    offered: Sequence[str],
    intended: str | None,
    rates: dict[OutcomeKind, float],
) -> None:
    draws = [n / 1000 for n in range(1000)]
    acted = [react(action, skill, offered, intended, draw, RATES) for draw in draws]
    counted = Counter(outcome for outcome, _ in acted)
    assert counted.keys() == rates.keys()
    assert all(math.isclose(counted[kind] / 1000, rate, abs_tol=0.002) for kind, rate in rates.items())
    taken = {kind: {skill for k, skill in acted if k is kind} for kind in counted}
    for kind in (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED, OutcomeKind.CORRECTED):
        assert taken.get(kind, {intended}) == {intended}


def test_moods_depend_on_seed_and_number_alone() -> None:
    drawn = {(seed, number): mood(seed, number) for seed in range(3) for number in range(2_000)}
    assert all(mood(seed, number) == draw for (seed, number), draw in reversed(drawn.items()))
    assert len(set(drawn.values())) == len(drawn)
    assert abs(sum(drawn.values()) / len(drawn) - 0.5) < 0.02


def told_of(settings: Settings) -> Counter[str]:
    return Counter(outcome.utterance_id for outcome in events(settings, OUTCOMES, Outcome))


def test_devices_tell_twice_late_early_and_of_what_never_was(settings: Settings) -> None:
    plan = Plan(run="r", devices=Devices(twice=0.2, late=0.2, early=0.2, unknown=0.2, late_s=0.5))
    habits = [plan.devices.habit(0, number) for number in range(200)]
    with answering(settings, oracle):
        summary = simulate(settings, ROWS, plan)
    told = told_of(settings)
    for number, habit in enumerate(habits):
        assert told[f"r-{number}"] == (2 if habit is Habit.TWICE else 1)
        assert told[f"r-{number}-never-asked"] == (habit is Habit.UNKNOWN)
    counted = Counter(habit.value for habit in habits if habit)
    assert summary.habits == counted
    assert (summary.decided, summary.acted) == (200, 200)
    early = [n for n, habit in enumerate(habits) if habit is Habit.EARLY]
    outcomes = {outcome.utterance_id: outcome for outcome in events(settings, OUTCOMES, Outcome)}
    assert {outcomes[f"r-{n}"].outcome for n in early} == {OutcomeKind.ABANDONED}


def test_whatever_devices_do_each_outcome_is_folded_once(
    settings: Settings, tmp_path: Path, wait_until: Callable[..., object]
) -> None:
    devices = Devices(twice=0.1, late=0.1, early=0.1, unknown=0.1, late_s=0.3)
    running = Running(settings, tmp_path / "aggregator.log")
    try:
        with answering(settings, oracle):
            summary = simulate(settings, ROWS, Plan(run="r", devices=devices))

        def folded() -> bool:
            found = read_statistics(settings).statistics
            return (found.decisions, found.outcomes) == (200, 200)

        wait_until(folded, 120, "each outcome to be folded once")
    finally:
        assert running.end() == 0
    assert sum(line.folded.get("duplicate", 0) for line in running.lines) == summary.habits["twice"] > 0
    found = read_statistics(settings).statistics
    kinds = Counter[str]()
    for both in found.skills.values():
        for counts in (both.linked, both.unlinked):
            kinds.update({kind.value: getattr(counts, kind.value) for kind in OutcomeKind})
    # of silence nothing is counted by skill; every other request was launched at the skill that was meant
    meant = [n for n, row in enumerate(ROWS) if row.skill_id is not None]
    happened = Counter(
        reaction(Plan(run="r", devices=devices), n, n, ROWS[n].skill_id, (Action.LAUNCH, ROWS[n].skill_id, ()))[0][
            0
        ].value
        for n in meant
    )
    assert {kind: count for kind, count in kinds.items() if count} == happened
