"""Brings the faults of a plan about, and sees them through: several at a time, while utterances flow."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from model.bundle import read_manifest
from tests.faults.child import run_publisher, run_redriver
from tests.faults.fleet import END_S, FORKS, Fleet, Worker
from tests.faults.full_disk import publish_on_full_disk
from tests.faults.plan import Fault, places_in
from tests.faults.rubbish import Rubbish
from tests.workers.doubles import flat_bundle
from topics.broker import EmbeddedBroker
from topics.errors import BrokerError
from topics.kafka import consumer
from topics.registry import UTTERANCES, topic_name
from topics.settings import Settings
from workers.releases import publish, record, serve
from workers.router_process import RouterOptions, group_id

AT_ONCE = 3  # faults under way
ZOMBIE_S = 8.0  # longer than session (3 s) and transaction (4 s) live together
WAKE_S = 60.0  # a zombie is woken then, whether others have done its work or not
NUDGE_S = 12.0  # between two tries to bring a router to a place that it passes seldom
MEND_S = 3.0  # after a damaged release comes a whole one
TOLD_S = 240.0  # for dead letters: an aggregator that was killed reads minutes of decisions again first
AGAIN_S = 90.0  # what the broker's absence ended is done again, so long
ONE_ROUTER = ("clean bounce", "hard bounce", "zombie")
HARNESS = "failures of the harness itself"


class Conductor:
    """`decided` says how many utterances are decided, `sent` how many are sent."""

    def __init__(
        self,
        broker: EmbeddedBroker,
        settings: Settings,
        workers: Fleet,
        folder: Path,
        seed: int,
        sent: Callable[[], int],
        decided: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:
        self._broker, self._settings, self._workers, self._folder = broker, settings, workers, folder
        self._sent, self._decided, self._say = sent, decided, say
        self._draw = random.Random(f"conductor {seed}")
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._threads: list[threading.Thread] = []
        self._frozen: dict[int, tuple[Worker, float, int]] = {}  # process -> since when, and what was sent then
        self._bundles = 0
        self._one = {name: threading.Lock() for name in ("broker", "redrive", "bundle")}
        self.rubbish = Rubbish(settings, seed)
        self.whole: set[str] = set()  # releases that were published whole
        self.wrong: Counter[str] = Counter({HARNESS: 0})
        self.errors: list[str] = []

    def may_begin(self, fault: Fault) -> bool:
        """Whether not too much is under way, and there is whom the fault may befall."""
        if fault.kind in ONE_ROUTER and self._workers.at_work(fault.slot) is None:
            return False
        if fault.kind == "aggregator" and self._one["redrive"].locked():
            return False  # who sends back waits for its letters: killed again and again it would never tell them
        if fault.kind == "redrive" and self._workers.aggregator_points:
            return False  # for the same reason
        return self._under_way() < AT_ONCE

    def begin(self, fault: Fault) -> None:
        act: Callable[[Fault], None] = getattr(self, "_" + fault.kind.replace(" ", "_"))
        act(fault)

    def go_on(self) -> None:
        """Does what is due."""
        due = [act for when, act in self._later if when <= time.monotonic()]
        self._later = [(when, act) for when, act in self._later if when > time.monotonic()]
        for act in due:
            act()
        self._wake_zombies()
        for worker in self._workers.aimed():
            self._nudge(worker)

    def is_idle(self) -> bool:
        """No fault is under way."""
        return self._under_way() == 0

    def _under_way(self) -> int:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        known = {worker.process.pid for worker in self._workers.aimed()}
        frozen = [one for one in self._workers.routers if one.is_frozen() and one.process.pid not in known]
        waiting = len(self._workers.aggregator_points)
        return len(self._later) + len(self._threads) + len(known) + len(frozen) + waiting

    def publish(self) -> str:
        """Another whole release, whose id is returned; again where the broker is away."""
        bundle = self._bundle()
        ends_s = time.monotonic() + AGAIN_S
        while True:
            try:
                release = publish(self._settings, bundle, self._folder / "store", "", {}, "fault run").release
                self.whole.add(release)
                return release
            except BrokerError:
                if time.monotonic() > ends_s:
                    raise

    def _bundle(self) -> Path:
        with self._one["bundle"]:
            self._bundles += 1
            return flat_bundle(self._folder / "bundles", f"release-{self._bundles}")

    def _aside(self, act: Callable[..., object], *arguments: Any) -> None:
        """In a thread, beside the traffic."""

        def run() -> None:
            try:
                act(*arguments)
            except BaseException as error:  # noqa: BLE001 told at once, and the run fails
                self.wrong[HARNESS] += 1
                self.errors.append(f"{getattr(act, '__name__', act)}: {error!r}")
                self._say(self.errors[-1])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _wake_zombies(self) -> None:
        """Wakes who is frozen once its partitions went elsewhere: all that was sent by then is decided."""
        now_s = time.monotonic()
        for worker in self._workers.routers:
            if worker.is_frozen():
                self._frozen.setdefault(worker.process.pid or 0, (worker, now_s, self._sent()))
        for pid, (worker, since_s, sent) in list(self._frozen.items()):
            over = now_s > since_s + ZOMBIE_S and self._decided() >= sent
            if over or now_s > since_s + WAKE_S:
                worker.signal(signal.SIGCONT)
                del self._frozen[pid]

    def _nudge(self, worker: Worker) -> None:
        """Helps a router to a place that none passes in the ordinary course."""
        places = places_in(worker.points)
        if time.monotonic() < worker.nudge_s or not worker.said("namefree.links: restored "):
            return
        worker.nudge_s = time.monotonic() + NUDGE_S
        if "router.revoked" in places:
            self._aside(_join_and_leave, self._settings, 2)
        elif "router.lost" in places:
            worker.signal(signal.SIGSTOP)
        elif "router.reloading" in places:
            self._aside(self.publish)

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

    def _failpoint(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start(fault.points)

    def _broker_down(self, fault: Fault) -> None:
        self._aside(self._bounce_broker, fault.seconds)

    def _bounce_broker(self, seconds: float) -> None:
        with self._one["broker"]:
            self._broker.kill()
            time.sleep(seconds)  # the fault itself: so long it is away
            try:
                self._broker.restart()
            except BrokerError as error:  # on a machine that has no time for it: a run must not go on without
                self._say(f"the broker is started once more: {error}")
                self._broker.restart()

    def _storm(self, _fault: Fault) -> None:
        self._aside(_join_and_leave, self._settings, 10)

    def _full_queue(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start(kafka={"queue.buffering.max.messages": "64"})

    def _slow_batch(self, fault: Fault) -> None:
        self._clean_bounce(fault)
        self._workers.start("router.after_decide=delay:7@3", kafka={"max.poll.interval.ms": "5000"})

    def _release(self, _fault: Fault) -> None:
        self._aside(self.publish)

    def _damaged_release(self, _fault: Fault) -> None:
        self._aside(self._publish_damaged)

    def _publish_damaged(self) -> None:
        try:
            release = record(self._settings, self._bundle(), self._folder / "store", "", {}, "damaged")
            (Path(release.bundle) / "flat.txt").write_text("damaged on its way")
            serve(self._settings, release)
        except BrokerError:  # away: then it was not published, or it was
            pass
        self._later.append((time.monotonic() + MEND_S, lambda: self._aside(self.publish)))

    def _full_disk(self, _fault: Fault) -> None:
        self._aside(self._fill_disk)

    def _fill_disk(self) -> None:
        bundle = self._bundle()
        store = self._folder / "full" / bundle.name
        code = _again(lambda: self._forked(publish_on_full_disk, bundle, store), lambda code: code == 2)
        self.wrong["a full disk that is not told"] += code != 2
        self.wrong["half a release in the store"] += len(list(store.glob("*")))

    def _publisher(self, fault: Fault) -> None:
        self._aside(self._kill_publisher, fault.points)

    def _kill_publisher(self, points: str) -> None:
        bundle = self._bundle()
        self.whole.add(read_manifest(bundle).release)
        code = _again(lambda: self._told(run_publisher, points, bundle, self._folder / "store"), _is_killed)
        self.wrong["publishers that were not killed"] += not _is_killed(code)
        self.publish()

    def _rubbish(self, _fault: Fault) -> None:
        self._aside(self.rubbish.send)

    def _redrive(self, fault: Fault) -> None:
        self._aside(self._kill_redriver, fault.points)

    def _kill_redriver(self, points: str) -> None:
        with self._one["redrive"]:
            self.rubbish.send()
            due = _until(self.rubbish.due, "markers")  # more may be sent while these letters are waited for
            _until(lambda: len(self.rubbish.letters()) >= due, "dead letters")
            code = _again(lambda: self._told(run_redriver, points), _is_killed)
            self.wrong["redrivers that were not killed"] += not _is_killed(code)
            code = _again(lambda: self._told(run_redriver, ""), lambda code: code == 0)
            self.wrong["dead letters that could not be sent back"] += code != 0

    def _told(self, act: Callable[..., None], points: str, *arguments: Any) -> int | None:
        """The exit code of a process of its own, with a log of its own."""
        log = self._workers.log(self._workers.number())
        code = self._forked(act, *arguments, log, points)
        if _is_killed(code):
            self._workers.plan(points, log)
        return code

    def _forked(self, act: Callable[..., None], *arguments: Any) -> int | None:
        process: BaseProcess = FORKS.Process(target=act, args=(self._settings, *arguments))
        process.start()
        process.join(AGAIN_S)
        return process.exitcode

    def _aggregator(self, fault: Fault) -> None:
        self._workers.aggregator_points.append(fault.points)


def _is_killed(code: int | None) -> bool:
    return code == -signal.SIGKILL


def _again(act: Callable[[], int | None], is_done: Callable[[int | None], bool]) -> int | None:
    """The exit code, once it is as wanted: a broker that is away ends a command with 1, and it is called again."""
    ends_s = time.monotonic() + AGAIN_S
    while True:
        code = act()
        if is_done(code) or code != 1 or time.monotonic() > ends_s:
            return code


def _until(condition: Callable[[], int], what: str) -> int:
    """What it is, once that is not 0."""
    ends_s = time.monotonic() + TOLD_S
    while time.monotonic() < ends_s:
        try:
            if found := condition():
                return found
        except BrokerError:  # away
            pass
        time.sleep(0.2)
    raise TimeoutError(f"no {what} within {TOLD_S:.0f} s")


def _join_and_leave(settings: Settings, times: int) -> None:
    """Members of the routers' group that take partitions and do nothing with them."""
    for _ in range(times):
        with closing(consumer(settings, group_id(settings, RouterOptions()))) as stranger:
            stranger.subscribe([topic_name(settings, UTTERANCES)])
            stranger.poll(0.3)
