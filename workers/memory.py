"""How a worker's memory stays what it needs: what the C library is told."""

import ctypes

M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE_BYTES = 1024 * 1024


def give_large_blocks_back() -> None:
    """Has the C library give back each block of LARGE_BYTES or more as soon as it is free, for good.

    glibc raises that bound by itself as such blocks come and go, as messages and tables do, up to 32 MB. They
    are taken from the heap then, where something small is soon in the way of the next one: an aggregator's grew
    by 5 MB in 25 minutes while it held no more. Other C libraries do as they are used to. It costs page faults,
    too many of them where a network's tensors come and go.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
