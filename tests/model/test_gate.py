"""The gate: three bad candidates are refused, an equal one is not, and scatter refuses as seldom as it may."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from model.bundle import Bundle, read_bundle
from model.comparison import Interval
from model.data import Row
from model.gate import MOST_CHARS, GateResult, decided, judge, reason
from model.gate_lines import (
    ECE,
    FRICTION,
    NONE,
    TOP1,
    TOP3,
    Bounds,
    Line,
    friction_line,
    holm,
    lines_of,
    sign_test,
)
from model.judging import ALL, AS_ASKED, MISLEADING, TAKEN_AWAY, Decided, slices, worlds
from model.off_policy import Estimates, OffPolicy
from model.own_words import Lost, lost_skills, own_texts
from model.pipeline import train
from model.selector import Selector
from tests.model.conftest import SMALL

BOUNDS = Bounds()


def changed(folder: Path, change: Callable[[Bundle], None]) -> Selector:
    """The bundle in `folder`, changed in memory."""
    bundle = read_bundle(folder)
    with torch.no_grad():
        change(bundle)
    return Selector(bundle)


def untouched(bundle: Bundle) -> None:
    """What serves."""


@pytest.fixture(scope="module")
def serving(small_folder: Path) -> Selector:
    return changed(small_folder, untouched)


def test_what_serves_passes_its_own_gate_and_no_line_has_moved(
    serving: Selector, small_dev: list[Row], small_rows: list[Row]
) -> None:
    found = judge(serving, serving, small_dev, (), small_rows)
    assert (found.reason, found.refused, found.lost, found.off_policy) == ("", False, [], None)
    assert all(line.difference == Interval(0.0, 0.0, 0.0) and line.p == 1.0 for line in found.lines)
    assert found.before() == found.after()
    assert {TOP1, TOP3} <= set(found.after())
    told = {line.slice for line in found.lines}
    assert {ALL, "head", "tail", "meant skill linked", TAKEN_AWAY, MISLEADING} <= told


def test_a_first_release_has_nothing_to_be_worse_than(serving: Selector, small_dev: list[Row]) -> None:
    found = judge(None, serving, small_dev)
    assert not found.refused
    assert (found.before(), found.gain()) == ({}, None)
    assert all(line.before is None and line.difference is None for line in found.lines)


def test_one_trained_on_shuffled_labels_is_refused(
    serving: Selector, small_bundle: Bundle, small_dev: list[Row], small_rows: list[Row]
) -> None:
    labels = np.random.default_rng(0).permutation(len(small_rows))
    shuffled = [
        replace(row, skill_id=small_rows[at].skill_id) for row, at in zip(small_rows, labels.tolist(), strict=True)
    ]
    candidate = train(small_bundle.catalogue.cards(), shuffled, SMALL, lambda step, note: None, small_bundle)
    found = judge(serving, Selector(candidate), small_dev, (), small_rows)
    assert found.refused
    assert "decision_top1 falls from" in found.reason
    assert {line.slice for line in found.lines if line.worse} >= {ALL, TAKEN_AWAY, MISLEADING}


def zeroed(row: torch.Tensor) -> torch.Tensor:
    return 0 * row


def turned(row: torch.Tensor) -> torch.Tensor:
    other = torch.randn(row.shape, generator=torch.Generator().manual_seed(1))
    found: torch.Tensor = other / other.norm() * row.norm()
    return found


def blown_up(row: torch.Tensor) -> torch.Tensor:
    return row * 40


@pytest.mark.parametrize("damage", [zeroed, turned, blown_up, torch.neg])
@pytest.mark.parametrize("skill", ["rides:acorn", "weather:weathervane", "timers:deepwork"])
def test_one_with_a_single_damaged_row_is_refused_and_the_skill_is_named(
    damage: Callable[[torch.Tensor], torch.Tensor],
    skill: str,
    serving: Selector,
    small_folder: Path,
    small_rows: list[Row],
) -> None:
    """Whether or not enough judged rows mean that skill."""

    def change(bundle: Bundle) -> None:
        rows, at = bundle.shortlister.rows, bundle.catalogue.row(skill)
        rows[at] = damage(rows[at])

    lost = lost_skills(serving, changed(small_folder, change), small_rows)
    assert [one.skill_id for one in lost] == [skill]
    assert f"1 skill is lost: {skill} (" in reason([], lost)


def test_a_skill_is_lost_where_its_own_words_lead_elsewhere(
    serving: Selector, small_folder: Path, small_rows: list[Row]
) -> None:
    """Whatever part of the networks it is that lost it: here what its card says, and where it points."""

    def change(bundle: Bundle) -> None:
        model, at = bundle.shortlister, bundle.catalogue.row("rides:acorn")
        model.rows[at] = -model.skill_vectors()[at] * model.rows[at].norm()
        model.cards[at] = 0

    [lost] = lost_skills(serving, changed(small_folder, change), small_rows)
    assert lost.skill_id == "rides:acorn"


def test_one_that_favours_linked_skills_blindly_is_refused(
    serving: Selector, small_folder: Path, small_dev: list[Row], small_rows: list[Row]
) -> None:
    """Also where every judged row has the meant skill linked, so that a blind bonus looks well on them."""

    def change(bundle: Bundle) -> None:
        bundle.shortlister.links.bias.add_(6.0)

    rows = [row for row in (*small_dev, *small_rows[:250]) if row.skill_id]
    linked = [replace(row, linked=(*(row.linked or ()), str(row.skill_id))) for row in rows]
    found = judge(serving, changed(small_folder, change), linked, (), small_rows)
    assert found.refused
    assert {line.slice for line in found.lines if line.worse} >= {MISLEADING}
    assert f"({MISLEADING})" in found.reason


def made(right: Sequence[int], chance: Sequence[float] | None = None) -> Decided:
    """N rows whose first is right or not, told with these probabilities."""
    places = np.where(np.asarray(right) > 0, 1, 5)
    told = np.full(len(places), 0.5) if chance is None else np.asarray(chance)
    return Decided(places, places, told, np.zeros(len(places)))


def table(name: str, before: Sequence[int], after: Sequence[int]) -> list[Line]:
    texts = [f"{name}-{at}" for at in range(len(before))]
    return lines_of(
        name, texts, np.ones(len(before)), np.zeros(len(before), dtype=np.bool_), made(before), made(after), BOUNDS
    )


def test_of_twelve_rows_scatter_refuses_nobody_and_a_collapse_does() -> None:
    others = [line for at in range(12) for line in table(f"s{at}", [1] * 40, [1] * 40)]
    scattered = table("small", [1] * 11 + [0], [0] * 4 + [1] * 8)
    collapsed = table("small", [1] * 12, [0] * 12)
    assert not any(line.worse for line in decided([*others, *scattered], BOUNDS))
    found = decided([*others, *collapsed], BOUNDS)
    assert [line.slice for line in found if line.worse] == ["small", "small"]
    assert "decision_top1 (small) falls from 1.0000 to 0.0000 on 12 rows, more than 0.02 allows" in reason(
        found, []
    )


def test_over_all_rows_a_loss_beyond_the_bound_is_refused_outright() -> None:
    within, beyond = (table(ALL, [1] * 1_000, [0] * lost + [1] * (1_000 - lost)) for lost in (5, 6))
    assert not any(line.worse for line in decided(within, BOUNDS))
    assert [line.measure for line in decided(beyond, BOUNDS) if line.worse] == [TOP1, TOP3]


def test_rows_that_stand_for_many_count_so_much() -> None:
    """What the serving release got wrong is told seldom: a gain there is worth more than a loss elsewhere."""
    before, after = [1] * 90 + [0] * 10, [1] * 80 + [0] * 10 + [1] * 10
    texts, none = [str(at) for at in range(100)], np.zeros(100, dtype=np.bool_)
    even, weighed = (
        lines_of(ALL, texts, np.asarray([1.0] * 90 + [weight] * 10), none, made(before), made(after), BOUNDS)[0]
        for weight in (1.0, 4.0)
    )
    assert (even.before, even.after) == (0.9, 0.9)
    assert (weighed.before, weighed.after) == (0.6923, 0.9231)
    assert weighed.p > 0.5


def test_a_text_asked_often_is_one_witness() -> None:
    """A hundred rows of one text that is lost are no more than scatter."""
    none = np.zeros(100, dtype=np.bool_)
    [top1, *_] = lines_of(
        "popular", ["one text"] * 100, np.ones(100), none, made([1] * 100), made([0] * 100), BOUNDS
    )
    assert top1.p == 0.5


def test_equal_candidates_are_refused_by_scatter_no_more_often_than_allowed() -> None:
    """Slices of equal candidates, forty times: but for what is refused outright, at most 5 % of them."""
    refused = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        lines: list[Line] = []
        for size in (12, 30, 60, 120):
            before, after = ((generator.random(size) < 0.7).astype(int).tolist() for _ in range(2))
            lines += table(f"slice {len(lines)}", before, after)
        refused += any(line.worse for line in decided(lines, BOUNDS))
    assert refused <= 5  # P(X > 5) is 1 in 70 of X ~ Binomial(40, 0.05)


def test_probabilities_that_are_worth_less_are_refused() -> None:
    right = [1, 0] * 300
    honest, boastful = made(right, [0.5] * 600), made(right, [0.9] * 600)
    texts = [str(at) for at in range(600)]
    lines = lines_of("slice", texts, np.ones(600), np.zeros(600, dtype=np.bool_), honest, boastful, BOUNDS)
    [ece] = [line for line in decided(lines, BOUNDS) if line.measure == ECE]
    assert (ece.before, ece.after, ece.worse) == (0.0, 0.4, True)
    assert "ece (slice) rises from 0.0000 to 0.4000" in ece.sentence()


def test_none_that_tells_nothing_any_more_is_refused() -> None:
    none = np.asarray([True] * 40 + [False] * 200)
    generator = np.random.default_rng(0)
    right = made([1] * 240)
    telling = replace_none(right, np.where(none, 0.9, 0.1) + generator.random(240) / 100)
    guessing = replace_none(right, generator.random(240))
    lines = lines_of(ALL, [str(at) for at in range(240)], np.ones(240), none, telling, guessing, BOUNDS)
    [auroc] = [line for line in decided(lines, BOUNDS) if line.measure == NONE]
    assert auroc.before == 1.0
    assert auroc.worse
    assert auroc.difference is not None
    assert auroc.difference.low < auroc.difference.mean < auroc.difference.high < 0


def replace_none(found: Decided, none: np.typing.NDArray[np.float64]) -> Decided:
    return Decided(found.shortlist, found.decision, found.probability, none)


def off_policy(support: float, gain: float, error: float) -> OffPolicy:
    some = Interval(0.5, 0.4, 0.6)
    sides = [
        Estimates(support, support, 100.0, some, some, Interval(0.5 + more, 0.4, 0.6)) for more in (0.0, gain)
    ]
    return OffPolicy(
        1_000, 100, some, sides[0], sides[1], Interval(gain, gain - 2 * error, gain + 2 * error), error
    )


def test_friction_refuses_only_where_the_log_can_tell() -> None:
    worse, unsure, unsupported = (
        decided([friction_line(off_policy(*case), BOUNDS)], BOUNDS)[0]
        for case in ((0.95, -0.05, 0.01), (0.95, -0.05, 0.05), (0.4, -0.05, 0.01))
    )
    assert (worse.measure, worse.before, worse.after, worse.worse) == (FRICTION, 0.5, 0.55, True)
    assert not unsure.worse
    assert not unsupported.worse
    assert "too little to judge by" in unsupported.note


def test_rows_stand_in_each_world_as_they_should() -> None:
    rows = [
        Row(f"t{at}", skill, "s", links)
        for at, (skill, links) in enumerate([("a", ("a", "b")), ("b", ()), (None, ("c",)), ("c", ("d",))])
    ]
    found = worlds(rows * 5)
    assert found[AS_ASKED] == rows * 5
    assert all(row.linked == () for row in found[TAKEN_AWAY])
    assert len(found[MISLEADING]) > len(found[AS_ASKED])  # as these are few
    assert len(found[TAKEN_AWAY]) == 15
    assert found[MISLEADING]
    assert all(row.linked and row.skill_id not in row.linked for row in found[MISLEADING])
    assert worlds(rows * 5) == found
    assert list(worlds([rows[1]])) == [AS_ASKED]


def test_slices_tell_rows_apart_by_links_skill_and_source() -> None:
    rows = [
        Row("a", "x", "one", ("x",)),
        Row("b", "y", "two", ("x",)),
        Row("c", None, "two", ()),
        Row("d", "x", "", None),
    ]
    found = {name: np.flatnonzero(inside).tolist() for name, inside in slices(rows, [Row("e", "x")] * 3).items()}
    assert found == {
        ALL: [0, 1, 2, 3],
        "source unknown": [3],
        "source one": [0],
        "source two": [1, 2],
        "head": [0, 3],
        "tail": [1],
        "meant skill linked": [0],
        "linked, but not the meant skill": [1],
        "nothing linked": [2, 3],
        "no skill meant": [2],
    }


def test_own_words_are_few_even_and_never_guesses(serving: Selector) -> None:
    taught = [Row(f"ride {at}", "rides:acorn") for at in range(50)]
    guess = [Row("a guess", "rides:acorn", beliefs={"rides:acorn": 0.6})]
    found = own_texts(serving, [*taught, *guess])
    assert len(found["rides:acorn"]) == 8
    assert found == own_texts(serving, [*guess, *reversed(taught)])
    assert "a guess" not in found["rides:acorn"]


def test_a_refusal_fits_into_a_line_and_the_result_into_json() -> None:
    lost = [Lost(f"{'long' * 40}:{at}", "why " * 20) for at in range(30)]
    told = reason(decided(table("slice", [1] * 50, [0] * 50), BOUNDS), lost)
    assert len(told) <= MOST_CHARS
    assert told.endswith("…")
    result = GateResult(
        reason=told, lines=table("slice", [1], [0]), lost=lost, off_policy=off_policy(0.9, 0.0, 0.1)
    )
    assert msgspec.json.decode(msgspec.json.encode(result), type=GateResult) == result


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_a_probability_that_falls_with_what_is_lost(lost: int, gained: int) -> None:
    p = sign_test(lost, gained)
    assert 0 < p <= 1
    assert sign_test(lost + 1, gained) < p or lost + gained == 0
    # the two sides share the middle: P(X >= k) + P(X <= k) = 1 + P(X = k)
    assert p + sign_test(gained, lost) >= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_makes_chance_smaller_and_keeps_the_order(values: list[float]) -> None:
    found = holm(values)
    assert all(value <= after <= 1 for value, after in zip(values, found, strict=True))
    assert min(found) == min(1.0, len(values) * min(values))
    for one in range(len(values)):
        for other in range(len(values)):
            assert found[one] <= found[other] or values[one] > values[other]
