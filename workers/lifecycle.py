"""How a worker ends: the first SIGTERM or SIGINT asks it to finish its batch, the second ends it at once."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("namefree.lifecycle")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yields the event that a first signal sets; call from the main thread. The old handlers come back after."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(1)  # asked twice: whatever is under way is left to the transaction's abort
        log.info("%s: finishing the batch", signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
