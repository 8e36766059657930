"""Guarded promotion: a recorded release meets all customers only after it was measured on a few.

shadow -> canary -> larger canaries -> all customers, watched -> current

In every stage the release decides under a lease (see `workers.trial`), in the last one too: `current` is written
when all is passed, so that a promotion that was cut off leaves everything as it was and is simply run again.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from msgspec import Struct

from topics.errors import UsageError, WorkerError
from topics.events import Release
from topics.settings import Settings
from workers.budget import Budget
from workers.friction import Feedback
from workers.promotion_bounds import Bounds, shadow_measures, shadow_refusal, trial_measures, trial_refusal
from workers.releases import CANARY, CURRENT, SHADOW, annotate, serve, serving_now
from workers.sequential import Baseline, WorseTest
from workers.trial import Ended, Report, Trial, Verdict

log = logging.getLogger("namefree.promotion")


class PromotionOptions(Struct, frozen=True, kw_only=True):
    """How a release is tried. Shares are of customers.

    `shadow_decisions`, `canary_outcomes`, `watch_outcomes`: how many end a stage; 0 leaves it out. `steps`: shares
    of the canaries after the first, with `canary_outcomes` each. `max_seen`: the first canary decides no more of
    all requests since the beginning. `within_s`: the longest that one stage may take.
    """

    shadow_share: float = 0.2
    shadow_decisions: int = 1_000
    canary_share: float = 0.005
    canary_outcomes: int = 500
    max_seen: float = 0.01
    steps: tuple[float, ...] = (0.1,)
    watch_outcomes: int = 500
    within_s: float = 3_600.0
    bounds: Bounds = Bounds()

    def __post_init__(self) -> None:
        for share in (self.shadow_share, self.canary_share, self.max_seen, *self.steps):
            if not 0 < share <= 1:
                raise UsageError(f"a share of customers lies above 0 and is at most 1, but one is {share}")
        if self.within_s <= 0:
            raise UsageError(f"a stage needs time: it cannot end after {self.within_s} seconds")
        if self.watch_outcomes and not self.canary_outcomes:
            raise UsageError("all customers cannot be watched without a canary: nothing is there to compare with")


DEFAULTS = PromotionOptions()


class Stage(Struct, frozen=True):
    """What became of one stage. `verdict`: `passed`, or that of the promotion, which it ended."""

    name: str
    verdict: str
    measures: dict[str, float]


class Promotion(Struct, frozen=True):
    """What became of a promotion. `seen_share`: of all requests that were decided meanwhile, those that customers
    had decided by the candidate."""

    release: str
    parent: str
    promoted: bool
    verdict: Verdict
    reason: str
    stages: tuple[Stage, ...] = ()
    seen_share: float = 0.0


def promote(
    settings: Settings,
    release: Release,
    options: PromotionOptions = DEFAULTS,
    report: Report = log.info,
    stop: threading.Event | None = None,
) -> Promotion:
    """Runs the stages with `release`, which `record` has written, and makes it `current` if all are passed.

    Blocks until it is over; `report` is told how far it is, in lines. Where nothing serves yet, there is nothing
    to compare with and the release serves at once. A set `stop` ends the trial and with it the promotion. Raises
    BrokerError where the broker is gone, and WorkerError where another release is on trial.
    """
    serving = serving_now(settings)
    _check_free(serving, release)
    parent = serving.get(CURRENT)
    if parent is None:
        serve(settings, release)
        return Promotion(release.release, "", True, "promoted", "nothing served that it could be compared with")
    if parent.digest == release.digest:
        return Promotion(release.release, parent.release, True, "promoted", "it serves already")
    with closing(Feedback(settings, parent.release, release.release)) as feedback:
        trial = Trial(settings, release, parent, feedback, report, stop or threading.Event(), options.within_s)
        return _run(trial, options)


def _check_free(serving: dict[str, Release], release: Release) -> None:
    """Raises WorkerError where another release is on trial. The same one may be, left by a promotion that died."""
    for key in (CANARY, SHADOW):
        found = serving.get(key)
        if found is not None and found.digest != release.digest:
            raise WorkerError(
                f"release {found.release} is on trial as {key}: wait for its promotion, or end it with "
                "`namefree releases rollback --to current`"
            )


def _run(trial: Trial, options: PromotionOptions) -> Promotion:
    """Stage after stage; the trial is over at the end, whichever way it ends."""
    stages: list[Stage] = []
    name = ""
    try:
        for name, stage in _plan(trial, options):
            trial.report(f"{trial.release.release}: {name}")
            stages.append(Stage(name, "passed", stage()))
        trial.check()
        serve(trial.settings, trial.release)  # within the lease: nobody falls back in between
    except Ended as ended:
        stages.append(Stage(name, ended.verdict, ended.measures))
        annotate(trial.settings, trial.release, f"{ended.verdict} ({name}): {ended.reason}")
        return _over(trial, ended.verdict, f"{name}: {ended.reason}", stages)
    finally:
        trial.let_go()
    return _over(trial, "promoted", f"no stage found it worse than {trial.parent.release}", stages)


def _over(trial: Trial, verdict: Verdict, reason: str, stages: list[Stage]) -> Promotion:
    seen, decided = trial.seen()
    return Promotion(
        release=trial.release.release,
        parent=trial.parent.release,
        promoted=verdict == "promoted",
        verdict=verdict,
        reason=reason,
        stages=tuple(stages),
        seen_share=round(seen / max(1, decided), 4),
    )


def _plan(trial: Trial, options: PromotionOptions) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """The stages in order, by name. Each returns what it measured, or raises Ended."""
    if options.shadow_decisions:
        yield "shadow", partial(_shadow, trial, options)
    if options.canary_outcomes:
        loaded = trial.feedback.comparison.compared > 0
        budget = Budget(options.canary_share, options.max_seen, *trial.seen(), loaded)
        yield "canary", partial(_canary, trial, options, options.canary_share, budget)
        for share in options.steps:
            yield f"canary of {share:.0%}", partial(_canary, trial, options, share)
    if options.watch_outcomes:
        yield "all customers", partial(_watch, trial, options)


def _shadow(trial: Trial, options: PromotionOptions) -> dict[str, float]:
    """Decides beside, unseen, until enough decisions were compared."""
    found, wanted = trial.feedback.comparison, options.shadow_decisions
    trial.hold(SHADOW, options.shadow_share)
    for _ in trial.looks(lambda: f"{found.compared:,} of {wanted:,} decisions compared"):
        if found.compared >= wanted:
            break
    if reason := shadow_refusal(found, options.bounds):
        raise Ended("refused", reason, shadow_measures(found))
    return shadow_measures(found)


def _canary(
    trial: Trial, options: PromotionOptions, share: float, budget: Budget | None = None
) -> dict[str, float]:
    """Decides for a share of the customers, and is compared with what the others do at the same time."""
    new, old = trial.frictions()
    test = WorseTest(before=old)
    trial.hold(CANARY, share)
    for _ in trial.looks(partial(_told, test, options.canary_outcomes)):
        new_before, old_before = new, old
        new, old = trial.frictions()
        test.take(new - new_before, old - old_before)
        if _is_enough(test, options.canary_outcomes, options.bounds):
            break
        if budget and (wanted := budget.share(*trial.seen())) != trial.share:
            trial.hold(CANARY, wanted)
    return trial_measures(test)


def _watch(trial: Trial, options: PromotionOptions) -> dict[str, float]:
    """Decides for all customers, and is compared with what they did before, as nobody is left beside."""
    new, old = trial.frictions()
    baseline = Baseline(old, options.watch_outcomes)
    test = WorseTest(before=baseline.first)
    trial.hold(CANARY, 1.0)
    for _ in trial.looks(partial(_told, test, options.watch_outcomes)):
        new_before, (new, _old) = new, trial.frictions()
        test.take(new - new_before, baseline.draw((new - new_before).outcomes))
        if _is_enough(test, options.watch_outcomes, options.bounds):
            break
    return trial_measures(test)


def _told(test: WorseTest, wanted: int) -> str:
    return f"{test.outcomes:,} of {wanted:,} outcomes, friction {test.new.share:.1%} against {test.old.share:.1%}"


def _is_enough(test: WorseTest, wanted: int, bounds: Bounds) -> bool:
    """Whether the stage is passed. Raises Ended where it is not and will not be."""
    if reason := trial_refusal(test, wanted, bounds):
        raise Ended("rolled back", reason, trial_measures(test))
    return test.outcomes >= wanted
