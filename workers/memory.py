"""Memory that a worker has freed goes back to the machine.

glibc keeps what was freed between pieces that live on, and a rare large batch leaves its peak behind: over half an
hour resident memory crept up by some percent where nothing more was held.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_S = 60.0  # a router takes its working memory, some 80 MB, back within two seconds


def trim() -> None:
    """Gives free pages back; nothing where the C library has no way to (`malloc_trim` is glibc's)."""
    if call := getattr(ctypes.CDLL(None), "malloc_trim", None):
        call(ctypes.c_size_t(0))


@contextmanager
def trimmed(every_s: float = EVERY_S) -> Iterator[None]:
    """Free pages go back every so often while this is open, from a thread of its own."""
    enough = threading.Event()

    def look() -> None:
        while not enough.wait(every_s):
            trim()

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
