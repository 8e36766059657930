"""`namefree experiment reranker`: what it writes, what it says, and what it refuses."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model import reranker_experiment
from model.experiment import Market
from model.pipeline import Recipe
from model.reranker_experiment import VARIANTS, Plan
from tests.model.conftest import SMALL
from tests.model.small_experiment import write_folder
from topics.errors import UsageError
from workers import cli
from workers.commands import experiment_reranker
from workers.sandbox import declared


@pytest.fixture(autouse=True)
def _no_handlers() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that are made, with the small networks."""
    torch.set_num_threads(1)
    made: list[Plan] = []

    def small(market: Market, quick: bool, seeds: int, honest: Any) -> Plan:
        made.append(reranker_experiment.planned(market, quick, seeds, honest, SMALL))
        return made[-1]

    monkeypatch.setattr(experiment_reranker, "planned", small)
    return made


def namefree(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["namefree", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_prints_tables_writes_results_and_a_second_time_computes_nothing(
    plans: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, out = write_folder(tmp_path / "data"), tmp_path / "out"
    words = ("experiment", "reranker", "--data", data, "--out", out, "--seeds", "1")
    assert namefree(monkeypatch, *words) == 0
    first = capsys.readouterr().out
    assert [plan.honest for plan in plans] == [declared], "skills that are honest answer as the sandbox's do"
    for said in (
        "top-1 in %",
        "fewer than the shortlist's",
        "rivals: none",
        "AUROC",
        "CanFulfill by cards",
        "ECE",
    ):
        assert said in first
    assert "links: simulated here" in first
    assert "answers of skills that are asked are simulated: 10%" in first
    written = json.loads((out / "results.json").read_text())
    assert list(written["systems"]) == ["shortlist", *VARIANTS]
    assert [name for name in VARIANTS if "asked" in name] == [name for name in VARIANTS if "simulated" in name]

    monkeypatch.setattr(reranker_experiment, "prepare", None)
    assert namefree(monkeypatch, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out) == written


@pytest.mark.parametrize(("flags", "seeds", "quick"), [((), 3, False), (("--quick",), 2, True)])
def test_quick_is_two_seeds_and_all_of_it_three(
    flags: tuple[str, ...],
    seeds: int,
    quick: bool,
    plans: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def run(*_: object) -> None:
        raise UsageError("no more is needed")

    monkeypatch.setattr(experiment_reranker, "run", run)
    data = write_folder(tmp_path / "data")
    assert namefree(monkeypatch, "experiment", "reranker", "--data", data, "--out", tmp_path, *flags) == 2
    assert [(plan.seeds, plan.quick) for plan in plans] == [(seeds, quick)]


def test_quick_halves_the_epochs() -> None:
    market: Any = None
    whole, half = (
        reranker_experiment.planned(market, quick, 1, declared).recipe.training.epochs for quick in (False, True)
    )
    assert whole == Recipe().training.epochs
    assert half == -(-whole // 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "0"), "Invalid value for '--seeds'"),
        (("--data", "/nowhere"), "does not exist"),
    ],
)
def test_what_was_asked_wrongly_is_one_line(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert namefree(monkeypatch, "experiment", "reranker", *arguments) == 2
    assert said in capsys.readouterr().err
