"""Which selector serves: a fixed one, or whatever `current` names on the releases topic, loaded aside.

A new bundle is loaded by a thread while the old one serves; the loop asks for the selector once a batch, so a
batch is decided by one release and the change falls between two.
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
from topics.kafka import consumer
from topics.registry import RELEASES, topic_name
from topics.settings import Settings
from workers.deciding import Selecting
from workers.metrics import RouterMetrics
from workers.releases import CURRENT, read_release

log = logging.getLogger("namefree.serving")

LOOK_S = 0.2  # how long the thread waits on the topic: bounds how long `close` takes
AGAIN_S = 30.0  # a bundle that cannot be loaded is tried again after this: its volume may lag behind the event
REMIND_S = 10.0  # how often the log says that there is no release yet

Loader = Callable[[Path], Selecting]


class Serving(Protocol):
    """Where the loop asks, once a batch, who decides it."""

    def current(self) -> Selecting | None:
        """The selector to use now, None while there is none. Raises WorkerError where there will be none."""
        ...

    def close(self) -> None: ...


class FixedBundle:
    """Serves one bundle, whatever the releases topic says. Raises BadBundle."""

    def __init__(self, bundle: Path, load: Loader, metrics: RouterMetrics) -> None:
        with metrics.stage("reload"):
            self._selector = load(bundle)
        metrics.serving(self._selector.release)

    def current(self) -> Selecting | None:
        return self._selector

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class _Served:
    release: Release
    selector: Selecting


class ReleaseFollower:
    """Follows `current` with a thread of its own. What cannot be loaded is logged and counted, and tried again."""

    def __init__(self, settings: Settings, load: Loader, metrics: RouterMetrics) -> None:
        self._topic = topic_name(settings, RELEASES)
        self._load = load
        self._metrics = metrics
        self._served: _Served | None = None  # swapped whole, so the loop sees the old or the new
        self._wanted: Release | None = None
        self._try_s = 0.0
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._reader = consumer(settings, "namefree-releases")
        self._reader.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def current(self) -> Selecting | None:
        if self._failure is not None:
            raise WorkerError(f"the thread that follows {self._topic} died: {self._failure!r}") from self._failure
        return self._served.selector if self._served else None

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._look()
                if self._is_due():
                    self._take(self._wanted)
        except BaseException as error:  # noqa: BLE001 the loop must not serve on without its follower
            self._failure = error

    def _look(self) -> None:
        """Reads on to the newest `current`."""
        for message in self._reader.consume(1_000, LOOK_S):
            error = message.error()
            if error is not None:
                log.warning("reading %s: %s", self._topic, error.str())
                continue
            self._metrics.consumed.labels(RELEASES.name).inc()
            if message.key() != CURRENT.encode():
                continue
            try:
                self._wanted = read_release(message)
                self._try_s = 0.0
            except BadEvent as bad:
                self._failed(f"passed over: {bad}")

    def _is_due(self) -> bool:
        serving = self._served.release.digest if self._served else ""
        return self._wanted is not None and self._wanted.digest != serving and time.monotonic() >= self._try_s

    def _take(self, release: Release | None) -> None:
        """Loads the release beside the one that serves, then serves it."""
        if release is None:
            return
        try:
            with self._metrics.stage("reload"):
                self._served = _Served(release, load_release(release, self._load))
        except Exception as error:  # noqa: BLE001 whatever is wrong with a bundle, the old one goes on serving
            self._try_s = time.monotonic() + AGAIN_S
            self._failed(f"release {release.release} is not taken: {error}")
            return
        self._metrics.serving(release.release)
        self._metrics.statistics_since(release.event_time_ms / 1000 if self._served.selector.statistics else None)
        log.info("release %s serves, from %s", release.release, release.bundle)

    def _failed(self, message: str) -> None:
        self._metrics.release_failures.inc()
        log.error(message)


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
    while serving.current() is None and not stop.is_set():
        if time.monotonic() >= remind_s:
            remind_s = time.monotonic() + REMIND_S
            log.info("waiting for a release: publish one with `namefree releases publish BUNDLE`")
        stop.wait(0.05)
