"""What malloc does with memory that nobody uses any more, where the C library can be told (glibc)."""

import ctypes

MMAP_THRESHOLD, ARENA_MAX = -3, -8  # as in malloc.h
LARGE = 128 * 1024  # bytes

_libc = ctypes.CDLL(None)


def keep_one_heap() -> None:
    """One heap for all threads, and what is large lies outside and goes back to the system once it is freed. For a
    process that makes no threads before, and whose large pieces are few: each costs its pages anew."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(ARENA_MAX, 1)
        _libc.mallopt(MMAP_THRESHOLD, LARGE)


def give_back() -> None:
    """The pages of the heap in which nothing is go back to the system. Takes milliseconds."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))
