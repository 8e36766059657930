"""Paired intervals, held against what is known of them."""

import numpy as np
import pytest

from model.comparison import Resampled, Table, by_row
from model.measuring import Result


def result(**ranks: list[int]) -> Result:
    return Result(
        ranks=ranks,
        weights={},
        examples=[],
        epochs=[],
        text_seconds=0.0,
        link_seconds=0.0,
        requests_per_s=0.0,
        held_out_top3=0.0,
    )


def test_a_rows_value_is_its_mean_over_the_seeds() -> None:
    assert by_row([[1, 4, 0], [3, 6, 0]]).tolist() == [
        [0.5, 1.0, 1.0, (1 + 1 / 3) / 2],
        [0.0, 0.0, 0.5, (1 / 4 + 1 / 6) / 2],
        [0.0, 0.0, 0.0, 0.0],
    ]


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    values = (np.random.default_rng(1).random((4000, 1)) < 0.8).astype(np.float64)
    found = Resampled(values).mean(0)
    error = 1.96 * float(np.sqrt(values.var() / len(values)))
    assert found.mean == pytest.approx(values.mean(), abs=1e-4)
    assert found.high - found.mean == pytest.approx(error, rel=0.15)
    assert found.mean - found.low == pytest.approx(error, rel=0.15)


def test_a_difference_is_paired_over_the_rows() -> None:
    """The second column is right wherever the first is, and in 40 rows more: the rows' own scatter is no doubt."""
    first = (np.random.default_rng(2).random(2000) < 0.5).astype(np.float64)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:40]] = 1
    table = Resampled(np.stack([first, second], axis=1))
    found = table.difference(1, 0)
    assert found.mean == pytest.approx(0.02)
    assert 0.013 < found.low < 0.02 < found.high < 0.027
    assert table.mean(0).high - table.mean(0).low > 0.03, "apart they could not be told from each other"
    assert table.difference(0, 1).mean == -0.02
    assert table.difference(0, 0) == type(found)(0.0, 0.0, 0.0)


def test_a_constant_gain_has_no_scatter() -> None:
    values = np.random.default_rng(3).random((500, 1)) / 2
    found = Resampled(np.concatenate([values, values + 0.25], axis=1)).difference(1, 0)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


def test_fewer_errors_is_the_share_of_the_others_errors_that_is_saved() -> None:
    values = np.zeros((1000, 3))
    values[:800, 0], values[:850, 1], values[:, 2] = 1, 1, 1
    table = Resampled(values)
    found = table.fewer_errors(1, 0)
    assert found is not None
    assert found.mean == 0.25
    assert 0.18 < found.low < 0.25 < found.high < 0.32
    more = table.fewer_errors(0, 1)
    assert more is not None
    assert more.mean == pytest.approx(-1 / 3, abs=1e-4)
    assert table.fewer_errors(0, 2) is None, "nothing can be saved where there is no error"


def test_equal_rows_give_equal_intervals() -> None:
    values = np.random.default_rng(4).random((300, 2))
    assert Resampled(values).mean(1) == Resampled(values.copy()).mean(1)


def test_a_table_keeps_systems_conditions_and_measures_apart() -> None:
    table = Table(
        {
            "one": [result(a=[1, 2, 4, 0], b=[1, 1, 1, 1])],
            "other": [result(a=[1, 1, 1, 0], b=[0, 0, 0, 0]), result(a=[1, 1, 0, 0], b=[0, 0, 0, 0])],
        }
    )
    one = table.measures("one")
    assert one["a"]["top1"].mean == 0.25
    assert one["a"]["top3"].mean == 0.5
    assert one["a"]["top5"].mean == 0.75
    assert one["b"]["mrr"].mean == 1.0
    other = table.measures("other")
    assert other["a"]["top1"].mean == 0.625
    against = table.against("other", "one")
    points = against["a"]["top1"]["points"]
    assert points is not None
    assert points.mean == 0.375
    assert table.between("one", "b", "a", "top3").mean == 0.5
    assert table.better_at("other", "one", "top1", ("a", "b")) == ["a"]
    within = table.within(np.asarray([True, False, False, True]))
    assert table.measures("one", within)["a"]["top1"].mean == 0.5
