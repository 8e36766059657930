"""What the runs of the learning experiment come to: plain values, for tables, JSON and the page.

Values are means over seeds; intervals are 95 %, bootstrap over dev rows, paired wherever two things are compared
on the same rows. N dev rows, C columns, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.learning import Found
from workers.learning_plan import COSTS, VARIANTS, WHOLE
from workers.learning_results import Measured, Part, Run, Sums, added, unpacked

RESAMPLES = 1_000
EVERY = "all"  # the mean of the conditions
GAP, FRICTION, FAILING, LOST, CHEATED = 0.75, 0.30, 0.80, 0.03, 1.2  # what is aimed at
Floats = NDArray[np.float64]
Values = dict[str, Any]


def summary(found: Found) -> Values:
    """Everything that the experiment found."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found.runs:
        groups.setdefault((run.world, run.variant), []).append(run)
    curves = {key: _curve(runs, found.full) for key, runs in groups.items()}
    whole = {world: runs for (world, variant), runs in groups.items() if variant == WHOLE}
    values: Values = {
        "experiment": "learning",
        "data": {
            "skills": len(found.market.cards),
            "train_rows": len(found.market.rows),
            "dev_rows": len(found.market.conditions.texts),
            "links": "given with the data, simulated" if found.market.conditions.given else "simulated here",
        },
        "seeds": found.options.seeds,
        "costs": COSTS,
        "first_share": found.options.first,
        "parts": found.options.parts,
        "full": _full(found.full),
        "worlds": {
            world: {
                **curves[world, WHOLE],
                **_counts(runs),
                "parts": [_part([run.parts[at] for run in runs]) for at in range(len(runs[0].parts))],
            }
            for world, runs in whole.items()
        },
        "ablations": {
            variant: {
                "world": world,
                "told": VARIANTS[variant].told,
                **curves[world, variant],
                "against_whole": _differences(runs, whole[world]),
                "friction": [_friction([run.parts[at] for run in runs]) for at in range(len(runs[0].parts))],
            }
            for (world, variant), runs in groups.items()
            if variant != WHOLE
        },
    }
    if "drift" in whole:
        values["drift"] = _drift(whole["drift"])
    if "adversarial" in whole:
        values["adversarial"] = _adversarial(whole)
    values["checks"] = _checks(values)
    return values


def _columns(measured: Sequence[Measured], what: str = "top1") -> dict[str, Floats]:
    """By condition, and for all of them, the hits of each row, (N,), the mean over seeds."""
    found: dict[str, Floats] = {}
    for condition in getattr(measured[0], what):
        found[condition] = np.mean([unpacked(getattr(one, what)[condition], one.rows) for one in measured], axis=0)
    found[EVERY] = np.mean(list(found.values()), axis=0)
    return found


def _resampled(columns: Floats) -> Floats:
    """The means of resampled rows: (C, N) to (R, C), the same rows for every column."""
    generator, count = np.random.default_rng(0), columns.shape[1]
    found = np.empty((RESAMPLES, len(columns)))
    for at in range(RESAMPLES):
        weights = np.bincount(generator.integers(0, count, count), minlength=count)
        found[at] = columns @ weights / count
    return found


def _interval(mean: float, resampled: Floats) -> Values:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return {"mean": round(float(mean), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _curve(runs: Sequence[Run], full: Sequence[Measured]) -> Values:
    """Top-1 and top-3 of the first release and after each cycle, and how much of the gap is closed where all were
    measured on the same rows as full supervision."""
    points = [[run.measured[at] for run in runs] for at in range(len(runs[0].measured))]
    if runs[0].changes is not None:  # another set of rows for each seed, and after the change
        return {"top1": [_means(point, "top1") for point in points], "top3": [_means(p, "top3") for p in points]}
    found: Values = {"top1": [], "top3": [_means(point, "top3") for point in points], "closed": []}
    every = [_columns(point) for point in points]
    aim = _columns(full)
    by_condition = {}
    for condition in aim:
        columns = np.stack([*(one[condition] for one in every), aim[condition]])  # (C, N)
        by_condition[condition] = columns.mean(axis=1), _resampled(columns)
    for at in range(len(points)):
        found["top1"].append({c: _interval(m[at], r[:, at]) for c, (m, r) in by_condition.items()})
        if at:
            found["closed"].append({c: _closed(m, r, at) for c, (m, r) in by_condition.items()})
    return found


def _closed(means: Floats, resampled: Floats, at: int) -> Values | None:
    """The share of the gap between column 0 and the last one that column `at` has closed; None without a gap."""
    gaps = resampled[:, -1] - resampled[:, 0]
    if means[-1] <= means[0] or (gaps <= 0).any():
        return None
    mean = (means[at] - means[0]) / (means[-1] - means[0])
    return _interval(float(mean), (resampled[:, at] - resampled[:, 0]) / gaps)


def _means(measured: Sequence[Measured], what: str) -> Values:
    """By condition the mean over rows and seeds; the rows need not be the same."""
    seeds = [{c: float(hits.mean()) for c, hits in _columns([one], what).items()} for one in measured]
    return {
        condition: {"mean": round(float(np.mean([one[condition] for one in seeds])), 4)} for condition in seeds[0]
    }


def _full(measured: Sequence[Measured]) -> Values:
    return {"top1": _means(measured, "top1"), "top3": _means(measured, "top3")}


def _differences(runs: Sequence[Run], base: Sequence[Run]) -> list[Values]:
    """After each cycle the top-1 less that of `base`, paired over rows."""
    found = []
    for at in range(1, len(runs[0].measured)):
        mine, theirs = (_columns([run.measured[at] for run in some]) for some in (runs, base))
        differences = np.stack([mine[condition] - theirs[condition] for condition in mine])
        resampled = _resampled(differences)
        pairs = zip(mine, differences.mean(axis=1).tolist(), resampled.T, strict=True)
        found.append({condition: _interval(mean, column) for condition, mean, column in pairs})
    return found


def _counts(runs: Sequence[Run]) -> Values:
    first = runs[0]
    names = ("skills", "taught", "joining", "failing", "changes")
    return {name: getattr(first, name) for name in names} | {"cheaters": [run.cheater for run in runs]}


def _part(parts: Sequence[Part]) -> Values:
    """One part, over seeds."""
    return {
        "asked": sum(part.asked for part in parts),
        "decisions_per_s": round(float(np.mean([part.decisions_per_s for part in parts]))),
        "outcomes": _sum([part.outcomes for part in parts]),
        "habits": _sum([part.habits for part in parts]),
        "friction": _friction(parts),
        "slices": {who: [_rates(one) for one in _slices(parts, who)] for who in parts[0].met},
        "cycles": [part.cycle for part in parts],
        "cycle_s": round(float(np.mean([part.cycle_s for part in parts])), 1),
    }


def _sum(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(one[name] for one in counts) for name in counts[0]}


def _slices(parts: Sequence[Part], who: str) -> list[Sums]:
    """The slices of a part, each over all seeds."""
    return [added(slices) for slices in zip(*(part.met[who] for part in parts), strict=True)]


def _friction(parts: Sequence[Part]) -> Values:
    return {who: _rates(added(_slices(parts, who))) for who in parts[0].met}


def _rates(sums: Sums) -> Values:
    """Shares of the requests."""
    requests = max(sums.requests, 1)
    return {
        "requests": sums.requests,
        "not_accepted": round(sums.not_accepted / requests, 4),
        "not_taken": round(sums.not_taken / requests, 4),
        "failing": sums.failing,
        "failing_launched": sums.failing_launched,
        "cheater": sums.cheater,
    }


def _less(mine: float, base: float) -> float | None:
    """By which share `mine` is below `base`."""
    return round(1 - mine / base, 4) if base else None


def _drift(runs: Sequence[Run]) -> Values:
    """From the change on, against the first release alone."""
    changes = runs[0].changes or 0
    found: Values = {"changes": changes, "friction_less": [], "failing_less": {}}
    for at in range(changes, len(runs[0].parts)):
        friction = _friction([run.parts[at] for run in runs])
        found["friction_less"].append(
            {
                name: _less(friction["live"][name], friction["static"][name])
                for name in ("not_accepted", "not_taken")
            }
        )
    parts = [run.parts[changes] for run in runs]
    halves = {who: added(_slices(parts, who)[len(_slices(parts, who)) // 2 :]) for who in parts[0].met}
    found["failing_less"]["change, its second half"] = _failing_less(halves)
    for at in range(changes, len(runs[0].parts)):
        sums = {who: added(_slices([run.parts[at] for run in runs], who)) for who in parts[0].met}
        found["failing_less"][f"part {at + 1}"] = _failing_less(sums)
    return found


def _failing_less(sums: Mapping[str, Sums]) -> Values:
    """How many fewer times failing skills were opened than by the first release, on the same requests."""
    return {who: _less(one.failing, sums["static"].failing) for who, one in sums.items() if who != "static"}


def _adversarial(whole: Mapping[str, Sequence[Run]]) -> Values:
    """What liars cost, against the steady world after the same cycle, and what the cheater gains."""
    mine, honest = whole["adversarial"], whole["honest"]
    opened = [
        [added(_slices([run.parts[at] for run in runs], "live")).cheater for at in range(len(runs[0].parts))]
        for runs in (mine, honest)
    ]
    return {
        "lost": [_negated(one) for one in _differences(mine, whole["steady"])],
        "lost_to_noise": [_negated(one) for one in _differences(honest, whole["steady"])],
        "cheater_opened": opened[0],
        "cheater_honest": opened[1],
        "cheater_gain": round(sum(opened[0][1:]) / max(sum(opened[1][1:]), 1), 3),
    }


def _negated(one: Values) -> Values:
    return {
        condition: {"mean": -found["mean"], "low": -found["high"], "high": -found["low"]}
        for condition, found in one.items()
    }


def _checks(values: Values) -> list[Values]:
    """What was aimed at, and what came of it."""
    found: list[Values] = []

    def check(name: str, aim: str, value: float | None, kept: bool) -> None:
        found.append({"name": name, "aim": aim, "value": value, "kept": kept})

    steady = values["worlds"].get("steady")
    if steady:
        for condition, closed in steady["closed"][-1].items():
            share = closed["mean"] if closed else None
            where = "mean of the conditions" if condition == EVERY else f"{condition} % linked"
            name = f"steady: share of the gap in top-1 closed after the last cycle, {where}"
            check(name, f"at least {GAP}", share, share is not None and share >= GAP)
    if "drift" in values:
        # the cycle after the part in which the world changed is the first that could learn of it
        after = values["drift"]["friction_less"][1:2]
        for name, told in (
            ("not_accepted", "not accepted at first"),
            ("not_taken", "neither accepted nor enabled"),
        ):
            if after:
                less = after[0][name]
                label = f"drift: friction below the first release's, one cycle after the change ({told})"
                check(label, f"at least {FRICTION}", less, less is not None and less >= FRICTION)
        less = values["drift"]["failing_less"]["change, its second half"]["live"]
        label = "drift: launches that failing skills lose before the cycle, second half of the part"
        check(label, f"at least {FAILING}", less, less is not None and less >= FAILING)
    if "adversarial" in values:
        lost = values["adversarial"]["lost"][-1][EVERY]["mean"]
        check("adversarial: top-1 lost against the steady world", f"at most {LOST}", lost, lost <= LOST)
        gain = values["adversarial"]["cheater_gain"]
        check(
            "adversarial: cheater's launches to its honest ones, after the first cycle",
            f"below {CHEATED}",
            gain,
            gain < CHEATED,
        )
    return found
