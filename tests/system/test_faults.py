"""Short fault runs: what `make faults` and its sisters do at length."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import Broker, WaitUntil
from tests.faults.aggregator_kills import kill_again
from tests.faults.conductor import Conductor
from tests.faults.plan import KINDS, MUTANT_FAULTS, Fault, mutant_plan, plan
from tests.faults.running import run_faults
from topics.settings import Settings


@pytest.mark.timeout(600)  # on a machine that others use as well
def test_nothing_is_lost_or_done_twice_whatever_happens(tmp_path: Path) -> None:
    result = run_faults(36, 4_000, 10, tmp_path / "run")
    assert result.wrong == dict.fromkeys(result.wrong, 0), result.errors
    planned, there = (sum(counts) for counts in zip(*result.points.values(), strict=True))
    assert there >= planned - 1  # a broker that is away may end one that is on its way


@pytest.mark.timeout(300)
def test_an_aggregator_killed_around_its_writes_folds_nothing_twice(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    result = kill_again(settings, 1, 5, tmp_path)
    assert result.wrong == dict.fromkeys(result.wrong, 0)
    assert sum(result.kills.values()) == 5


def test_a_seed_gives_one_plan_with_every_kind_in_it() -> None:
    assert plan(1, 10**6, 200) == plan(1, 10**6, 200) != plan(2, 10**6, 200)
    assert {fault.kind for fault in plan(1, 10**6, 200)} == {*KINDS, "scale"}


@pytest.mark.parametrize("mutant", MUTANT_FAULTS)
def test_what_finds_a_mutant_is_in_its_plan_at_every_seed(mutant: str) -> None:
    for seed in range(20):
        found = mutant_plan(mutant, seed, 1_500)
        assert [fault.kind for fault in found] == [kind for kind, _ in MUTANT_FAULTS[mutant]]
        assert 0 < found[0].at < found[-1].at < 1_500


def test_aggregators_are_left_alone_while_dead_letters_are_sent_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Who sends back waits for an aggregator's letters; one that is killed again and again never tells them."""
    nobody: Any = SimpleNamespace(aimed=list, routers=[], aggregator_points=[])
    broker: Any = None
    conductor = Conductor(broker, Settings(), nobody, tmp_path, 0, lambda: 0, lambda: 0, lambda _said: None)
    begun, enough = threading.Event(), threading.Event()

    def sends() -> None:
        begun.set()
        enough.wait(60)
        raise OSError("nothing to send it to")

    monkeypatch.setattr(conductor.rubbish, "send", sends)
    kill = Fault(at=0, kind="aggregator", points="aggregator.before_write=kill@1")
    redrive = Fault(at=0, kind="redrive", points="redrive.before_commit=kill@1")
    conductor.begin(kill)  # is due, and has not befallen anybody
    assert not conductor.may_begin(redrive)
    nobody.aggregator_points.clear()
    assert conductor.may_begin(kill)
    conductor.begin(redrive)
    assert begun.wait(60)
    assert not conductor.may_begin(kill)
    enough.set()
    wait_until(conductor.is_idle, 60, "the end of the sending back")
    assert conductor.may_begin(kill)
