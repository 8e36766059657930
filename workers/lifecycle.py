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
    """Yields the event that a first signal sets; call from the main thread. The old handlers come back after.

    A thread listens, as the main one may be in a call of the Kafka client, where Python runs no handler for up to
    ten seconds: a worker that is asked twice would not end at once.
    """
    stop = threading.Event()
    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)  # as `set_wakeup_fd` wants it
    before_fd = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _told_by_the_thread) for number in SIGNALS}
    listener = threading.Thread(target=_listen, args=(ears, stop), name="signals", daemon=True)
    listener.start()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(mouth)  # the thread hears the end
        listener.join()
        os.close(ears)


def _listen(ears: int, stop: threading.Event) -> None:
    """Hears the number of each signal at once."""
    while heard := os.read(ears, 1):
        if heard[0] not in SIGNALS:
            continue
        if stop.is_set():
            os._exit(1)  # asked twice: whatever is under way is left to the transaction's abort
        log.info("%s: finishing the batch", signal.Signals(heard[0]).name)
        stop.set()


def _told_by_the_thread(_number: int, _frame: FrameType | None) -> None:
    """Stands in for the default, which would end the process."""
