"""Named places in the workers' loops where a test kills, freezes, breaks or delays the process.

Off unless NAMEFREE_FAILPOINTS is set when the process starts; a place that is off costs one call. For example:

    router.after_poll=kill@37,router.before_commit_transaction=freeze:20@5,router.after_decide=delay:0.2@0.01,seed=7

A place does one of ACTIONS: at its n-th passing (`@37`), at each with a probability (`@0.01`, drawn from `seed`),
or at the first where nothing is said.
"""

import logging
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from topics.errors import UsageError, WorkerError

log = logging.getLogger("namefree.failpoints")
VARIABLE = "NAMEFREE_FAILPOINTS"

CALLS = ("init", "begin", "send_offsets_to", "commit", "abort")
PLACES: Mapping[str, str] = {
    "router.after_poll": "utterances are read, nothing is done with them",
    "router.after_decode": "utterances are decoded, with their links",
    "router.after_decide": "the batch is decided",
    "router.after_produce": "decisions are handed to the client",
    **{f"router.before_{call}_transaction": f"before the client's `{call}_transaction`" for call in CALLS[1:]},
    **{f"router.after_{call}_transaction": f"after the client's `{call}_transaction`" for call in CALLS[1:]},
    "router.before_init_transactions": "before the elder of the same name is fenced",
    "router.after_init_transactions": "after that",
    "router.assigned": "in the callback for partitions that come",
    "router.revoked": "in the callback for partitions that go",
    "router.lost": "in the callback for partitions that are gone",
    "router.restoring": "links of a new partition are being read",
    "router.reloading": "a release is about to be loaded",
    "aggregator.before_write": "folds are encoded, none is written",
    "aggregator.after_write": "folds are written, positions are not committed",
    "aggregator.after_commit": "positions are committed",
    "redrive.before_commit": "dead letters and their markers are handed to the client",
    "redrive.after_commit": "they are sent back",
    "trainer.after_bundle": "the candidate is written, and not in the store yet",
    "releases.after_store": "a bundle is in the store, and its event is not written",
    "releases.before_event": "an event of the releases topic is about to be written",
    "releases.after_event": "an event of the releases topic is written",
}
ACTIONS: Mapping[str, str] = {
    "kill": "SIGKILL to the process itself",
    "freeze:S": "SIGSTOP to itself; a helper sends SIGCONT after S seconds",
    "delay:S": "sleeps S seconds",
    "raise": "ends the worker with an error",
    "abort": "an error of Kafka's client that loses the transaction; at its calls only",
    "retry": "an error of Kafka's client after which the call is made again; at its calls only",
}


@dataclass
class _Point:
    action: str
    seconds: float
    at: int  # at which passing; 0: by `share`
    share: float
    passed: int = 0


class _Armed:
    """The points that are on, by place."""

    def __init__(self, text: str) -> None:
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        seeds = [entry.removeprefix("seed=") for entry in entries if entry.startswith("seed=")]
        self._draw = random.Random(seeds[-1] if seeds else "0")
        points = [_read(entry) for entry in entries if not entry.startswith("seed=")]
        self.points: dict[str, list[_Point]] = {}
        for place, point in points:
            self.points.setdefault(place, []).append(point)

    def reach(self, place: str) -> None:
        for point in self.points.get(place, ()):
            point.passed += 1
            if point.passed == point.at or (not point.at and self._draw.random() < point.share):
                log.warning("failpoint %s: %s", place, point.action)
                _act(place, point)


def _read(entry: str) -> tuple[str, _Point]:
    place, _, rest = entry.partition("=")
    action, _, when = rest.partition("@")
    kind, _, seconds = action.partition(":")
    known = {name.partition(":")[0]: name for name in ACTIONS}
    if place not in PLACES or kind not in known or (":" in known[kind]) != bool(seconds):
        actions = ", ".join(ACTIONS)
        raise UsageError(f"{VARIABLE}: {entry!r} is no PLACE=ACTION@WHEN: actions are {actions}; "
                         f"places are {', '.join(PLACES)}")  # fmt: skip
    try:
        share = float(when or 0)
        return place, _Point(kind, float(seconds or 0), 0 if "." in when else int(when or 1), share)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {entry!r}: {error}") from error


def _act(place: str, point: _Point) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            _freeze(point.seconds)
        case "delay":
            time.sleep(point.seconds)
        case "raise":
            raise WorkerError(f"failpoint {place} raised")
        case "abort":
            # the client itself is well, and does not say that it wants an abort: what it produced is under way
            raise KafkaException(KafkaError(KafkaError.TRANSACTION_ABORTABLE, f"failpoint {place}"))
        case "retry":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"failpoint {place}", False, True))


def _freeze(seconds: float) -> None:
    """Stops all threads of the process; nothing of it can wake it, so somebody else does, or does so sooner."""
    waker = ["/bin/sh", "-c", 'sleep "$0"; kill -CONT "$1"', str(seconds), str(os.getpid())]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(waker, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True) as helper:
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(ProcessLookupError):
            os.killpg(helper.pid, signal.SIGKILL)  # with its sleep: who was woken sooner waits for nobody


_armed: _Armed | None = None


def arm(text: str) -> None:
    """Turns on the points that `text` names, as the variable does; "" turns all off. Raises UsageError."""
    global _armed
    _armed = _Armed(text) if text else None


def reach(place: str) -> None:
    """The process is at `place`, one of PLACES. Raises what the point that is on there raises."""
    if _armed is not None:
        _armed.reach(place)


arm(os.environ.get(VARIABLE, ""))
