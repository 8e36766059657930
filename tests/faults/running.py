"""One run: traffic flows, faults happen where the plan says, and then the topics are held against the books."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec import Struct

from tests.faults.conductor import Conductor
from tests.faults.fleet import Fleet, fleet
from tests.faults.plan import Fault, mutant_plan, plan
from tests.faults.reading import Book, Reader
from tests.faults.traffic import Traffic
from tests.faults.verdict import group_now, not_committed, verdict
from topics.broker import EmbeddedBroker, embedded_broker
from topics.registry import create_topics
from topics.settings import Settings

PARTITIONS = 6
WINDOW = 4_000  # utterances that are not decided yet, at most
STRETCH = 200  # utterances sent at once, at most
STUCK_S = 120.0  # nothing is decided for so long: longer than all time-outs and a broker's restart together
QUIET_S = 5.0  # of a mutant: all is committed for so long, and nothing more is decided: nothing will be
FROZEN_S = 10.0  # what waits for faults goes so slowly that it is not all sent before a frozen router is woken
SERVED_S = 60.0  # for all routers to serve the last release
# How often timed out transactions are looked for stays at Kafka's standard, 10 s: a broker that looks soon after
# its start, before it knows who leads the partitions (itself), calls a transaction aborted without a marker in
# them, and it stays open for good.
BROKER = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
}


class Result(Struct, kw_only=True):
    """What became of a run. `wrong`: what is counted, all zeros where all is well."""

    seed: int
    utterances: int
    protocol: str
    mutant: str
    seconds: float
    flow_seconds: float  # from the first utterance to the last decision
    faults: dict[str, int]
    points: dict[str, tuple[int, int]]  # place -> failpoints planned there, and reached
    exits: dict[str, int]
    links_age_ms: dict[str, float]  # of decisions by links that were older: how long the newer ones had been there
    errors: list[str]  # of the harness itself
    wrong: dict[str, int]

    def is_clean(self) -> bool:
        return not any(self.wrong.values())


def run_faults(
    seed: int,
    utterances: int,
    faults: int,
    folder: Path,
    protocol: str = "classic",
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """A run on a broker of its own; `folder` takes logs and releases. Nothing is left running."""
    with embedded_broker(BROKER, controller_apart=True) as broker:
        return _run(broker, seed, plan(seed, utterances, faults), utterances, folder, protocol, "", say)


def run_mutants(
    seed: int,
    utterances: int,
    folder: Path,
    mutants: list[str],
    protocol: str = "classic",
    say: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """A run of each mutant, all on one broker: what is wrong must show."""
    with embedded_broker(BROKER) as broker:
        return [
            _run(
                broker,
                seed,
                mutant_plan(mutant, seed, utterances),
                utterances,
                folder / mutant,
                protocol,
                mutant,
                say,
            )
            for mutant in mutants
        ]


def _run(
    broker: EmbeddedBroker,
    seed: int,
    todo: list[Fault],
    utterances: int,
    folder: Path,
    protocol: str,
    mutant: str,
    say: Callable[[str], None],
) -> Result:
    start_s = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    step = utterances / (len(todo) + 1)
    settings = Settings(bootstrap=broker.bootstrap, prefix=f"{mutant}." if mutant else "")
    create_topics(settings, partitions=PARTITIONS)
    traffic = Traffic(settings, utterances, int(min(STRETCH, max(10, step // 20))))
    reader = Reader(settings, Book(traffic))
    with fleet(settings, folder, protocol, mutant) as workers:
        conductor = Conductor(
            broker, settings, workers, folder, seed, lambda: traffic.sent, lambda: reader.book.distinct, say
        )
        conductor.publish()
        if not mutant:  # of the router: what it does wrong shows in the decisions
            workers.follow_outcomes()
        flow = Flow(conductor, workers, traffic, reader, list(todo), step, say)
        try:
            flow.run()
            flow_s = time.monotonic() - flow.start_s
            say("all is sent and decided: the last workers leave")
            workers.end()
        finally:
            reader.close()
            shutil.copytree(broker.folder / "logs", folder / "broker", dirs_exist_ok=True)
        wrong = verdict(settings, workers, conductor, traffic, reader, flow.last, flow.tail, say)
        ages = reader.book.stale_ms()
        return Result(
            seed=seed,
            utterances=utterances,
            protocol=protocol,
            mutant=mutant,
            seconds=round(time.monotonic() - start_s, 1),
            flow_seconds=round(flow_s, 1),
            faults=dict(Counter(fault.kind for fault in todo)),
            points=workers.reached(),
            exits=dict(workers.exits),
            links_age_ms={f"p{p}": float(np.percentile(ages, p)) for p in (50, 99, 100)} if len(ages) else {},
            errors=conductor.errors,
            wrong=wrong,
        )


@dataclass
class Flow:
    """Sends all and brings all faults about.

    Full speed up to where the next fault is due; slowly while that has to wait for those under way, so that
    routers still come to their failpoints; the last stretch when all are over.
    """

    conductor: Conductor
    workers: Fleet
    traffic: Traffic
    reader: Reader
    left: list[Fault]
    step: float  # utterances a fault
    say: Callable[[str], None]
    last: str = ""  # the release that was published last
    tail: int = 0  # the first utterance that was sent after that
    start_s: float = field(default_factory=time.monotonic)
    _decided: int = 0
    _moved_s: float = 0.0
    _committed_s: float = 0.0
    _slow_s: float = 0.0  # when the next stretch may be sent while faults wait

    def run(self) -> None:
        """Returns when all is decided, or nothing is any more."""
        self._moved_s = time.monotonic()
        while not self._is_over():
            self._look()
            if not self._send():
                time.sleep(0.01)

    def _look(self) -> None:
        if self.reader.error:
            raise RuntimeError("the reader died") from self.reader.error
        if self.reader.book.distinct > self._decided or not self.conductor.is_idle():
            self._moved_s, self._decided = time.monotonic(), self.reader.book.distinct
        if self.left and self.left[0].at <= self._decided and self.conductor.may_begin(self.left[0]):
            fault = self.left.pop(0)
            self.say(f"{self.traffic.sent:>9,} sent {self._decided:>9,} decided  {fault.kind} {fault.points}")
            self.conductor.begin(fault)
        self.conductor.go_on()
        self.workers.watch()

    def _is_over(self) -> bool:
        if self._decided == self.traffic.total:
            return True
        quiet_s = time.monotonic() - self._moved_s
        if quiet_s <= STUCK_S and not self._is_lost(quiet_s):
            return False
        self.say(f"nothing moves: {self.traffic.sent:,} sent, {self._decided:,} decided, {len(self.left)} left")
        self.say(group_now(self.workers.settings))
        return True

    def _is_lost(self, quiet_s: float) -> bool:
        """Whether a mutant has committed all, and long ago, what is still not decided."""
        if not self.workers.mutant or quiet_s < QUIET_S or not_committed(self.workers.settings):
            self._committed_s = time.monotonic()
            return False
        return time.monotonic() - self._committed_s > QUIET_S

    def _send(self) -> bool:
        """Sends a stretch, if one is due."""
        sent, tail = self.traffic.sent, self.traffic.total - self.traffic.stretch
        if sent - self._decided >= (WINDOW if self._decided else 1) or sent == self.traffic.total:
            return False
        if sent >= tail:
            if self.left or not self.conductor.is_idle():
                return False
            self._serve_last()
        elif sent >= (self.left[0].at + self.traffic.stretch if self.left else tail - self.step / 2):
            if time.monotonic() < self._slow_s and not (self.conductor.is_idle() and not self.left):
                return False
            self._slow_s = time.monotonic() + FROZEN_S * self.traffic.stretch / self.step
        self.traffic.send_stretch()
        return True

    def _serve_last(self) -> None:
        """Publishes a last release, and waits until every router has it."""
        self.last, self.tail = self.conductor.publish(), self.traffic.sent
        ends_s = time.monotonic() + SERVED_S
        while time.monotonic() < ends_s and not all(
            worker.said(f"release {self.last} serves") for worker in self.workers.routers
        ):
            self._look()
            time.sleep(0.05)
