"""Sums of counts, whole ones or ones that have decayed, and the shares that are read from them."""

from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from topics.events import SkillCounts

_SUMS = tuple(name for name in SkillCounts.__struct_fields__ if name != "offered")
Pairs = dict[str, dict[str, int | float]]


def add(into: SkillCounts, counts: SkillCounts, weight: float) -> None:
    """Adds `weight` times the counts; with a weight of 1 whole counts stay whole."""
    for name in _SUMS:
        if count := getattr(counts, name):
            setattr(into, name, getattr(into, name) + count * weight)
    into.offered = [a + b * weight for a, b in zip_longest(into.offered, counts.offered, fillvalue=0)]
    while into.offered and not into.offered[-1]:  # a place that nothing was offered at says nothing
        into.offered.pop()


def add_pairs(into: Pairs, pairs: Pairs, weight: float) -> None:
    """The same of pairs, chosen -> taken instead; a pair that never was is left out."""
    for chosen, taken in pairs.items():
        for skill_id, count in taken.items():
            if count:
                sums = into.setdefault(chosen, {})
                sums[skill_id] = sums.get(skill_id, 0) + count * weight


def log_lift(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln((count + 1) / (mean + 1)): add-one smoothing, so that nothing known gives 0 and not −∞."""
    mean = float(counts.sum()) / max(len(counts), 1)
    lift: NDArray[np.float64] = np.log((counts + 1) / (mean + 1))
    return lift


def spread(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """A share with one imagined success and one failure (Laplace), spread to −1…1."""
    return 2 * (part + 1) / (whole + 2) - 1
