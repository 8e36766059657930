"""`namefree experiment shortlister`: what it writes, what it says, and what it refuses."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.summaries import summary
from model.systems import SYSTEMS, System
from tests.model.small_experiment import shrunk, small_results, write_folder
from tests.workers.test_report import Page
from workers import cli
from workers.commands.train import chosen_recipe
from workers.experiment_report import render

SHOWN = "ladder,constants,gate,published-softmax"
HOSTILE = "<b>&</b><script src='http://evil.example/x.js'></script>\"$x^2$"
HEADINGS = [
    "In short",
    "The systems",
    "One thing changed",
    "The published recipe",
    "A constant bonus",
    "By source, by skill",
    "Where the attention goes",
    "Errors and the number of links",
    "Statistics over epochs",
    "What it costs",
    "How it was measured",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    return summary(*small_results(tmp_path_factory.mktemp("experiment"), SHOWN, (0, 1)), quick=True)


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return render(found, {})


def test_results_are_json_and_say_everything(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "experiment",
        "links",
        "quick",
        "seeds",
        "listed",
        "conditions",
        "data",
        "machine",
        "groups",
        "systems",
        "bonus_curve",
        "examples",
    }
    assert found["links"] == "simulated here"
    assert found["seeds"] == [0, 1]
    assert found["conditions"] == ["90", "70", "0", "alone"]
    assert {"rivals", "head", "tail"} <= set(found["groups"])
    best = found["systems"]["best"]
    assert set(best) == {
        "group",
        "told",
        "constant",
        "recipe",
        "measures",
        "by_seed",
        "against",
        "misled",
        "groups",
        "weights",
        "errors_by_links",
        "epochs",
        "text_seconds",
        "link_seconds",
        "requests_per_s",
    }
    assert set(best["measures"]["70"]) == {"top1", "top3", "top5", "mrr"}
    assert set(best["measures"]["70"]["top3"]) == {"mean", "low", "high"}
    assert len(best["by_seed"]) == 2
    assert set(best["against"]) == {"softmax", "bonus"}
    assert set(best["against"]["softmax"]["90"]["top3"]) == {"points", "fewer_errors"}
    assert set(best["groups"]["head"]) == set(found["conditions"])
    assert 0 <= best["weights"]["70"]["calibration_error"] <= 1
    assert best["recipe"]["shortlister"]["attention"] == "sigmoid"
    assert found["systems"]["bonus=4"]["constant"] == 4.0
    assert not found["systems"]["none"]["weights"]


def test_figures_agree_with_each_other(found: dict[str, Any]) -> None:
    systems = found["systems"]
    best, softmax = (systems[name]["measures"]["90"]["top3"]["mean"] for name in ("best", "softmax"))
    against = systems["best"]["against"]["softmax"]["90"]["top3"]
    assert against["points"]["mean"] == pytest.approx(best - softmax, abs=2e-4)
    assert against["fewer_errors"]["mean"] == pytest.approx(1 - (1 - best) / (1 - softmax), abs=1e-3)
    assert best == pytest.approx(sum(seed["90"] for seed in systems["best"]["by_seed"]) / 2, abs=2e-4)
    meant = {at: sum(weights["intended"]) for at, weights in systems["best"]["weights"].items()}
    assert meant["0"] == 0
    assert meant["70"] / meant["90"] == pytest.approx(7 / 9, abs=0.01)


def test_the_curve_says_where_a_constant_is_better(found: dict[str, Any]) -> None:
    curve, best = found["bonus_curve"], found["systems"]["best"]["measures"]
    assert [point["bonus"] for point in curve] == list(map(float, range(11)))
    for point in curve:
        for condition in ("90", "70", "0"):
            better = point["measures"][condition]["top3"]["mean"] > best[condition]["top3"]["mean"]
            assert (condition in point["better_than_best_at"]["top3"]) == better


def test_the_page_stands_alone(page: str) -> None:
    read = Page(page)
    assert [heading for heading in HEADINGS if heading in read.headings] == HEADINGS
    assert not read.loads or all(load.startswith("#") for load in read.loads)
    assert not re.findall(r"https?://|@import|url\((?!#)", page)
    assert "script" not in read.tags
    assert len(read.ids) == len(set(read.ids)), "ids that two plots share"
    assert "simulated" in page


def test_strangers_words_stay_words(found: dict[str, Any]) -> None:
    example = found["examples"][0] | {"text": HOSTILE}
    page = render(found | {"examples": [example]}, dict.fromkeys(example["linked"], HOSTILE))
    assert "evil.example" in page
    assert "script" not in Page(page).tags


@pytest.mark.parametrize("names", ["none", "softmax", "gate", "bonus=1,bonus=2", "published-softmax,best"])
def test_a_page_of_a_few_systems_leaves_out_what_it_cannot_say(names: str, tmp_path: Path) -> None:
    found = summary(*small_results(tmp_path, names), quick=False)
    read = Page(render(found, {}))
    assert "How it was measured" in read.headings
    assert ("The systems" in read.headings) == (names != "gate" and "=" not in names)


@pytest.fixture
def small_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command computes small networks under the systems' names."""
    shrink: dict[str, System] = {name: shrunk(system) for name, system in SYSTEMS.items()}
    for name, system in shrink.items():
        monkeypatch.setitem(SYSTEMS, name, system)


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


@pytest.mark.usefixtures("small_systems")
def test_the_command_writes_results_and_a_report_and_a_second_time_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    data, out = write_folder(tmp_path / "data"), tmp_path / "out"
    words = (
        "experiment",
        "shortlister",
        "--data",
        data,
        "--out",
        out,
        "--systems",
        "none,softmax",
        "--seeds",
        "1",
    )
    assert namefree(monkeypatch, *words) == 0
    first = capsys.readouterr()
    assert "simulated here" in first.out
    assert first.out.splitlines()[-1] == str(out / "report.html")
    assert "2 cells, 2 of them still to compute" in first.err
    written = json.loads((out / "results.json").read_text())

    assert namefree(monkeypatch, *words, "--json") == 0
    second = capsys.readouterr()
    assert "2 cells, 0 of them still to compute" in second.err
    assert json.loads(second.out) == written | {"report": str(out / "report.html")}


@pytest.mark.usefixtures("small_systems")
def test_without_out_it_goes_to_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAMEFREE_HOME", str(tmp_path / "home"))
    data = write_folder(tmp_path / "data")
    assert namefree(monkeypatch, "experiment", "shortlister", "--data", data, "--systems", "none", "--quick") == 0
    assert (tmp_path / "home" / "experiments" / "shortlister" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--systems", "bset"), "there is no system 'bset'"),
        (("--out", "/dev/null/x"), "cannot be written"),
        (("--seeds", "0"), "Invalid value for '--seeds'"),
    ],
)
def test_what_was_asked_wrongly_is_one_line_before_any_training(
    arguments: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert namefree(monkeypatch, "experiment", "shortlister", *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_system_is_a_recipe_and_finer_flags_change_it() -> None:
    best = chosen_recipe("best", None, None, None, None, 0)
    assert best == SYSTEMS["best"].recipe
    plain = chosen_recipe("best", "softmax", False, False, 3, 7)
    assert plain.training.epochs == 3
    assert {plain.training.seed, plain.links.seed, plain.fitting.seed} == {7}
    shape, softmax = plain.shortlister, SYSTEMS["softmax"].recipe.shortlister
    assert shape == softmax
    taught = chosen_recipe("softmax", None, True, True, None, 0).shortlister
    assert (taught.attention, taught.supervised, taught.shares, taught.soft_targets) == (
        "softmax",
        True,
        True,
        True,
    )
