"""Topics of one test on the real broker, and routers with the flat selector on them, as threads or processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from tests.conftest import Broker, WaitUntil
from tests.workers.doubles import flat_bundle, load_flat
from topics.codec import decode, encode
from topics.errors import NamefreeError
from topics.events import DeadLetter, Decision, Link, Links, Release, Utterance
from topics.kafka import producer, read_all
from topics.registry import (
    DEAD_LETTERS,
    DECISIONS,
    SHADOW_DECISIONS,
    UTTERANCES,
    Topic,
    create_topics,
    topic_name,
)
from topics.settings import Settings
from workers.children import environment
from workers.releases import publish, record
from workers.router import Commit
from workers.router_process import Loading, RouterOptions, run_router

NOW_MS = 1_795_369_000_000
ROOT = Path(__file__).parents[2]
START_S = 120.0  # a router's start on a busy machine, imports and the group's first assignment included
E = TypeVar("E", Decision, DeadLetter)
Pair = tuple[bytes | None, bytes | None]


def ask(number: int, text: str = "get me a car") -> tuple[bytes, bytes]:
    """Key and value of utterance `u-<number>`, of one of fifty customers."""
    customer = f"c-{number % 50}"
    utterance = Utterance(event_time_ms=NOW_MS, utterance_id=f"u-{number}", customer_id=customer, text=text)
    return customer.encode(), encode(utterance)


def link(customer: str, *skills: str) -> tuple[bytes, bytes]:
    """Key and value of the customer's links."""
    linked = tuple(Link(skill) for skill in skills)
    return customer.encode(), encode(Links(event_time_ms=NOW_MS, customer_id=customer, linked=linked))


class RouterThread:
    """A router in a thread of the test. `error` is what it ended with."""

    def __init__(self, settings: Settings, options: RouterOptions, load: Loading = load_flat) -> None:
        self.commits: list[Commit] = []
        self.error: NamefreeError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, options, load), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings, options: RouterOptions, load: Loading) -> None:
        try:
            run_router(settings, options, load, self._stop, self.commits.append)
        except NamefreeError as error:
            self.error = error

    def decided(self) -> int:
        return sum(commit.decided for commit in self.commits)

    def dead(self) -> int:
        return sum(commit.dead for commit in self.commits)

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(START_S)
        assert self.is_over(), "the router did not end"

    def why(self) -> str:
        return f"router thread with {self.error!r}"


class RouterProcess:
    """A router in a process of its own, its committed batches in one file and its log in another.

    `arguments` is what Python runs: a module that prints a JSON line for each committed batch.
    """

    def __init__(self, settings: Settings, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self._out, self._log = folder / "out", folder / "log"
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with self._out.open("wb") as stdout, self._log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                stdout=stdout,
                stderr=stderr,
                env={**environment(settings), "PYTHONPATH": path},
            )

    def decided(self) -> int:
        return self._told("decided")

    def dead(self) -> int:
        return self._told("dead")

    def _told(self, what: str) -> int:
        lines = self._out.read_text().splitlines(keepends=True)
        return sum(json.loads(line)[what] for line in lines if line.endswith("\n"))

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(START_S)

    def stop(self) -> None:
        if not self.is_over():
            self.process.kill()
            self.process.wait()

    def why(self) -> str:
        return self._log.read_text()[-2_000:]


@dataclass
class Marketplace:
    """Topics under one prefix, and what stands on them."""

    settings: Settings
    folder: Path
    wait_until: WaitUntil
    routers: list[RouterThread | RouterProcess] = field(default_factory=list)

    def thread(self, load: Loading = load_flat, /, **options: object) -> RouterThread:
        router = RouterThread(self.settings, _options(options), load)
        self.routers.append(router)
        return router

    def process(self, **options: object) -> RouterProcess:
        """A router process with the flat selector."""
        asked = [msgspec.json.encode(one, enc_hook=str).decode() for one in (self.settings, _options(options))]
        return self._process("tests.workers.flat_router", *asked)

    def route(self, *options: str) -> RouterProcess:
        """`namefree route` itself, with the model of the release that is published."""
        return self._process("workers", "route", "--json", "--metrics-port", "0", *options)

    def _process(self, *arguments: str) -> RouterProcess:
        router = RouterProcess(self.settings, self.folder / f"router-{len(self.routers)}", *arguments)
        self.routers.append(router)
        return router

    def stop(self) -> None:
        for router in self.routers:
            router.stop()

    def drain(self) -> None:
        """Asks the processes that still run to finish their batch and leave."""
        for router in self.routers:
            if isinstance(router, RouterProcess) and not router.is_over():
                assert router.end(signal.SIGTERM) == 0, router.why()

    def publish(self, name: str) -> Release:
        return self.publish_bundle(flat_bundle(self.folder, name))

    def publish_bundle(self, bundle: Path) -> Release:
        return publish(self.settings, bundle, self.folder / "store", "", {}, bundle.name)

    def record(self, name: str, parent: Release | None = None) -> Release:
        """A release that no router serves yet."""
        bundle, store = flat_bundle(self.folder, name), self.folder / "store"
        return record(self.settings, bundle, store, parent.release if parent else "", {}, name)

    def send(self, topic: Topic, pairs: Sequence[Pair]) -> None:
        """As a producer that may send more than a broker takes by default: a megabyte travels too."""
        large = {**self.settings.kafka, "message.max.bytes": "2000000"}
        client = producer(msgspec.structs.replace(self.settings, kafka=large))
        for key, value in pairs:
            client.produce(topic_name(self.settings, topic), key=key, value=value)
        assert client.flush(30) == 0

    def ask(self, first: int, count: int, text: str = "get me a car") -> None:
        self.send(UTTERANCES, [ask(number, text) for number in range(first, first + count)])

    def decisions(self, count: int) -> list[Decision]:
        """All decisions, once there are `count`: a commit returns before its readers see it."""
        return self._read(DECISIONS, Decision, count)

    def shadow_decisions(self, count: int) -> list[Decision]:
        """All decisions of a shadow, once there are `count`."""
        return self._read(SHADOW_DECISIONS, Decision, count)

    def letters(self, count: int) -> list[DeadLetter]:
        """All dead letters, once there are `count`."""
        return self._read(DEAD_LETTERS, DeadLetter, count)

    def _read(self, topic: Topic, kind: type[E], count: int) -> list[E]:
        found: list[E] = []

        def enough() -> bool:
            found[:] = [
                decode(one.value(), kind) for one in read_all(self.settings, topic_name(self.settings, topic))
            ]
            return len(found) >= count

        self.until(enough, f"{count} messages on {topic.name}")
        return found

    def until(self, condition: Callable[[], object], what: str) -> None:
        self.wait_until(condition, START_S, what)

    def until_decided(self, router: RouterThread | RouterProcess, count: int) -> None:
        self.until(lambda: router.decided() >= count or router.is_over(), f"{count} decisions of {router.why()}")
        assert router.decided() >= count, router.why()


def _options(chosen: dict[str, object]) -> RouterOptions:
    return msgspec.convert({"metrics_port": 0, "batch": 100, **chosen}, RouterOptions)


@pytest.fixture
def market(broker: Broker, topic_prefix: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Marketplace]:
    """Empty topics of two partitions each. What routes on them at the test's end is stopped."""
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=2)
    market = Marketplace(settings, tmp_path, wait_until)
    try:
        yield market
    finally:
        market.stop()
