"""The cluster bootstrap: what belongs together is drawn together, so that intervals are wide enough.

A customer's decisions, or rows of one text, are not independent: whole clusters are drawn with replacement, as
many as there are. Axes: N rows, C clusters, K columns, R resamples.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from model.comparison import HIGH, LOW, RESAMPLES, Interval

Values = NDArray[np.float64]
AT_ONCE = 1_000_000  # draws of clusters: bounds memory at 16 MB, or at one resample of more clusters


class Clusters:
    """Rows by the name of their cluster. Equal names in equal order give equal draws, whenever they are drawn."""

    def __init__(self, names: Sequence[Hashable], seed: int = 0) -> None:
        """`names` (N,): of each row's cluster."""
        places: dict[Hashable, int] = {}
        self.of = np.asarray([places.setdefault(name, len(places)) for name in names], dtype=np.int64)  # (N,)
        self.count = len(places)
        self._seed = seed

    def sums(self, columns: Values) -> Values:
        """Each cluster's sums (C, K) of `columns` (N, K)."""
        found = np.zeros((self.count, columns.shape[1]))
        np.add.at(found, self.of, columns)
        return found

    def draws(self) -> Iterator[Values]:
        """How often each cluster is drawn, some resamples (·, C) at a time, R in all."""
        generator = np.random.default_rng(self._seed)
        most = max(1, min(RESAMPLES, AT_ONCE // max(1, self.count)))
        for start in range(0, RESAMPLES, most):
            size = min(most, RESAMPLES - start)
            drawn = generator.integers(0, self.count, (size, self.count)) + self.count * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * self.count)
            yield counts.reshape(size, self.count).astype(np.float64)

    def resampled(self, columns: Values) -> Values:
        """The sums of `columns` (N, K) over all rows of each resample, (R, K)."""
        sums = self.sums(columns)
        return np.concatenate([counts @ sums for counts in self.draws()])


def interval(value: float, samples: Values) -> Interval:
    """`value` with the 95 % percentile interval of its resamples (R,); those that are none are left out."""
    there = samples[np.isfinite(samples)]
    low, high = np.quantile(there, (LOW, HIGH)).tolist() if len(there) else (value, value)
    return Interval(round(value, 6), round(low, 6), round(high, 6))


def ratio(parts: Values, wholes: Values) -> Values:
    """`parts` over `wholes`, not a number where a whole is 0."""
    found: Values = np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes != 0)
    return found
