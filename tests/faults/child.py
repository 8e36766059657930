"""Workers of a fault run, forked from one process that has imported everything: a start takes no second."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

import topics.settings
from model.fulfilment import Asks
from tests.faults.mutants import MUTANTS
from tests.workers.doubles import FlatSelector, load_flat
from topics.errors import NamefreeError
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.aggregator_process import run_aggregator
from workers.console import fail, start_logging
from workers.failpoints import arm
from workers.lifecycle import stop_on_signals
from workers.redrive import redrive_where
from workers.release_store import read_whole
from workers.releases import publish
from workers.router_process import RouterOptions, run_router

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
    """The process of a router or an aggregator; ends with the exit code that the command would have."""
    with _child(start.log, start.points):
        if start.mutant:
            MUTANTS[start.mutant](start.settings, start.options)
        with stop_on_signals() as stop:
            if isinstance(start.options, RouterOptions):
                run_router(start.settings, start.options, load_whole, stop, _ignore)
            else:
                run_aggregator(start.settings, start.options, stop, _ignore)


def run_publisher(settings: Settings, bundle: Path, store: Path, log: Path, points: str) -> None:
    """The process of whoever publishes a release."""
    with _child(log, points):
        publish(settings, bundle, store, "", {}, "fault run")


def run_redriver(settings: Settings, log: Path, points: str) -> None:
    """The process of whoever sends back all dead letters that were not sent back yet."""
    with _child(log, points):
        redrive_where(settings, lambda _letter: True)


@contextmanager
def _child(log: Path, points: str) -> Iterator[None]:
    """Its log, its points, and its exit code."""
    with suppress(AttributeError, OSError):  # where the system has it: no orphan, however the harness ends
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    topics.settings.TRANSACTION_TIMEOUT_MS = TRANSACTION_TIMEOUT_MS
    start_logging("info")
    arm(points)
    try:
        yield
    except NamefreeError as error:
        fail(str(error))
        sys.exit(error.exit_code)


def _ignore(*_told: object) -> None:
    """The topics tell all that is asked."""


def load_whole(bundle: Path, asks: Asks | None = None) -> FlatSelector:
    """A flat selector, once every file of the bundle has its digest, as the real one wants it."""
    read_whole(bundle)
    return load_flat(bundle, asks)
