"""Which selectors decide: a fixed one, or what the releases topic names as `current`, `canary` and `shadow`.

A new bundle is loaded by a thread while the old one serves; the loop asks for the line-up once a batch, so a
change falls between two batches. A canary or a shadow whose time is over is left out by the router's own clock:
who put it there need not be alive to take it away.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from model.bundle import read_manifest
from topics.errors import BadBundle, BadEvent, WorkerError
from topics.events import Release
from topics.kafka import reader
from topics.registry import RELEASES, topic_name
from topics.settings import Settings
from workers.canary import Lineup, Trial
from workers.deciding import Selecting
from workers.failpoints import reach
from workers.metrics import RouterMetrics
from workers.releases import CANARY, CURRENT, SERVING_KEYS, SHADOW, in_force, read_release

log = logging.getLogger("namefree.serving")

LOOK_S = 0.2  # how long the thread waits on the topic: bounds how long `close` takes
AGAIN_S = 30.0  # a bundle that cannot be loaded is tried again after this: its volume may lag behind the event
REMIND_S = 10.0  # how often the log says that there is no release yet

DOES = {CURRENT: "serves", CANARY: "serves a share of the customers", SHADOW: "decides beside, unseen"}

Loader = Callable[[Path], Selecting]


class Serving(Protocol):
    """Where the loop asks, once a batch, who decides it."""

    def lineup(self) -> Lineup | None:
        """Who decides now, None while nobody can. Raises WorkerError where nobody will."""
        ...

    def close(self) -> None: ...


class FixedBundle:
    """Serves one bundle, whatever the releases topic says. Raises BadBundle."""

    def __init__(self, bundle: Path, load: Loader, metrics: RouterMetrics) -> None:
        with metrics.stage("reload"):
            self._lineup = Lineup(load(bundle))
        metrics.serving(self._lineup.current.release)

    def lineup(self) -> Lineup | None:
        return self._lineup

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class _Served:
    release: Release
    selector: Selecting


class ReleaseFollower:
    """Follows the keys with a thread of its own. What cannot be loaded is logged, counted, and tried again."""

    def __init__(self, settings: Settings, load: Loader, metrics: RouterMetrics) -> None:
        self._topic = topic_name(settings, RELEASES)
        self._load = load
        self._metrics = metrics
        self._served: dict[str, _Served] = {}  # by key; replaced whole, so the loop sees the old or the new
        self._wanted: dict[str, Release] = {}
        self._try_s: dict[str, float] = {}
        self._earlier: list[Release] = []  # stood under `current` before anything served, the newest last
        self._recorded: dict[str, Release] = {}  # by id
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._reader = reader(settings)
        self._reader.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def lineup(self) -> Lineup | None:
        if self._failure is not None:
            raise WorkerError(f"the thread that follows {self._topic} died: {self._failure!r}") from self._failure
        served = self._served
        if CURRENT not in served:
            return None
        return Lineup(served[CURRENT].selector, _trial(served, CANARY), _trial(served, SHADOW))

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._look()
                left = self._leave_out()
                for key in SERVING_KEYS:
                    if self._is_due(key):
                        self._take(key, self._wanted[key], left)
        except BaseException as error:  # noqa: BLE001 the loop must not serve on without its follower
            self._failure = error

    def _look(self) -> None:
        """Reads on to the newest value of each key; a null one takes a trial away, and never what serves."""
        for message in self._reader.consume(1_000, LOOK_S):
            error = message.error()
            if error is not None:
                log.warning("reading %s: %s", self._topic, error.str())
                continue
            self._metrics.consumed.labels(RELEASES.name).inc()
            key = (message.key() or b"").decode("utf-8", "replace")
            if message.value() is None and key in (CANARY, SHADOW):
                self._wanted.pop(key, None)
                continue
            try:
                self._note(key, read_release(message))
            except BadEvent as bad:
                self._failed(f"passed over: {bad}")

    def _note(self, key: str, release: Release) -> None:
        if key not in SERVING_KEYS:
            self._recorded[key] = release
            return
        if key == CURRENT and CURRENT in self._wanted and CURRENT not in self._served:
            self._earlier.append(self._wanted[CURRENT])
        self._wanted[key] = release
        self._try_s[key] = 0.0

    def _leave_out(self) -> list[_Served]:
        """Lets go of trials that are over, or that another release has taken the place of, and returns them."""
        left = []
        for key in (CANARY, SHADOW):
            served = self._served.get(key)
            if served and not (self._is_wanted(key) and self._wanted[key].digest == served.release.digest):
                self._serve(key, None)
                left.append(served)
                log.info("release %s is no %s any more", served.release.release, key)
        return left

    def _is_wanted(self, key: str) -> bool:
        return key in self._wanted and in_force(self._wanted[key])

    def _is_due(self, key: str) -> bool:
        """Whether the key names something else than what is served under it: a release, a share, a time."""
        served = self._served.get(key)
        return (
            self._is_wanted(key)
            and self._wanted[key] != (served and served.release)
            and time.monotonic() >= self._try_s[key]
        )

    def _take(self, key: str, release: Release, left: list[_Served]) -> None:
        """Loads the release beside what decides, if it is not there already, and has it decide. `left` have
        decided until now: a shadow that becomes a canary is there."""
        there = (one.selector for one in (*self._served.values(), *left) if one.release.digest == release.digest)
        try:
            selector = next(there, None) or self._load_aside(release)
        except Exception as error:  # noqa: BLE001 whatever is wrong with a bundle, the old one goes on serving
            self._try_s[key] = time.monotonic() + AGAIN_S
            self._failed(f"release {release.release} is not taken as {key}: {error}")
            if key == CURRENT and CURRENT not in self._served:
                self._fall_back(release)
            return
        before = self._served.get(key)
        self._serve(key, _Served(release, selector))
        if before is None or before.selector is not selector:
            log.info("release %s %s, from %s", release.release, DOES[key], release.bundle)

    def _fall_back(self, wanted: Release) -> None:
        """A router that has just started serves what `wanted` took the place of, until that can be loaded: what
        routers that did not restart go on serving."""
        for release in self._before(wanted):
            try:
                selector = self._load_aside(release)
            except Exception as error:  # noqa: BLE001 as above
                self._failed(f"release {release.release} cannot take its place: {error}")
                continue
            self._serve(CURRENT, _Served(release, selector))
            log.error("release %s serves in place of %s until that can be loaded", release.release, wanted.release)
            return

    def _before(self, wanted: Release) -> list[Release]:
        """What stood under `current` earlier, the newest first; and its line of parents, where the topic has kept
        only the newest. Never just any release that is recorded: it may have been refused."""
        found = {one.digest: one for one in reversed(self._earlier)}
        parent = self._recorded.get(wanted.parent)
        while parent and parent.digest not in found:
            found[parent.digest] = parent
            parent = self._recorded.get(parent.parent)
        found.pop(wanted.digest, None)
        return list(found.values())

    def _load_aside(self, release: Release) -> Selecting:
        with self._metrics.stage("reload"):
            reach("router.reloading")
            return load_release(release, self._load)

    def _serve(self, key: str, served: _Served | None) -> None:
        changed = {name: one for name, one in self._served.items() if name != key}
        self._served = {**changed, key: served} if served else changed
        if key == CURRENT and served:
            self._metrics.serving(served.release.release)
            published_s = served.release.event_time_ms / 1000
            self._metrics.statistics_since(published_s if served.selector.statistics else None)
        trials = {name: one.release.release for name, one in self._served.items() if name != CURRENT}
        self._metrics.on_trial(trials)

    def _failed(self, message: str) -> None:
        self._metrics.release_failures.inc()
        log.error(message)


def _trial(served: dict[str, _Served], key: str) -> Trial | None:
    """The trial under `key`; None where there is none, its time is over, or it is what serves anyway."""
    found = served.get(key)
    if found is None or not in_force(found.release) or found.selector is served[CURRENT].selector:
        return None
    return Trial(key, found.selector, found.release.share)


def load_release(release: Release, load: Loader) -> Selecting:
    """The selector of `release`. Raises BadBundle where the bundle at its place is another one."""
    bundle = Path(release.bundle)
    found = read_manifest(bundle).digest
    if found != release.digest:
        raise BadBundle(f"bundle {bundle} has the digest {found[:12]}…, its event says {release.digest[:12]}…")
    return load(bundle)


def wait_for_release(serving: Serving, stop: threading.Event) -> None:
    """Returns once a release serves, or `stop` is set. The log says every few seconds what is missing."""
    remind_s = 0.0
    while serving.lineup() is None and not stop.is_set():
        if time.monotonic() >= remind_s:
            remind_s = time.monotonic() + REMIND_S
            log.info("waiting for a release: publish one with `namefree releases publish BUNDLE`")
        stop.wait(0.05)
