"""The learning experiment: one world through the real topics, in a short form; its summary, and its page."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from model.conditions import Conditions
from model.data import Row
from model.policy import Costs, set_costs
from tests.conftest import Broker
from tests.model.conftest import SMALL
from tests.model.small_experiment import write_folder
from tests.workers.test_report import Page
from topics.events import Action, OutcomeKind
from workers import cli, learning, learning_run
from workers.commands import experiment_learning
from workers.crowd import Met
from workers.learning import Found
from workers.learning_plan import ABLATIONS, ASKED, COSTS, WHOLE, LearningOptions, Market, planned
from workers.learning_report import render
from workers.learning_results import SLICES, Kept, Measured, Part, Run, Sums, added, packed, sliced, unpacked
from workers.learning_run import Start
from workers.learning_summary import summary
from workers.worlds import WORLDS, World

TINY = replace(
    SMALL,
    training=replace(SMALL.training, epochs=1),
    links=replace(SMALL.links, epochs=1),
    fitting=replace(SMALL.fitting, epochs=2),
)
ROWS = 400
CONDITIONS = ("90", "70", "0")


@pytest.fixture(autouse=True)
def _no_handlers() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


def namefree(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["namefree", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_world_turns_twice_and_a_second_time_computes_nothing(
    broker: Broker,
    topic_prefix: str,
    small_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(experiment_learning, "quick_recipe", lambda: TINY)
    monkeypatch.setattr(
        experiment_learning, "QUICK_BOUNDS", replace(experiment_learning.QUICK_BOUNDS, max_loss=1.0)
    )
    data, out = write_folder(tmp_path / "data"), tmp_path / "out"
    words: tuple[str, ...] = (
        "--bootstrap",
        broker.bootstrap,
        "--prefix",
        topic_prefix,
        "experiment",
        "learning",
        "--quick",
    )
    words += ("--data", str(data), "--full", str(small_folder), "--out", str(out))
    assert namefree(monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    for said in ("steady: top-1", "cycle 2: gap closed", "friction", "simulated", str(out / "report.html")):
        assert said in printed
    found = json.loads((out / "results.json").read_text())
    steady = found["worlds"]["steady"]
    assert len(steady["top1"]) == 3
    rows = (data / "utterances.train.jsonl").read_text().count("\n")
    assert sum(part["asked"] for part in steady["parts"]) + steady["taught"] < rows, "some judge the cycles"
    for part in steady["parts"]:
        assert sum(part["outcomes"].values()) == part["asked"]
        assert part["friction"]["live"]["requests"] == part["friction"]["static"]["requests"] == part["asked"]
    first = steady["parts"][0]["friction"]
    assert first["live"] == first["static"], "until the first cycle the first release serves, here as aside"
    assert steady["parts"][0]["cycles"][0]["outcome_rows"] > 0
    assert 0 < found["full"]["top1"]["90"]["mean"] <= 1

    monkeypatch.setattr(learning, "run_world", None)
    assert namefree(monkeypatch, *words, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    again.pop("report")
    assert again == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--worlds", "flat"), "'flat' is no world; there are: steady, drift, adversarial"),
        (("--ablations", "no sense"), "'no sense' is no ablation; there are: no statistics"),
        (("--parts", "1"), "Invalid value for '--parts'"),
    ],
)
def test_what_was_asked_wrongly_is_one_line(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert namefree(monkeypatch, "experiment", "learning", *arguments) == 2
    assert said in capsys.readouterr().err


def test_liars_are_run_beside_whom_they_are_compared_with() -> None:
    options = LearningOptions(Path(), Path(), worlds=("adversarial",), ablations=("no statistics",))
    assert planned(options) == [
        *((world, WHOLE) for world in ("steady", "honest", "adversarial")),
        ("steady", "no statistics"),
    ]


def test_slices_add_up() -> None:
    met = Met()
    met.expect(25)
    for place in range(25):
        kind = OutcomeKind.ACCEPTED if place % 5 else OutcomeKind.ENABLED
        met.note(place, Action.LAUNCH if place % 2 else Action.ENABLE, "bad" if place < 4 else "good", kind)
    found = sliced(met, {"bad": "good"}, "good")
    assert len(found) == SLICES
    assert added(found) == Sums(25, 5, 0, 4, 2, 21)


def test_bits_come_back_as_they_were() -> None:
    hits = np.random.default_rng(0).random(1_001) < 0.3
    assert (unpacked(packed(hits), 1_001) == hits).all()


def test_what_is_not_whole_counts_as_absent(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.keep_measured("a", measured(0.5))
    assert kept.measured("a") == measured(0.5)
    (tmp_path / "measured" / "a.json").write_text("{")
    assert kept.measured("a") is None
    assert kept.run("a") is None
    assert kept.bundle("a") is None


def measured(share: float) -> Measured:
    """Right in the first `share` of the rows, in every condition."""
    bits = packed(np.arange(ROWS) < share * ROWS)
    return Measured("r", ROWS, dict.fromkeys(CONDITIONS, bits), dict.fromkeys(CONDITIONS, bits))


def part(friction: dict[str, int], failing: dict[str, int], cheater: int = 0) -> Part:
    """Of 100 requests in each slice: how many with friction, and with a failing skill opened, by who decided."""
    met = {who: [Sums(100, count, count, failing[who], 0, cheater)] * SLICES for who, count in friction.items()}
    cycle = {"published": True, "reason": "", "release": "r"}
    return Part(1_000, 1.0, 1_000.0, {"accepted": 500}, {"twice": 5}, met, cycle, 10.0)


def run(world: str, shares: list[float], parts: list[Part], variant: str = WHOLE) -> Run:
    changes = 2 if world == "drift" else None
    return Run(world, variant, 0, 26, 100, 1, 1, changes, "cats:paw", parts, [measured(share) for share in shares])


def found() -> Found:
    """Four worlds and an ablation, as made up as can be."""
    rows = [Row(f"request {number}", "cats:paw") for number in range(ROWS)]
    market = Market([], rows, Conditions({90: rows, 70: rows, 0: rows}, given=True))
    steady = part({"live": 30, "static": 40}, {"live": 0, "static": 0}, 10)
    before = part({"live": 30, "static": 30, "serving": 30}, {"live": 0, "static": 0, "serving": 0})
    change = part({"live": 50, "static": 60, "serving": 60}, {"live": 2, "static": 20, "serving": 20})
    after = part({"live": 30, "static": 60, "serving": 32}, {"live": 1, "static": 20, "serving": 4})
    climbs = [0.5, 0.6, 0.65, 0.68, 0.7]
    runs = [
        run("steady", climbs, [steady] * 4),
        run("drift", climbs, [before, before, change, after]),
        run("honest", [0.5, 0.59, 0.64, 0.67, 0.69], [steady] * 4),
        run("adversarial", [0.5, 0.58, 0.63, 0.66, 0.68], [replace(steady, met=cheated(steady))] * 4),
        run("steady", [0.5, 0.55, 0.58, 0.6, 0.6], [steady] * 4, "no statistics"),
    ]
    return Found(market, LearningOptions(Path(), Path(), ablations=("no statistics",)), runs, [measured(0.75)])


def cheated(steady: Part) -> dict[str, list[Sums]]:
    return {who: [replace(one, cheater=11) for one in slices] for who, slices in steady.met.items()}


def test_the_summary_says_what_was_aimed_at() -> None:
    values = summary(found())
    assert json.loads(json.dumps(values)) == values
    closed = values["worlds"]["steady"]["closed"]
    assert [point["all"]["mean"] for point in closed] == pytest.approx([0.4, 0.6, 0.72, 0.8])
    assert closed[-1]["all"]["low"] <= 0.8 <= closed[-1]["all"]["high"]
    assert values["ablations"]["no statistics"]["against_whole"][-1]["70"]["mean"] == pytest.approx(-0.1)
    drift = values["drift"]
    assert drift["friction_less"][1]["not_accepted"] == pytest.approx(0.5)
    assert drift["failing_less"]["part 3"] == {"live": 0.9, "serving": 0.0}
    assert values["adversarial"]["lost"][-1]["all"]["mean"] == pytest.approx(0.02)
    assert values["adversarial"]["cheater_gain"] == pytest.approx(1.1)
    assert all(check["kept"] for check in values["checks"])
    assert len(values["checks"]) == 4 + 3 + 2


def test_without_a_gap_no_share_of_it_is_told() -> None:
    one = found()
    values = summary(Found(one.market, one.options, one.runs[:1], [measured(0.5)]))
    assert values["worlds"]["steady"]["closed"][-1]["all"] is None
    assert not any(check["kept"] for check in values["checks"])
    page = Page(render(values | {"quick": False}))
    assert page.headings == ["In short", "From a fifth of the labels", "Friction", "How it was measured"]


def test_the_page_needs_nothing_else_and_says_what_is_simulated() -> None:
    text = render(summary(found()) | {"quick": True})
    page = Page(text)
    assert page.headings == [
        "In short",
        "From a fifth of the labels",
        "One thing off",
        "Friction",
        "Skills that fail",
        "Liars",
        "How it was measured",
    ]
    assert "simulated" in text
    assert "suggestion of what they meant (30" in text
    assert "silence where a skill is meant (100" in text
    assert "http" not in text.replace("http-equiv", "")
    assert all(name in text for name in (*WORLDS, *ASKED))
    assert "no statistics" in ABLATIONS


@pytest.mark.parametrize(("asked", "share"), [(400, 0.1), (40_000, 0.05)])
def test_two_thousand_requests_judge_a_cycle_and_never_more_than_a_tenth(
    tmp_path: Path, asked: int, share: float
) -> None:
    """What judges teaches nothing, so more of it than is needed costs what the loop is there for."""
    world = World("steady", [], [], [], [Row("feed the cat", "cats:paw")] * asked, [0, asked])
    market = Market([], world.rows, Conditions({70: world.rows}, given=True))
    start = Start(market, LearningOptions(tmp_path, tmp_path), world, WHOLE, 0, SMALL, tmp_path)
    assert start.cycle().judge_share == pytest.approx(share)


def test_the_router_acts_by_what_its_customers_lose(tmp_path: Path) -> None:
    """Live by the same costs as the releases that are laid aside: friction is compared."""
    world = World("steady", [], [], [], [], [0])
    market = Market([], [], Conditions({}, given=True))
    told = learning_run._route(
        Start(market, LearningOptions(tmp_path, tmp_path), world, WHOLE, 0, SMALL, tmp_path)
    )
    costs = dict(zip(told[::2], map(float, told[1::2]), strict=True))
    assert costs == {"--cost-enable": 0.3, "--cost-question": 0.1, "--cost-missed": 1.0}
    assert set_costs(Costs(), COSTS) == Costs(enable=0.3, question=0.1, missed=1.0)


def test_a_run_of_a_router_with_other_costs_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was kept would else be told as one of the costs of now."""
    market, options = Market([], [], Conditions({}, given=True)), LearningOptions(tmp_path, tmp_path)
    before = learning._key(market, "steady", WHOLE, 0, options)
    assert learning._key(market, "steady", WHOLE, 0, options) == before
    monkeypatch.setitem(COSTS, "missed", 0.5)
    assert learning._key(market, "steady", WHOLE, 0, options) != before
