"""The demo: the whole loop once around on a real broker, from a first release to a second, and a report.

    topics -> catalogue -> first release -> customers -> statistics -> cycle -> hot reload -> customers -> replay

The customers and their links are simulated; the broker, the workers and the networks are the real ones.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson

from model.bundle import write_bundle
from model.data import Row, read_rows, read_skills, split_path
from model.evaluation import evaluate
from model.gate_lines import Bounds
from model.pipeline import Recipe, steps, train
from model.selector import Selector
from topics.events import Release, SkillCard
from topics.kafka import read_all
from topics.registry import DECISIONS, OUTCOMES, Topic, create_topics, topic_name
from topics.settings import Settings
from workers import console
from workers.catalogue import load_catalogue
from workers.children import Child, wait_for
from workers.crowd import Plan, Summary
from workers.crowd import steps as crowd_steps
from workers.customers import simulate
from workers.cycle_options import CycleOptions
from workers.demo_asking import AskedSkills, asked_stretch
from workers.findings import Check, Findings
from workers.fold_store import read_statistics
from workers.portions import Portions, divide, write_folder
from workers.releases import current_release, publish
from workers.replay import replay
from workers.stretch import Stretch, stretch_between
from workers.tally import Report
from workers.trainer import CycleResult, run_cycle

log = logging.getLogger("namefree.demo")
ASKED_ROWS = 2_000  # of the last stretch
ASKED_RATE = 100.0  # a second: what a router can ask about; each has several questions
PATIENCE_S = 120.0  # for a worker to do what it must: many times what it takes on two busy cores


@dataclass(frozen=True)
class DemoOptions:
    """`name` says in the report what `data` is; `epochs` of the first release, `cycle_epochs` of the second;
    `max_rows` bounds the time; `max_loss` is wider than a cycle's own bound, as the sample judges by some hundred
    rows, whose scatter must not end the demo."""

    name: str
    data: Path
    out: Path
    seed: int = 0
    epochs: int = 6
    cycle_epochs: int = 3
    max_rows: int = 60_000
    max_loss: float = 0.02


@dataclass
class Loop:
    """What the stages share."""

    settings: Settings
    options: DemoOptions
    cards: list[SkillCard]
    portions: Portions
    asked_skills: AskedSkills
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Says what is done now and keeps how long it took."""
        log.info("%s …", name)
        began_s = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began_s, 2)

    @property
    def store(self) -> Path:
        return self.options.out / "releases"

    @property
    def corpus(self) -> Path:
        return self.options.out / "corpus"


def run_demo(settings: Settings, options: DemoOptions) -> Findings:
    """Runs the loop and gives what it found. Raises NamefreeError where a part of it fails."""
    loop = _prepare(settings, options)
    with loop.stage("topics and catalogue"):
        create_topics(settings)
        load_catalogue(settings, loop.cards)
    with loop.stage("first release"):
        first = _first_release(loop)
    with (
        Child.start(settings, options.out, "route") as router,
        Child.start(settings, options.out, "aggregate") as folds,
    ):
        workers = (router, folds)
        with loop.stage("workers ready"):
            _wait(lambda: router.is_ready() and folds.is_ready(), "router and aggregator to be ready", workers)
        with loop.stage("customers, first release"):
            asked = _ask(loop, "first", loop.portions.first)  # as fast as decisions come: the throughput
        stretch = stretch_between(settings)
        with loop.stage("statistics"):
            _wait(lambda: _folded(settings, asked), "every outcome to be folded", workers)
        with loop.stage("distillation cycle"):
            cycle = _cycle(loop)
        with loop.stage("hot reload"):
            serving = current_release(settings) or first
            _wait(lambda: router.serves(serving.release), f"the router to serve {serving.release}", workers)
        with loop.stage("customers, second release"):
            half = asked.decisions_per_s / 2  # at half of that rate, so that latency is the loop's, not a queue's
            asked_again = _ask(loop, "second", loop.portions.second, half)
        _wait(lambda: _folded(settings, asked, asked_again), "every outcome to be folded", workers)
        checks = [*_checks(loop, asked, asked_again), _same_process(router)]
    if loop.asked_skills.faults:
        with loop.stage("skills asked"):
            checks.append(_skills_asked(loop, half))
    selectors = (Selector.load(Path(first.bundle)), Selector.load(Path(serving.bundle)))
    with loop.stage("replay"):
        replayed = _replay(loop, selectors, stretch)
    with loop.stage("measures"):
        before, after = (evaluate(selector, loop.portions.judged) for selector in selectors)
    checks += [_second_serves(asked_again, cycle, serving, loop), _repeats(replayed)]
    return Findings(
        data=options.name,
        rows=loop.portions.sizes(),
        skills=len(loop.cards),
        seconds=loop.seconds,
        selectors=selectors,
        judged=loop.portions.judged,
        before=before,
        after=after,
        first=asked,
        second=asked_again,
        cycle=cycle,
        replayed=replayed,
        statistics=read_statistics(settings).statistics,
        checks=checks,
    )


def _prepare(settings: Settings, options: DemoOptions) -> Loop:
    """Divides the rows and writes the corpus of the first release as a data folder."""
    rows = [*read_rows(split_path(options.data, "train")), *read_rows(split_path(options.data, "dev"))]
    cards = read_skills(options.data)
    asked = AskedSkills.among(cards, options.seed)
    loop = Loop(settings, options, asked.on_cards(cards), divide(rows, options.max_rows, options.seed), asked)
    write_folder(loop.corpus, loop.cards, loop.portions.corpus, loop.portions.judged)
    log.info("%s skills; rows: %s", f"{len(loop.cards):,}", loop.portions.sizes())
    return loop


def _recipe(options: DemoOptions) -> Recipe:
    base = Recipe()
    training = msgspec.structs.replace(base.training, epochs=options.epochs, seed=options.seed)
    return msgspec.structs.replace(base, training=training)


def _first_release(loop: Loop) -> Release:
    recipe = _recipe(loop.options)
    total = steps(len(loop.portions.corpus), loop.cards, recipe)
    with console.progress("train the first release", total) as advance:
        bundle = train(loop.cards, loop.portions.corpus, recipe, advance)
        advance(total, "done")
    folder = loop.options.out / "first"
    write_bundle(bundle, folder)
    return publish(loop.settings, folder, loop.store, "", bundle.manifest.measures, "the demo's first")


def _ask(loop: Loop, name: str, rows: Sequence[Row], rate: float | None = None) -> Summary:
    plan = Plan(run=f"{name}-{int(time.time())}", seed=loop.options.seed, rate=rate, patience_s=PATIENCE_S)
    with console.progress(f"customers, {name} stretch", crowd_steps(rows, plan)) as advance:
        return simulate(loop.settings, rows, plan, advance)


def _skills_asked(loop: Loop, rate: float) -> Check:
    rows = loop.portions.second[:ASKED_ROWS]
    return asked_stretch(
        loop.settings,
        loop.options.out,
        loop.asked_skills,
        customers=lambda: _ask(loop, "asked", rows, min(rate, ASKED_RATE)),
        wait=lambda router: _wait(router.is_ready, "a router that asks to be ready", (router,)),
    )


def _cycle(loop: Loop) -> CycleResult:
    options = CycleOptions(
        store=loop.store,
        data=loop.corpus,
        cycle_epochs=loop.options.cycle_epochs,
        bounds=Bounds(max_loss=loop.options.max_loss),
        min_outcomes=1,
        recipe=_recipe(loop.options),
        report=loop.options.out / "cycle.html",
    )
    result = run_cycle(loop.settings, options)
    log.info("cycle: %s %s: %s", "published" if result.published else "refused", result.release, result.reason)
    return result


def _replay(loop: Loop, selectors: tuple[Selector, Selector], stretch: Stretch) -> Report:
    old, new = selectors
    with console.progress("replay", stretch.offsets) as advance:
        return replay(loop.settings, [new, old], stretch, 20, advance)


def _wait(condition: Callable[[], bool], what: str, children: Sequence[Child]) -> None:
    wait_for(condition, what, children, PATIENCE_S)


def _folded(settings: Settings, *asked: Summary) -> bool:
    """Whether the statistics hold as much as was decided and done."""
    statistics = read_statistics(settings).statistics
    decided, acted = sum(one.decided for one in asked), sum(one.acted for one in asked)
    return statistics.decisions >= decided and statistics.outcomes >= acted


def _ids(settings: Settings, topic: Topic) -> Counter[str]:
    name = topic_name(settings, topic)
    return Counter(orjson.loads(message.value() or b"{}")["utterance_id"] for message in read_all(settings, name))


def _checks(loop: Loop, *asked: Summary) -> list[Check]:
    decisions = _ids(loop.settings, DECISIONS)
    outcomes = _ids(loop.settings, OUTCOMES)
    statistics = read_statistics(loop.settings).statistics
    wanted = sum(one.asked for one in asked)
    once = len(decisions) == decisions.total() == wanted
    folded = statistics.decisions == decisions.total() and statistics.outcomes == outcomes.total()
    return [
        Check(
            "every utterance has exactly one decision",
            once,
            f"{wanted:,} asked, {decisions.total():,} decisions of {len(decisions):,} utterances",
        ),
        Check(
            "every outcome is folded exactly once",
            folded,
            f"{outcomes.total():,} outcomes and {decisions.total():,} decisions on the topics, "
            f"{statistics.outcomes:,} and {statistics.decisions:,} in the statistics",
        ),
    ]


def _same_process(router: Child) -> Check:
    return Check(
        "the router took the second release without a restart", router.runs(), f"process {router.pid} throughout"
    )


def _second_serves(again: Summary, cycle: CycleResult, serving: Release, loop: Loop) -> Check:
    name = topic_name(loop.settings, DECISIONS)
    decided = Counter(
        found["release"]
        for message in read_all(loop.settings, name)
        if (found := orjson.loads(message.value() or b"{}"))["utterance_id"].startswith(f"{again.run}-")
    )
    told = ", ".join(f"{release} {count:,}" for release, count in decided.items())
    if not cycle.published:
        return Check("the cycle's candidate was published", False, cycle.reason)
    return Check("the second release decided what was asked after it", set(decided) == {serving.release}, told)


def _repeats(replayed: Report) -> Check:
    own = [one.equal_own for one in replayed.releases if one.equal_own.of]
    hits, of = sum(share.hits for share in own), sum(share.of for share in own)
    return Check(
        "the replay repeats the decisions of the release that decided", hits == of > 0, f"{hits:,} of {of:,}"
    )
