"""Workers of a fault run, forked from one process that has imported everything: a start takes no second.

A mutant is a router without one of its guards, made here, by patching the process: the product has no switch.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from msgspec import Struct

import topics.settings
from model.fulfilment import Asks
from tests.workers.doubles import FlatSelector, load_flat
from topics.errors import NamefreeError
from topics.kafka import consumer
from topics.settings import Settings
from workers.aggregator import AggregatorOptions, run_aggregator
from workers.console import fail, start_logging
from workers.failpoints import arm
from workers.lifecycle import stop_on_signals
from workers.links import LinksTable
from workers.release_store import read_whole
from workers.router_process import RouterOptions, group_id, run_router
from workers.source import UtteranceSource
from workers.transactions import CALL_TIMEOUT_S, TransactionalSink

TRANSACTION_TIMEOUT_MS = 4_000  # a killed router holds the readers back this long
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


class Start(Struct, frozen=True, kw_only=True):
    """What a worker is started with. `points`: see `workers.failpoints`. `mutant`: one of MUTANTS, or ""."""

    settings: Settings
    options: RouterOptions | AggregatorOptions
    log: Path
    points: str = ""
    mutant: str = ""


def run(start: Start) -> None:
    """The process; ends with the exit code that the command would have."""
    with suppress(AttributeError, OSError):  # where the system has it: no orphan, however the harness ends
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    with start.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    topics.settings.TRANSACTION_TIMEOUT_MS = TRANSACTION_TIMEOUT_MS
    start_logging("info")
    arm(start.points)
    if start.mutant:
        MUTANTS[start.mutant](start)
    try:
        with stop_on_signals() as stop:
            if isinstance(start.options, RouterOptions):
                run_router(start.settings, start.options, load_whole, stop, _ignore)
            else:
                run_aggregator(start.settings, start.options, stop, _ignore)
    except NamefreeError as error:
        fail(str(error))
        sys.exit(error.exit_code)


def _ignore(*_told: object) -> None:
    """The topics tell all that is asked."""


def load_whole(bundle: Path, asks: Asks | None = None) -> FlatSelector:
    """A flat selector, once every file of the bundle has its digest, as the real one wants it."""
    read_whole(bundle)
    return load_flat(bundle, asks)


def _without_offsets(_start: Start) -> None:
    def commit(self: TransactionalSink, _positions: object, _membership: object) -> None:
        self._call("commit_transaction", CALL_TIMEOUT_S)

    _patch(TransactionalSink, "commit", commit)


def _without_seek(_start: Start) -> None:
    _patch(UtteranceSource, "rewind", _ignore)


def _without_fencing(start: Start) -> None:
    """Offsets are sent as by somebody who is no member of the group."""
    assert isinstance(start.options, RouterOptions)
    stranger = consumer(start.settings, group_id(start.settings, start.options))
    _patch(UtteranceSource, "membership", lambda _self: stranger.consumer_group_metadata())


def _without_waiting(_start: Start) -> None:
    """Links come when they come."""

    def restore(self: LinksTable, partitions: frozenset[int], _stop: threading.Event) -> None:
        self._linked.update((partition, {}) for partition in partitions)
        places = [TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions]
        self._reader.incremental_assign(places)

    _patch(LinksTable, "_restore", restore)
    _patch(LinksTable, "_catch_up", _ignore)


def _patch(owner: type, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)


MUTANTS: dict[str, Callable[[Start], None]] = {
    "offsets": _without_offsets,
    "seek": _without_seek,
    "fencing": _without_fencing,
    "links": _without_waiting,
}
