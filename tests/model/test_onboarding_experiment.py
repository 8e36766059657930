"""The experiment on skills that join: what it leaves out, what it measures, and that it trains once."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from model.bundle import read_bundle
from model.cells import Digests
from model.conditions import Conditions
from model.data import Row
from model.experiment import Market
from model.onboarding_experiment import Plan, planned, run
from tests.model.conftest import SMALL
from topics.errors import BadData
from topics.events import SkillCard


@pytest.fixture(scope="module")
def plan(small_cards: list[SkillCard], small_rows: list[Row], small_dev: list[Row]) -> Plan:
    """The small market, with the small networks."""
    conditions = Conditions(dict.fromkeys((90, 70, 0), small_dev), given=True)
    digests = Digests.of(small_cards, small_rows, conditions)
    found = planned(Market(small_cards, small_rows, conditions, digests), quick=True)
    return replace(found, recipe=SMALL)


def test_skills_are_left_out_trained_without_and_measured_beside_the_full_training(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    found = run(plan, tmp_path, lambda done, note: notes.append(note))
    assert found["left_out"] == len(plan.ids) == len(plan.market.cards) // 10
    sizes = {len(read_bundle(place).catalogue) for place in (tmp_path / "bundles").iterdir()}
    assert sizes == {len(plan.market.cards), len(plan.market.cards) - len(plan.ids)}
    assert set(found["bits"]["changed_scores"].values()) == {0}
    assert [(one["phrases"], one["fine_tuned"]) for one in found["joined"]] == [
        (0, False), (0, True), (3, False), (3, True),
    ]  # fmt: skip
    assert found["without"]["left_out"]["linked"]["top3"] == 0
    for one in [found["full"], *found["joined"]]:
        assert one["left_out"]["linked"]["top3"] > 0
        low, high = one["others"]["text"]["interval"]
        assert low <= one["others"]["text"]["top3"] <= high
    assert sum(found["rows"][name] for name in ("left_out", "others")) == sum(
        row.skill_id is not None for row in plan.market.conditions.texts
    )
    assert 0 < found["rows"]["rivals"] < found["rows"]["others"]
    msgspec.json.encode(found)

    def train_again(*_: object) -> None:
        raise AssertionError("what was trained is trained again")

    monkeypatch.setattr("model.onboarding_experiment.train", train_again)
    again = run(plan, tmp_path, lambda done, note: None)
    assert [one["left_out"] for one in again["joined"]] == [one["left_out"] for one in found["joined"]]


def test_a_seed_chooses_the_skills(plan: Plan) -> None:
    market = plan.market
    assert planned(market, True).ids == plan.ids
    assert any(planned(market, True, seed=seed).ids != plan.ids for seed in range(1, 6))
    assert len(planned(market, True, count=1).left_out) == 1


def test_a_market_with_few_rows_is_refused_with_the_reason(plan: Plan) -> None:
    poor = Market(plan.market.cards, plan.market.rows[:5], plan.market.conditions, plan.market.digests)
    with pytest.raises(BadData, match=r"none can be left out: 0 of \d+ skills have 10 training rows"):
        planned(poor, True)
