"""The gate's lines: one measure of one slice, before and after, paired, and how easily chance explains it.

Axes: N rows, R resamples.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from model.comparison import Interval
from model.judging import ALL, MISLEADING, TAKEN_AWAY, Decided, Mask, Values
from model.off_policy import OffPolicy
from model.reranker_measures import BINS, auroc, calibration_error
from model.resampling import Clusters, interval

TOP1, TOP3, ECE, NONE, FRICTION = "decision_top1", "shortlist_top3", "ece", "none_auroc", "friction"
LOWER_IS_BETTER = (ECE, FRICTION)
LOGGED = "logged decisions"
WORLDS = (TAKEN_AWAY, MISLEADING)
LEAST_FOR_ECE = 100  # rows: of fewer, bins are nearly empty, and ECE is mostly their scatter
LEAST_FOR_NONE = 10  # rows of either kind
LEAST_SUPPORT = 0.8  # of a candidate's choices: with less, friction rests on what the releases say of themselves


class Bounds(Struct, frozen=True, kw_only=True):
    """How much worse a candidate may be. `max_loss`: of top-1 and top-3 over all judged rows, refused outright.
    `slice_loss`, `world_loss`: of the same in a slice, and in a world of other links, which is harsher than what
    customers meet. `ece`, `none`, `friction`: of these, wherever. `chance`: how often a candidate that is no worse
    may be refused by scatter, all lines together."""

    max_loss: float = 0.005
    slice_loss: float = 0.02
    world_loss: float = 0.08
    ece: float = 0.02
    none: float = 0.02
    friction: float = 0.01
    chance: float = 0.05


class Line(Struct, frozen=True, kw_only=True):
    """One measure in one slice. `difference`: after − before, with its 95 % interval; None without a release
    before. `p`: how likely an equal candidate looks as bad, once all lines are put together (Holm). `worse`: a
    regression beyond its bound. `note`: what is to be known of the line."""

    measure: str
    slice: str
    rows: int
    before: float | None
    after: float
    difference: Interval | None = None
    bound: float
    p: float = 1.0
    worse: bool = False
    note: str = ""

    @property
    def loss(self) -> float:
        """How much worse, whichever way the measure counts."""
        if self.difference is None:
            return 0.0
        return self.difference.mean if self.measure in LOWER_IS_BETTER else -self.difference.mean

    def sentence(self) -> str:
        """What happened, for whoever has to know why."""
        where = "" if self.slice == ALL else f" ({self.slice})"
        way = "rises" if self.measure in LOWER_IS_BETTER else "falls"
        moved = f"{way} from {self.before or 0.0:.4f} to {self.after:.4f}"
        return f"{self.measure}{where} {moved} on {self.rows:,} rows, more than {self.bound} allows"


def lines_of(
    name: str,
    texts: Sequence[str],
    weights: Values,
    none: Mask,
    before: Decided | None,
    after: Decided,
    bounds: Bounds,
) -> list[Line]:
    """The lines of a slice of N rows. `weights` (N,): how many requests each stands for in top-1 and top-3, where
    what the serving release got right is told more often than what it did not. `none` (N,): no skill is meant.
    Rows of one text are drawn together."""
    clusters = Clusters(texts)
    loss = bounds.max_loss if name == ALL else bounds.world_loss if name in WORLDS else bounds.slice_loss
    found = [
        _share(TOP1, name, clusters, weights, None if before is None else before.top1, after.top1, loss),
        _share(TOP3, name, clusters, weights, None if before is None else before.top3, after.top3, loss),
    ]
    if len(texts) >= LEAST_FOR_ECE:
        found.append(_calibration(name, clusters, before, after, bounds.ece))
    if name not in WORLDS and min(int(none.sum()), int((~none).sum())) >= LEAST_FOR_NONE:
        found.append(_telling(name, clusters, none, before, after, bounds.none))
    return found


def friction_line(found: OffPolicy, bounds: Bounds) -> Line:
    """Friction by DR on logged decisions; told, but no reason to refuse, where the log supports too little."""
    supported = found.after.support >= LEAST_SUPPORT
    gain = found.gain
    turned = None if gain is None else Interval(-gain.mean, -gain.high, -gain.low)
    note = f"doubly robust, support {found.after.support:.2f}"
    return Line(
        measure=FRICTION,
        slice=LOGGED,
        rows=found.rows,
        before=None if found.before is None else round(1 - found.before.dr.mean, 4),
        after=round(1 - found.after.dr.mean, 4),
        difference=turned,
        bound=bounds.friction,
        p=_normal(turned.mean, found.gain_error or 0.0) if turned and supported else 1.0,
        note=note if supported else f"{note}: too little to judge by",
    )


def _share(
    measure: str,
    name: str,
    clusters: Clusters,
    weights: Values,
    before: Values | None,
    after: Values,
    bound: float,
) -> Line:
    told = Line(
        measure=measure,
        slice=name,
        rows=len(after),
        before=None if before is None else round(float(np.average(before, weights=weights)), 4),
        after=round(float(np.average(after, weights=weights)), 4),
        bound=bound,
    )
    if before is None:
        return told
    columns = np.stack([weights, weights * (after - before)], axis=1)  # (N, 2)
    samples = clusters.resampled(columns)
    moved = clusters.sums(columns)[:, 1]  # by text
    difference, drawn = float(np.average(after - before, weights=weights)), samples[:, 1] / samples[:, 0]
    signs = sign_test(int((moved < 0).sum()), int((moved > 0).sum()))
    even = bool(np.all(weights == weights[0]))
    return replace(
        told,
        difference=interval(difference, drawn),
        p=signs if even else max(signs, _normal(-difference, float(drawn.std()))),  # signs know no weights
    )


def _calibration(name: str, clusters: Clusters, before: Decided | None, after: Decided, bound: float) -> Line:
    now = calibration_error(after.probability, after.top1 == 1)
    told = Line(measure=ECE, slice=name, rows=len(after.none), before=None, after=now, bound=bound)
    if before is None:
        return told
    was = calibration_error(before.probability, before.top1 == 1)
    columns = np.concatenate([np.ones((len(after.none), 1)), _gaps(before), _gaps(after)], axis=1)
    samples = clusters.resampled(columns)  # (R, 1 + 2 BINS)
    gaps = np.abs(samples[:, 1:]) / samples[:, :1]
    drawn = gaps[:, BINS:].sum(axis=1) - gaps[:, :BINS].sum(axis=1)  # (R,)
    difference = interval(now - was, drawn)
    return replace(told, before=was, difference=difference, p=_normal(now - was, float(drawn.std())))


def _gaps(found: Decided) -> Values:
    """Each row's probability − right in the column of its bin, (N, BINS)."""
    columns = np.zeros((len(found.none), BINS))
    bins = np.minimum((found.probability * BINS).astype(np.int64), BINS - 1)
    columns[np.arange(len(bins)), bins] = found.probability - found.top1
    return columns


def _telling(
    name: str, clusters: Clusters, none: Mask, before: Decided | None, after: Decided, bound: float
) -> Line:
    """How well the probability of none tells the rows that mean no skill."""
    now = auroc(after.none[none], after.none[~none])
    told = Line(measure=NONE, slice=name, rows=len(none), before=None, after=now, bound=bound)
    if before is None:
        return told
    was = auroc(before.none[none], before.none[~none])
    drawn = _resampled_auroc(clusters, none, after.none) - _resampled_auroc(clusters, none, before.none)
    difference, error = interval(now - was, drawn), float(np.nanstd(drawn))
    return replace(told, before=was, difference=difference, p=_normal(was - now, error))


def _resampled_auroc(clusters: Clusters, none: Mask, scores: Values) -> Values:
    """The AUROC of each resample, (R,); not a number where one of the kinds was not drawn."""
    positive, negative = np.flatnonzero(none), np.flatnonzero(~none)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    ends = [np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right")]
    found = []
    for counts in clusters.draws():
        of_positive, of_negative = counts[:, clusters.of[positive]], counts[:, clusters.of[negative]]
        below = np.concatenate([np.zeros((len(counts), 1)), of_negative.cumsum(axis=1)], axis=1)
        wins = (below[:, ends[0]] + below[:, ends[1]]) / 2  # half of the ties
        pairs = of_positive.sum(axis=1) * of_negative.sum(axis=1)
        with np.errstate(invalid="ignore"):  # nobody of a kind: 0 / 0
            found.append((of_positive * wins).sum(axis=1) / pairs)
    return np.concatenate(found)


def sign_test(lost: int, gained: int) -> float:
    """P(X ≥ lost) of X ~ Binomial(lost + gained, ½): how likely so many losses are, were both equal.

    >>> sign_test(12, 0), sign_test(4, 1), sign_test(0, 0)
    (0.000244140625, 0.1875, 1.0)
    """
    of = lost + gained
    return float(sum(math.comb(of, hits) for hits in range(lost, of + 1)) / 2**of)


def _normal(loss: float, error: float) -> float:
    """P(Z ≥ loss / error): how likely so great a loss is, were both equal."""
    if error <= 0:
        return 0.0 if loss > 0 else 1.0
    return math.erfc(loss / error / math.sqrt(2)) / 2


def holm(values: Sequence[float]) -> list[float]:
    """Each of the p values by which all of them together are wrong as seldom as one (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda at: values[at])
    found, most = [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        most = max(most, min(1.0, (len(values) - rank) * values[at]))
        found[at] = most
    return found
