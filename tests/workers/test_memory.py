"""Memory that goes back to the system."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.commands import aggregate
from workers.memory import give_back

BLOCKS, BLOCK = 100_000, 1_000  # bytes: small enough to come from the heap

_libc = ctypes.CDLL(None)


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not hasattr(_libc, "malloc_trim"), reason="this C library cannot be told to trim its heap")
def test_pages_of_freed_blocks_go_back_though_a_later_block_stays() -> None:
    _libc.malloc.restype, _libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [_libc.malloc(BLOCK) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    *freed, last = blocks
    for block in freed:
        _libc.free(block)
    before = resident_bytes()
    give_back()
    assert before - resident_bytes() > BLOCKS * BLOCK // 2
    _libc.free(last)


OUTSIDE = """
import ctypes
from workers.memory import keep_one_heap

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks "
                "fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.mallinfo2.restype = ctypes.c_void_p, [ctypes.c_void_p], Mallinfo
if {keep}:
    keep_one_heap()
libc.free(libc.malloc(8_000_000))  # from here on malloc would put what is smaller than this into the heap
before = libc.mallinfo2().hblks
libc.malloc(1_000_000)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(_libc, "mallinfo2"), reason="this C library does not tell what its heap holds")
@pytest.mark.parametrize(("keep", "outside"), [(False, "0"), (True, "1")])
def test_what_is_large_lies_outside_the_heap(keep: bool, outside: str) -> None:
    code = OUTSIDE.replace("{keep}", str(keep))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == outside


def test_an_aggregator_is_told_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in `run_aggregator`: whoever calls that has a process of its own to think of."""
    called: list[str] = []
    monkeypatch.setattr(aggregate, "keep_one_heap", lambda: called.append("told"))
    monkeypatch.setattr(aggregate, "run_aggregator", lambda *_: called.append("begun"))
    CliRunner().invoke(aggregate.command, [], catch_exceptions=False)
    assert called == ["told", "begun"]
