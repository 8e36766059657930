"""What the aggregator's tests share: traffic as a router and customers make it, and a process under test."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from topics import codec
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind
from topics.kafka import consumer, partitions_of, producer, watermarks
from topics.registry import DECISIONS, OUTCOMES, Topic, topic_name
from topics.settings import Settings
from workers.aggregator import Write
from workers.transactions import patiently

T0_MS = 1_795_366_800_000
SKILLS = [f"rides:{i}" for i in range(7)]
KINDS = list(OutcomeKind)
PATIENCE_S = 120.0  # for a process to start, join, fold, end, on a busy machine
COMMAND = [sys.executable, "-c", "from workers.cli import main; main()"]


def decision(i: int, **fields: Any) -> Decision:
    listed = tuple(
        Candidate(skill_id=SKILLS[(i + k) % 7], score=1.0, probability=0.25, linked=(i + k) % 2 == 0)
        for k in range(3)
    )
    fields = {"action": Action.LAUNCH, "skill_id": listed[0].skill_id, "candidates": listed, **fields}
    return Decision(event_time_ms=T0_MS + i * 5_000, utterance_id=f"u-{i}", customer_id=f"c-{i % 50}", **fields)


def outcome(i: int) -> Outcome:
    return Outcome(
        event_time_ms=T0_MS + i * 5_000 + 1,
        utterance_id=f"u-{i}",
        customer_id=f"c-{i % 50}",
        outcome=KINDS[i % 5],
        skill_id=SKILLS[i % 3] if KINDS[i % 5] is OutcomeKind.CORRECTED else None,
    )


class Feeder:
    """Sends decisions as a router does, in transactions of which some are aborted, and outcomes beside them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._router = producer(settings, f"{settings.prefix}router")
        patiently(self._router, "init_transactions", str, 10)
        self._customers = producer(settings)

    def decide(self, decisions: list[Decision], commit: bool = True) -> None:
        self._router.begin_transaction()
        for event in decisions:
            name = topic_name(self._settings, DECISIONS)
            self._router.produce(name, codec.encode(event), event.customer_id)
        self._router.flush()
        patiently(self._router, "commit_transaction" if commit else "abort_transaction", str, 10)

    def answer(self, outcomes: list[Outcome]) -> None:
        for event in outcomes:
            self.send(topic_name(self._settings, OUTCOMES), event.customer_id, codec.encode(event))
        self._customers.flush()

    def send(self, topic: str, key: str, value: bytes | None) -> None:
        self._customers.produce(topic, value, key)
        self._customers.flush()


class Running:
    """An aggregator of its own process; `lines` are what it printed, one for each write."""

    def __init__(self, settings: Settings, log: Path, *options: str) -> None:
        self.log = log
        everywhere = ["--bootstrap", settings.bootstrap, "--prefix", settings.prefix]
        own = ["aggregate", "--json", "--metrics-port", "0", "--write-every", "0.2", *options]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*COMMAND, *everywhere, *own], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.lines: list[Write] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(msgspec.json.decode(line, type=Write))

    def folded(self) -> int:
        return sum(sum(line.folded.values()) for line in self.lines)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after the signal; one that has ended already does not hear it."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def settled(settings: Settings, *topics: Topic) -> Settings:
    """The settings, once no transaction on `topics` is open: a commit returns before its readers see it."""
    ends = time.monotonic() + PATIENCE_S
    while any(
        _ends(settings, topic, "read_committed") != _ends(settings, topic, "read_uncommitted") for topic in topics
    ):
        assert time.monotonic() < ends, f"transactions on {topics} stay open"
        time.sleep(0.02)
    return settings


def _ends(settings: Settings, topic: Topic, isolation: str) -> list[int]:
    name = topic_name(settings, topic)
    with closing(consumer(settings, "namefree-readers", **{"isolation.level": isolation})) as reader:
        return [watermarks(reader, name, partition)[1] for partition in partitions_of(settings, name)]


@contextmanager
def traffic_on(settings: Settings) -> Iterator[list[int]]:
    """Traffic while the body runs, answered to the end after it: [how many were decided and answered]."""
    feeder, sent, done = Feeder(settings), [0], threading.Event()
    step, late = 40, 200

    def run() -> None:
        while not done.wait(0.1):
            at = sent[0]
            feeder.decide([decision(i) for i in range(at, at + step)])
            feeder.decide([decision(10**6 + at)], commit=False)
            feeder.answer([outcome(i) for i in range(max(at - late, 0), at + step - late)])
            feeder.answer([outcome(at)])  # some come soon, and once more in their turn
            sent[0] = at + step
        feeder.answer([outcome(i) for i in range(max(sent[0] - late, 0), sent[0])])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()
