"""One run of the learning experiment: a world's requests through the real topics, router and aggregator, a
distillation cycle after each part, and what the release that serves is worth on dev rows after every cycle."""

import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.data import Row
from model.evaluation import places
from model.pipeline import Recipe
from model.selector import Request, Selector
from topics.errors import WorkerError
from topics.registry import create_topics
from topics.settings import Settings
from workers import console
from workers.behaviour import FLAWED
from workers.catalogue import load_catalogue
from workers.children import Child, wait_for
from workers.crowd import Crowd, Met, Plan, Summary, customers_of, reaction
from workers.customers import simulate_crowd
from workers.cycle_options import CycleOptions
from workers.fold_store import read_statistics
from workers.learning_plan import COSTS, VARIANTS, WHOLE, LearningOptions, Market
from workers.learning_results import Measured, Part, Run, packed, sliced, unpacked
from workers.portions import write_folder
from workers.releases import current_release, publish
from workers.trainer import CycleResult, run_cycle
from workers.worlds import World

log = logging.getLogger("namefree.learning")
BATCH = 512
PATIENCE_S = 180.0  # for a worker to do what it must: many times what it takes on two busy cores
JUDGED = 2_000
"""Requests whose outcomes judge the last candidate: more judge hardly better, and what judges teaches nothing."""
WRITE_EVERY_S = 0.5  # of the aggregator: a part is asked in less than a minute


@dataclass(frozen=True)
class Start:
    """What a run begins with; `first` is the folder of the first release's bundle."""

    market: Market
    options: LearningOptions
    world: World
    variant: str
    seed: int
    recipe: Recipe
    first: Path

    @property
    def label(self) -> str:
        return f"{self.world.name}, {self.variant}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Of the corpus, the releases and the logs."""
        return self.options.out / "work" / self.label.replace(", ", "-").replace(" ", "-")

    def cycle(self) -> CycleOptions:
        """How each cycle is run: on what the first release was taught, and judged by rows that it was not."""
        return CycleOptions(
            store=self.folder / "releases",
            data=self.folder / "corpus",
            judge_share=min(CycleOptions.judge_share, JUDGED / len(self.world.rows)),
            cycle_epochs=self.options.cycle_epochs,
            bounds=self.options.bounds,
            learning=VARIANTS[self.variant].learning,
            min_outcomes=1,
            recipe=self.recipe,
        )

    def plan(self) -> Plan:
        """What the customers do, but for when."""
        run = f"learning-{self.seed}"
        return Plan(run, self.seed, devices=FLAWED, lies=self.world.lies, patience_s=PATIENCE_S)

    def dev(self, part: int) -> dict[int, list[Row]]:
        """The dev rows as they are after part `part`, by condition."""
        rows = self.market.conditions.rows
        found = {share: [self.world.meant(row, part) for row in asked] for share, asked in rows.items()}
        return {share: [row for row in asked if row is not None] for share, asked in found.items()}


@dataclass
class Loop:
    """A run under way: `static` is the first release, aside, None where nothing is compared with it; `serving`
    is the release that serves, aside."""

    settings: Settings
    start: Start
    static: Selector | None
    serving: Selector
    decided: int = 0
    acted: int = 0


def run_world(settings: Settings, start: Start) -> Run:
    """The whole run, on a cluster without topics. Raises NamefreeError where a part of it fails."""
    world, folder = start.world, start.folder
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder / "corpus", world.cards, world.taught, world.checked)
    static = Selector.load(start.first, costs=COSTS) if start.variant == WHOLE else None
    loop = Loop(settings, start, static, Selector.load(start.first, costs=COSTS))
    log.info("%s: %s requests in %d parts", start.label, f"{len(world.rows):,}", world.parts)
    create_topics(settings)
    load_catalogue(settings, world.cards)
    publish(settings, start.first, start.cycle().store, "", {}, "the experiment's first")
    found, parts = [measured(loop.serving, start.dev(0))], []
    with (
        Child.start(settings, folder, "route", *_route(start)) as router,
        Child.start(settings, folder, "aggregate", "--write-every", str(WRITE_EVERY_S)) as folds,
    ):
        workers = (router, folds)
        wait_for(lambda: router.is_ready() and folds.is_ready(), "the workers to be ready", workers, PATIENCE_S)
        for part in range(world.parts):
            parts.append(_part(loop, part, workers))
            found.append(measured(loop.serving, start.dev(part)))
            log.info("%s: after cycle %d top-1 %s", start.label, part + 1, _told(found[-1]))
    return Run(
        world=world.name,
        variant=start.variant,
        seed=start.seed,
        skills=len(world.cards),
        taught=len(world.taught),
        joining=len(world.joining),
        failing=len(world.failing),
        changes=world.changes,
        cheater=world.lies.cheater,
        parts=parts,
        measured=found,
    )


def _route(start: Start) -> list[str]:
    """The router's own options: the costs, and live statistics where the world changes."""
    follows = (
        ("--live-statistics", "--live-refresh", str(WRITE_EVERY_S)) if start.world.changes is not None else ()
    )
    costs = [word for name, cost in COSTS.items() for word in (f"--cost-{name}", f"{cost:g}")]
    return [*costs, *VARIANTS[start.variant].route, *follows]


def _part(loop: Loop, part: int, workers: tuple[Child, Child]) -> Part:
    """Asks one part, and runs the cycle after it."""
    start, world = loop.start, loop.start.world
    if part == world.changes:
        log.info("%s: the world changes, %d skills join", start.label, len(world.joining))
        load_catalogue(loop.settings, world.joining)
        for selector in filter(None, (loop.static, loop.serving)):
            selector.take(world.joining)
    crowd, summary = _asked(loop, part)
    met = {"live": crowd.met}
    if loop.static is not None:
        met["static"] = _aside(loop, loop.static, part)
        if world.changes is not None:
            met["serving"] = _aside(loop, loop.serving, part)
    loop.decided, loop.acted = loop.decided + summary.decided, loop.acted + summary.acted
    until_folded(loop.settings, loop.decided, loop.acted, workers)
    began_s = time.monotonic()
    result = run_cycle(loop.settings, start.cycle())
    seconds = time.monotonic() - began_s
    verdict = "published" if result.published else "refused"
    log.info("%s: cycle %d %s in %.0f s: %s", start.label, part + 1, verdict, seconds, result.reason)
    _serve(loop, part, workers)
    failing = world.failing if world.has_changed(part) else {}
    return Part(
        asked=summary.asked,
        seconds=summary.seconds,
        decisions_per_s=summary.decisions_per_s,
        outcomes=summary.outcomes,
        habits=summary.habits,
        met={who: sliced(one, failing, world.lies.cheater) for who, one in met.items()},
        cycle=_kept_of(result),
        cycle_s=round(seconds, 1),
    )


def _asked(loop: Loop, part: int) -> tuple[Crowd, Summary]:
    """The part through the topics."""
    start, world = loop.start, loop.start.world
    first, end = world.bounds[part : part + 2]
    rate = (end - first) / start.options.change_s if part == world.changes else None
    crowd = Crowd(world.rows, replace(start.plan(), start=first, count=end - first, rate=rate))
    with console.progress(f"{start.label}: part {part + 1} of {world.parts}", end - first) as advance:
        summary = simulate_crowd(loop.settings, crowd, advance)
    log.info(
        "%s: part %d, %s asked, %s decided a second, friction %.3f",
        start.label,
        part + 1,
        f"{summary.asked:,}",
        f"{summary.decisions_per_s:,.0f}",
        summary.friction or 0.0,
    )
    return crowd, summary


def _aside(loop: Loop, selector: Selector, part: int) -> Met:
    """What the part's customers, in the same moods, would have met had `selector` decided: no topic is touched."""
    world, plan = loop.start.world, loop.start.plan()
    start, end = world.bounds[part : part + 2]
    customers, met = customers_of(world.rows), Met()
    met.expect(end - start)
    for at in range(start, end, BATCH):
        numbers = range(at, min(at + BATCH, end))
        requests = [
            Request(world.rows[number].text, world.rows[number].linked or (), f"{plan.run}-{number}")
            for number in numbers
        ]
        for number, ranking in zip(numbers, selector.decide(requests), strict=True):
            decided = (ranking.action, ranking.skill_id, [one.skill_id for one in ranking.candidates])
            happened, _ = reaction(plan, number, customers[number], world.rows[number].skill_id, decided)
            met.note(number - start, ranking.action, ranking.skill_id, happened[0])
    return met


def until_folded(settings: Settings, decided: int, acted: int, workers: tuple[Child, Child]) -> None:
    """Waits until the statistics hold so many decisions, and outcomes that were told once. Raises WorkerError."""

    def folded() -> bool:
        found = read_statistics(settings).statistics
        return found.decisions >= decided and found.outcomes >= acted

    wait_for(folded, "every outcome to be folded", workers, PATIENCE_S)


def _serve(loop: Loop, part: int, workers: tuple[Child, Child]) -> None:
    """Waits until the router serves what the cycle left, and takes it aside too."""
    release = current_release(loop.settings)
    if release is None:
        raise WorkerError("the releases topic names no release any more")
    wait_for(
        lambda: workers[0].serves(release.release), f"the router to serve {release.release}", workers, PATIENCE_S
    )
    loop.serving = Selector.load(Path(release.bundle), costs=COSTS)
    if loop.start.world.has_changed(part):
        loop.serving.take(loop.start.world.joining)


def _kept_of(result: CycleResult) -> dict[str, object]:
    names = ("published", "reason", "release", "outcome_rows", "believed_rows", "judged_rows", "before", "after")
    return {name: getattr(result, name) for name in names}


def measured(selector: Selector, conditions: dict[int, list[Row]]) -> Measured:
    """Decision's top-1 and shortlist's top-3 of all rows in each condition."""
    top1, top3, count = {}, {}, 0
    for share, rows in conditions.items():
        rankings = [
            ranking
            for at in range(0, len(rows), BATCH)
            for ranking in selector.decide([Request(row.text, row.linked or ()) for row in rows[at : at + BATCH]])
        ]
        found = [places(row.skill_id, ranking) for row, ranking in zip(rows, rankings, strict=True)]
        shortlist, decision = np.asarray(found).T
        top1[str(share)], top3[str(share)] = packed(decision == 1), packed(shortlist <= 3)
        count = len(rows)
    return Measured(selector.release, count, top1, top3)


def _told(measured: Measured) -> str:
    return ", ".join(
        f"{unpacked(bits, measured.rows).mean():.4f} at {share} %" for share, bits in measured.top1.items()
    )
