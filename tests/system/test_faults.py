"""A short fault run: what `make faults` does a million times, a few thousand times."""

from pathlib import Path

import pytest

from tests.faults.conductor import run_faults
from tests.faults.plan import KINDS, plan


@pytest.mark.timeout(600)  # on a machine that others use as well
def test_nothing_is_lost_or_done_twice_whatever_happens(tmp_path: Path) -> None:
    result = run_faults(36, 4_000, 10, tmp_path / "run")
    assert result.wrong == dict.fromkeys(result.wrong, 0)
    assert result.points_reached  # not all: a later fault may take a router before it comes to its point


def test_a_seed_gives_one_plan_with_every_kind_in_it() -> None:
    assert plan(1, 10**6, 200) == plan(1, 10**6, 200) != plan(2, 10**6, 200)
    assert {fault.kind for fault in plan(1, 10**6, 200)} == {*KINDS, "scale"}
