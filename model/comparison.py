"""What the cells of an experiment say together: means over seeds, paired intervals, fewer errors.

Axes: N dev rows, K columns (a measure of a system in a condition), R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Values = NDArray[np.float64]
MEASURES = ("top1", "top3", "top5", "mrr")
RESAMPLES = 1_000
LOW, HIGH = 0.025, 0.975  # a 95 % interval


class Ranked(Protocol):
    """What a system did with one seed: places by condition and row, from 1, 0 for not listed."""

    @property
    def ranks(self) -> dict[str, list[int]]: ...


class Interval(Struct, frozen=True):
    """A figure and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def by_row(ranks: Sequence[Sequence[int]]) -> Values:
    """Each row's measures (N, 4), the mean over seeds; `ranks` by seed and row, from 1, 0 for not listed.

    >>> by_row([[1, 0], [2, 0]])
    array([[0.5 , 1.  , 1.  , 0.75],
           [0.  , 0.  , 0.  , 0.  ]])
    """
    places = np.asarray(ranks, dtype=np.float64)  # (seeds, N)
    listed = places > 0
    tops = [(listed & (places <= k)).mean(axis=0) for k in (1, 3, 5)]
    mrr = np.divide(1.0, places, out=np.zeros_like(places), where=listed).mean(axis=0)
    return np.stack([*tops, mrr], axis=1)


class Resampled:
    """Means of columns over the rows, and over each resample of the rows.

    Rows are drawn with replacement, the same ones for every column: a difference of two columns is paired. Seeds
    are not drawn: a row's value is its mean over them, so that intervals are those of other customers' requests.
    """

    def __init__(self, values: Values, seed: int = 0) -> None:
        """`values` (N, K)."""
        N = len(values)
        counts = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=RESAMPLES)  # (R, N)
        self._means: Values = values.mean(axis=0)  # (K,)
        self._samples: Values = counts @ values / N  # (R, K)

    def mean(self, column: int) -> Interval:
        """The column's mean."""
        return _interval(self._means[column], self._samples[:, column])

    def difference(self, column: int, base: int) -> Interval:
        """How much higher the column's mean is than that of `base`."""
        samples = self._samples[:, column] - self._samples[:, base]
        return _interval(self._means[column] - self._means[base], samples)

    def fewer_errors(self, column: int, base: int) -> Interval | None:
        """1 − errors / errors of `base`, an error being what a measure lacks to 1; None where there are none."""
        mine, theirs = 1 - self._samples[:, column], 1 - self._samples[:, base]
        if self._means[base] >= 1 or (theirs <= 0).any():
            return None
        return _interval(1 - (1 - self._means[column]) / (1 - self._means[base]), 1 - mine / theirs)


def _interval(mean: float, samples: Values) -> Interval:
    low, high = np.quantile(samples, (LOW, HIGH))
    return Interval(round(float(mean), 4), round(float(low), 4), round(float(high), 4))


class Table:
    """All systems' measures on the same rows in the same conditions."""

    def __init__(self, results: Mapping[str, Sequence[Ranked]]) -> None:
        """`results`: a system's cells, one a seed."""
        self.conditions = tuple(next(iter(results.values()))[0].ranks)
        self.columns: dict[tuple[str, str, str], int] = {}
        parts = []
        for system, cells in results.items():
            for condition in self.conditions:
                parts.append(by_row([cell.ranks[condition] for cell in cells]))
                for measure in MEASURES:
                    self.columns[system, condition, measure] = len(self.columns)
        self.values: Values = np.concatenate(parts, axis=1)  # (N, K)
        self.resampled = Resampled(self.values)

    def measures(self, system: str, of: Resampled | None = None) -> dict[str, dict[str, Interval]]:
        """By condition and measure; `of` other resamples than those of all rows."""
        chosen = of or self.resampled
        return {
            condition: {measure: chosen.mean(self.columns[system, condition, measure]) for measure in MEASURES}
            for condition in self.conditions
        }

    def against(self, system: str, base: str) -> dict[str, dict[str, dict[str, Interval | None]]]:
        """By condition and measure: `points`, the difference, and `fewer_errors`, the share of errors saved."""
        found: dict[str, dict[str, dict[str, Interval | None]]] = {}
        for condition in self.conditions:
            for measure in MEASURES:
                columns = (self.columns[system, condition, measure], self.columns[base, condition, measure])
                found.setdefault(condition, {})[measure] = {
                    "points": self.resampled.difference(*columns),
                    "fewer_errors": self.resampled.fewer_errors(*columns),
                }
        return found

    def between(self, system: str, condition: str, base: str, measure: str) -> Interval:
        """How much higher a measure of the system is in one condition than in the condition `base`."""
        columns = (self.columns[system, condition, measure], self.columns[system, base, measure])
        return self.resampled.difference(*columns)

    def within(self, rows: NDArray[np.bool_]) -> Resampled:
        """The same columns over some of the rows (N,)."""
        return Resampled(self.values[rows])

    def better_at(self, system: str, base: str, measure: str, conditions: Sequence[str]) -> list[str]:
        """The conditions in which the system's mean is higher than that of `base`."""
        means = self.values.mean(axis=0)
        return [
            condition
            for condition in conditions
            if means[self.columns[system, condition, measure]] > means[self.columns[base, condition, measure]]
        ]
