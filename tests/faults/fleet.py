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
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.router_process import RouterOptions

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.child"])

SURPLUS_S = 2.0  # a router that woke up may show what it does before one too many is asked to leave
END_S = 30.0  # for a router to leave in order; longer than the session and one broker restart
BATCH = 200
KAFKA = {"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}  # of the routers


@dataclass
class Worker:
    """A process; `named` is the instance that its successor may take over."""

    process: BaseProcess
    named: str
    log: Path
    asked: bool = False  # to leave

    def signal(self, number: int) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, number)

    def is_frozen(self) -> bool:
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0] == "T"
        except OSError:
            return False


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
    started: int = 0
    _surplus_s: float = 0.0

    def start(self, points: str = "", named: str = "", kafka: dict[str, str] | None = None) -> Worker:
        """One more router. `kafka`: properties of its clients."""
        self.started += 1
        named = named or f"router-{self.started}"
        options = RouterOptions(
            instance=named, group_protocol=self.protocol, batch=BATCH, metrics_port=0, max_dead_share=0
        )
        settings = Settings(
            bootstrap=self.settings.bootstrap,
            prefix=self.settings.prefix,
            kafka={**KAFKA, **(kafka or {})},
        )
        worker = self._fork(Start(settings=settings, options=options, log=self._log(), points=points,
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
        if len(at_work) <= self.wanted:
            self._surplus_s = time.monotonic() + SURPLUS_S
        elif time.monotonic() > self._surplus_s:
            self.leave(at_work[0])
        self._watch_aggregator()

    def leave(self, worker: Worker) -> None:
        """Asks it to finish its batch and go."""
        worker.asked = True
        worker.signal(signal.SIGTERM)

    def at_work(self, slot: int) -> Worker | None:
        """One of those that are not asked to leave."""
        there = [one for one in self.routers if not one.asked]
        return there[slot % len(there)] if there else None

    def follow_outcomes(self) -> None:
        """From now on there is an aggregator."""
        self.aggregator = self._aggregate()

    def _aggregate(self) -> Worker:
        self.started += 1
        options = AggregatorOptions(instance="aggregator", metrics_port=0, write_every_s=0.3)
        points = self.aggregator_points.pop(0) if self.aggregator_points else ""
        return self._fork(Start(settings=self.settings, options=options, log=self._log(), points=points), "")

    def _watch_aggregator(self) -> None:
        if self.aggregator is None:
            return
        if not self.aggregator.process.is_alive():
            self._ended(self.aggregator, "aggregator")
            self.aggregator = self._aggregate()
        elif self.aggregator_points and not self.aggregator.asked:
            self.leave(self.aggregator)  # the next one has the points

    def _fork(self, start: Start, named: str) -> Worker:
        process = FORKS.Process(target=run, args=(start,), daemon=True)
        process.start()
        return Worker(process, named, start.log)

    def _log(self) -> Path:
        return self.folder / f"worker-{self.started:04d}.log"

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
        """In how many lines of the logs `words` stand."""
        return sum(path.read_text(errors="replace").count(words) for path in self.folder.glob("worker-*.log"))


@contextmanager
def fleet(settings: Settings, folder: Path, protocol: str, mutant: str) -> Iterator[Fleet]:
    """None of its processes is left after the block."""
    found = Fleet(settings, folder, protocol, mutant)
    try:
        yield found
    finally:
        found.kill()
