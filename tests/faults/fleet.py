"""The routers and the aggregator of a run: started, watched, replaced, ended."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.faults.child import Start, run
from tests.faults.plan import places_in
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.router_process import RouterOptions

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.child"])

SURPLUS_S = 2.0  # a router that woke up may show what it does before one too many is asked to leave
END_S = 30.0  # for a router to leave in order; longer than the session and one broker restart
AIM_S = 60.0  # a router with a failpoint is left alone until it is there, at most so long
LOOK_S = 0.1  # between two looks into a log
BATCH = 200
KAFKA = {  # of the routers
    "session.timeout.ms": "3000",
    "heartbeat.interval.ms": "500",
    # How long a rebalance waits for who is gone. Mostly their sessions end first; but where a killed broker comes
    # back on a busy machine, Kafka 4.3 has been seen to keep members that it loaded until then.
    "max.poll.interval.ms": "60000",
}


@dataclass
class Worker:
    """A process; `named` is the instance that its successor may take over."""

    process: BaseProcess
    named: str
    log: Path
    points: str = ""
    asked: bool = False  # to leave
    aim_s: float = 0.0  # until when it is left alone, to come to its points
    nudge_s: float = 0.0  # when it may be helped there, the next time
    _text: str = ""
    _look_s: float = 0.0

    def signal(self, number: int) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, number)

    def is_frozen(self) -> bool:
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0] == "T"
        except OSError:
            return False

    def said(self, words: str) -> bool:
        """Whether `words` stood in its log when that was looked at last."""
        if time.monotonic() > self._look_s:
            self._text, self._look_s = _text(self.log), time.monotonic() + LOOK_S
        return words in self._text

    def is_aimed(self) -> bool:
        """Whether it is on its way to one of its points."""
        if self.aim_s and (time.monotonic() > self.aim_s or not self.process.is_alive() or self._is_there()):
            self.aim_s = 0.0
        return bool(self.aim_s)

    def _is_there(self) -> bool:
        return all(self.said(f"failpoint {place}:") for place in places_in(self.points))


@dataclass
class Fleet:
    """`wanted` routers that work, whatever becomes of them, and an aggregator."""

    settings: Settings
    folder: Path
    protocol: str
    mutant: str
    wanted: int = 1
    routers: list[Worker] = field(default_factory=list)
    aggregator: Worker | None = None
    aggregator_points: list[str] = field(default_factory=list)
    exits: Counter[str] = field(default_factory=Counter)
    planned: list[tuple[str, Path]] = field(default_factory=list)  # a point's place, and the log that tells of it
    started: int = 0
    _surplus_s: float = 0.0

    def start(self, points: str = "", named: str = "", kafka: dict[str, str] | None = None) -> Worker:
        """One more router. `kafka`: properties of its clients."""
        number = self.number()
        named = named or f"router-{number}"
        options = RouterOptions(
            instance=named, group_protocol=self.protocol, batch=BATCH, metrics_port=0, max_dead_share=0
        )
        settings = Settings(
            bootstrap=self.settings.bootstrap,
            prefix=self.settings.prefix,
            kafka={**KAFKA, **(kafka or {})},
        )
        worker = self._fork(Start(settings=settings, options=options, log=self.log(number), points=points,
                                  mutant=self.mutant), named)  # fmt: skip
        self.routers.append(worker)
        return worker

    def watch(self) -> None:
        """Notes who has ended, replaces who is missing or frozen, and asks who is one too many to leave."""
        for worker in [one for one in self.routers if not one.process.is_alive()]:
            self._ended(worker, "router")
            self.routers.remove(worker)
        at_work = [one for one in self.routers if not one.asked and not one.is_frozen()]
        for _ in range(self.wanted - len(at_work)):
            self.start()
        free = [one for one in at_work if not one.is_aimed()]
        if len(at_work) <= self.wanted or not free:
            self._surplus_s = time.monotonic() + SURPLUS_S
        elif time.monotonic() > self._surplus_s:
            self.leave(free[0])
        self._watch_aggregator()

    def leave(self, worker: Worker) -> None:
        """Asks it to finish its batch and go."""
        worker.asked = True
        worker.signal(signal.SIGTERM)

    def at_work(self, slot: int) -> Worker | None:
        """One of those that work, and are neither asked to leave nor on their way to a failpoint."""
        there = [one for one in self.routers if not (one.asked or one.is_frozen() or one.is_aimed())]
        return there[slot % len(there)] if there else None

    def aimed(self) -> list[Worker]:
        """Who is on the way to a failpoint."""
        aggregators = [self.aggregator] if self.aggregator else []
        return [one for one in (*self.routers, *aggregators) if one.is_aimed()]

    def follow_outcomes(self) -> None:
        """From now on there is an aggregator."""
        self.aggregator = self._aggregate()

    def _aggregate(self) -> Worker:
        number = self.number()
        options = AggregatorOptions(instance="aggregator", metrics_port=0, write_every_s=0.3)
        points = self.aggregator_points.pop(0) if self.aggregator_points else ""
        return self._fork(Start(settings=self.settings, options=options, log=self.log(number), points=points), "")

    def _watch_aggregator(self) -> None:
        if self.aggregator is None:
            return
        if not self.aggregator.process.is_alive():
            self._ended(self.aggregator, "aggregator")
            self.aggregator = self._aggregate()
        elif self.aggregator_points and not self.aggregator.asked and not self.aggregator.is_aimed():
            self.leave(self.aggregator)  # the next one has the points

    def _fork(self, start: Start, named: str) -> Worker:
        process = FORKS.Process(target=run, args=(start,), daemon=True)
        process.start()
        self.plan(start.points, start.log)
        aim_s = time.monotonic() + AIM_S if start.points else 0.0
        return Worker(process, named, start.log, start.points, aim_s=aim_s)

    def plan(self, points: str, log: Path) -> None:
        """A process with these points tells in `log` when it is there."""
        self.planned += [(place, log) for place in places_in(points)]

    def reached(self) -> dict[str, tuple[int, int]]:
        """place -> how many points were planned there, and how many of them were reached."""
        planned = Counter(place for place, _ in self.planned)
        there = Counter(place for place, log in self.planned if f"failpoint {place}:" in _text(log))
        return {place: (planned[place], there[place]) for place in sorted(planned)}

    def number(self) -> int:
        """Of one more process."""
        self.started += 1
        return self.started

    def log(self, number: int) -> Path:
        return self.folder / f"worker-{number:04d}.log"

    def _ended(self, worker: Worker, kind: str) -> None:
        worker.process.join()
        self.exits[f"{kind} {worker.process.exitcode}"] += 1

    def end(self) -> None:
        """All are woken, finish and leave; who does not is killed, and noted."""
        everyone = [*self.routers, *([self.aggregator] if self.aggregator else [])]
        for worker in everyone:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
        ends = time.monotonic() + END_S
        for worker in everyone:
            worker.process.join(max(0.0, ends - time.monotonic()))
            if worker.process.is_alive():
                self.exits["did not leave"] += 1
                worker.process.kill()
            self._ended(worker, "aggregator" if worker is self.aggregator else "router")
        self.routers, self.aggregator = [], None

    def kill(self) -> None:
        for worker in [*self.routers, *([self.aggregator] if self.aggregator else [])]:
            worker.process.kill()
            worker.process.join(END_S)

    def said(self, words: str) -> int:
        """How often `words` stand in the logs."""
        return sum(_text(path).count(words) for path in self.folder.glob("worker-*.log"))


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


@contextmanager
def fleet(settings: Settings, folder: Path, protocol: str, mutant: str) -> Iterator[Fleet]:
    """None of its processes is left after the block."""
    found = Fleet(settings, folder, protocol, mutant)
    try:
        yield found
    finally:
        found.kill()
