"""One run: traffic flows, faults happen where the plan says, and then the topics are held against the books."""

import random
import resource
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from confluent_kafka import TopicPartition
from msgspec import Struct

from tests.faults.fleet import END_S, FORKS, Fleet, fleet
from tests.faults.folds import cells_that_differ
from tests.faults.plan import Fault, plan
from tests.faults.reading import Book, Reader
from tests.faults.traffic import Traffic
from tests.workers.aggregating import settled
from tests.workers.doubles import flat_bundle
from topics.broker import EmbeddedBroker, embedded_broker
from topics.errors import NamefreeError
from topics.kafka import consumer, partitions_of, read_all
from topics.registry import DEAD_LETTERS, DECISIONS, UTTERANCES, create_topics, topic_name
from topics.settings import Settings
from workers.releases import publish, record, serve
from workers.router_process import RouterOptions, group_id

PARTITIONS = 6
WINDOW = 4_000  # utterances that are not decided yet, at most
STUCK_S = 120.0  # nothing is decided for so long: longer than all time-outs and a broker's restart together
QUIET_S = 75.0  # all is sent, and nothing is decided for so long, longer than a call is tried: nothing will be
ZOMBIE_S = 8.0  # longer than session (3 s) and transaction (4 s) live together
MEND_S = 3.0  # after a damaged release comes a whole one
CRASHED = "Process ForkServerProcess-"  # how the log of a process begins that an exception ended
BROKER = {
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
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
    faults: dict[str, int]
    exits: dict[str, int]
    points_reached: int
    tracebacks: int  # in the logs, of threads and of what was handled as well: to be looked at
    links_age_ms: dict[str, float]  # of decisions by links that were older: how long the newer ones had been there
    wrong: dict[str, int]

    def is_clean(self) -> bool:
        return not any(self.wrong.values())


class Conductor:
    """Brings the faults about."""

    def __init__(
        self, broker: EmbeddedBroker, settings: Settings, workers: Fleet, folder: Path, seed: int
    ) -> None:
        self._broker, self._settings, self._workers, self._folder = broker, settings, workers, folder
        self._draw = random.Random(f"conductor {seed}")
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._threads: list[threading.Thread] = []
        self._releases = 0
        self.wrong: Counter[str] = Counter()

    def begin(self, fault: Fault) -> None:
        act: Callable[[Fault], None] = getattr(self, "_" + fault.kind.replace(" ", "_"))
        act(fault)

    def go_on(self) -> None:
        """Does what is due."""
        due = [act for when, act in self._later if when <= time.monotonic()]
        self._later = [(when, act) for when, act in self._later if when > time.monotonic()]
        for act in due:
            act()

    def is_idle(self) -> bool:
        """No fault is under way."""
        frozen = any(worker.is_frozen() for worker in self._workers.routers)
        return not self._later and not frozen and not any(thread.is_alive() for thread in self._threads)

    def publish(self) -> None:
        """Another whole release."""
        publish(self._settings, self._bundle(), self._folder / "store", "", {}, "fault run")

    def _bundle(self) -> Path:
        self._releases += 1
        return flat_bundle(self._folder / "bundles", f"release-{self._releases}")

    def _scale(self, fault: Fault) -> None:
        self._workers.wanted = fault.slot

    def _clean_bounce(self, fault: Fault) -> None:
        if worker := self._workers.at_work(fault.slot):
            self._workers.leave(worker)

    def _hard_bounce(self, fault: Fault) -> None:
        if worker := self._workers.at_work(fault.slot):
            worker.signal(signal.SIGKILL)
            worker.process.join(END_S)
            if self._draw.random() < 0.5:
                self._workers.start(named=worker.named)

    def _zombie(self, fault: Fault) -> None:
        if worker := self._workers.at_work(fault.slot):
            worker.signal(signal.SIGSTOP)
            self._later.append((time.monotonic() + ZOMBIE_S, lambda: worker.signal(signal.SIGCONT)))

    def _failpoint(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start(fault.points)

    def _broker_down(self, fault: Fault) -> None:
        self._broker.kill()
        time.sleep(fault.seconds)
        self._broker.restart()

    def _storm(self, _fault: Fault) -> None:
        thread = threading.Thread(target=_join_and_leave, args=(self._settings, 10), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _full_queue(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start(kafka={"queue.buffering.max.messages": "64"})

    def _slow_batch(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start("router.after_decide=delay:7@3", kafka={"max.poll.interval.ms": "5000"})

    def _release(self, _fault: Fault) -> None:
        self.publish()

    def _damaged_release(self, _fault: Fault) -> None:
        release = record(self._settings, self._bundle(), self._folder / "store", "", {}, "damaged")
        (Path(release.bundle) / "flat.txt").write_text("damaged on its way")
        serve(self._settings, release)
        self._later.append((time.monotonic() + MEND_S, self.publish))

    def _full_disk(self, _fault: Fault) -> None:
        store = self._folder / "full-store"
        process = FORKS.Process(target=_publish_on_full_disk, args=(self._settings, self._bundle(), store))
        process.start()
        process.join(END_S)
        self.wrong["a full disk that is not told"] += process.exitcode != 2
        self.wrong["half a release in the store"] += len(list(store.glob("*")))

    def _aggregator(self, fault: Fault) -> None:
        self._workers.aggregator_points.append(fault.points)


def _join_and_leave(settings: Settings, times: int) -> None:
    """Members of the routers' group that take partitions and do nothing with them."""
    for _ in range(times):
        with closing(consumer(settings, group_id(settings, RouterOptions()))) as stranger:
            stranger.subscribe([topic_name(settings, UTTERANCES)])
            stranger.poll(0.3)


def _publish_on_full_disk(settings: Settings, bundle: Path, store: Path) -> None:
    """In a process of its own: no file may grow beyond four bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
    try:
        publish(settings, bundle, store, "", {}, "full disk")
    except NamefreeError as error:
        sys.exit(error.exit_code)


def run_faults(
    seed: int,
    utterances: int,
    faults: int,
    folder: Path,
    protocol: str = "classic",
    mutant: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """A run on a broker of its own; `folder` takes logs and releases. Nothing is left running."""
    start_s = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    todo = plan(seed, utterances, faults)
    with embedded_broker(BROKER) as broker:
        settings = Settings(bootstrap=broker.bootstrap)
        create_topics(settings, partitions=PARTITIONS)
        with fleet(settings, folder, protocol, mutant) as workers:
            conductor = Conductor(broker, settings, workers, folder, seed)
            conductor.publish()
            traffic = Traffic(settings, utterances)
            reader = Reader(settings, Book(traffic))
            if not mutant:  # of the router: what it does wrong shows in the decisions
                workers.follow_outcomes()
            try:
                _flow(conductor, workers, traffic, reader, todo, say)
                say("all is sent and decided: the last workers leave")
                workers.end()
            finally:
                reader.close()
            wrong = _verdict(settings, workers, traffic, reader, not mutant, say) | dict(conductor.wrong)
            ages = reader.book.stale_ms()
            return Result(
                seed=seed,
                utterances=utterances,
                protocol=protocol,
                mutant=mutant,
                seconds=round(time.monotonic() - start_s, 1),
                faults=dict(Counter(fault.kind for fault in todo)),
                exits=dict(workers.exits),
                points_reached=workers.said("failpoint "),
                tracebacks=workers.said("Traceback"),
                links_age_ms={f"p{p}": float(np.percentile(ages, p)) for p in (50, 99, 100)} if len(ages) else {},
                wrong=wrong,
            )


def _flow(
    conductor: Conductor,
    workers: Fleet,
    traffic: Traffic,
    reader: Reader,
    todo: list[Fault],
    say: Callable[[str], None],
) -> None:
    """Sends all and brings all faults about; returns when all is decided, or nothing is any more."""
    left, moved_s, decided = list(todo), time.monotonic(), 0
    while True:
        if reader.error:
            raise RuntimeError("the reader died") from reader.error
        if reader.book.distinct > decided or not conductor.is_idle():
            moved_s, decided = time.monotonic(), reader.book.distinct
        if left and left[0].at <= decided:
            fault = left.pop(0)
            say(f"{traffic.sent:>9,} sent {decided:>9,} decided  {fault.kind} {fault.points}")
            conductor.begin(fault)
        conductor.go_on()
        workers.watch()
        is_all = traffic.sent == traffic.total and conductor.is_idle()
        if is_all and decided == traffic.total and not left:
            return
        if time.monotonic() - moved_s > (QUIET_S if is_all else STUCK_S):
            say(f"nothing moves: {traffic.sent:,} sent, {decided:,} decided, {len(left)} faults left")
            return
        if traffic.sent < traffic.total and traffic.sent - decided < (WINDOW if decided else 1):
            traffic.send_stretch()
        else:
            time.sleep(0.02)


def _verdict(
    settings: Settings,
    workers: Fleet,
    traffic: Traffic,
    reader: Reader,
    followed: bool,
    say: Callable[[str], None],
) -> dict[str, int]:
    """What is wrong, by name, as the topics tell; every count is named, also where it is zero."""
    say("a fresh reader reads all")
    live, fresh = reader.book, Book(traffic)
    fresh.take(read_all(settled(settings, DECISIONS), topic_name(settings, DECISIONS)))
    return {
        "never sent": traffic.total - traffic.sent,
        "lost": fresh.lost(),
        "decided twice": fresh.duplicated(),
        "decided for the wrong customer": fresh.foreign,
        "out of order within a customer": fresh.disordered,
        "decided by older links": len(fresh.stale_ms()),
        "read otherwise by the reader of all the while": int((live.first_at != fresh.first_at).sum())
        + abs(live.duplicated() - fresh.duplicated()),
        "dead letters": sum(
            1 for _ in read_all(settled(settings, DEAD_LETTERS), topic_name(settings, DEAD_LETTERS))
        ),
        "utterances not committed": _not_committed(settings),
        "cells of the statistics that differ": cells_that_differ(settings) if followed else 0,
        "workers that an exception ended": workers.said(CRASHED),
        "workers that did not leave": workers.exits["did not leave"],
    }


def _not_committed(settings: Settings) -> int:
    name = topic_name(settings, UTTERANCES)
    with closing(consumer(settings, group_id(settings, RouterOptions()))) as member:
        places = [TopicPartition(name, partition) for partition in partitions_of(settings, name)]
        at = {place.partition: max(place.offset, 0) for place in member.committed(places, 30)}
        return sum(abs(member.get_watermark_offsets(place, 30)[1] - at[place.partition]) for place in places)
