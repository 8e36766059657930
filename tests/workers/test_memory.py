"""What the C library is told about memory, seen in a process of its own."""

import platform
import subprocess
import sys

import pytest

from tests.workers.marketplace import ROOT

COMES_AND_GOES = """
import ctypes
from workers.memory import LARGE_BYTES, give_large_blocks_back
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena o s blocks mapped u f used free top".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
{told}
for _ in range(3):
    before = libc.mallinfo2().blocks
    block = libc.malloc(2 * LARGE_BYTES)
    mapped = libc.mallinfo2().blocks > before
    libc.free(block)
print(mapped)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
@pytest.mark.parametrize(("told", "mapped"), [("give_large_blocks_back()", "True"), ("", "False")])
def test_large_blocks_go_back_also_when_they_come_again_and_again(told: str, mapped: str) -> None:
    """Left to itself glibc takes the second one from its heap."""
    code = COMES_AND_GOES.replace("{told}", told)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == mapped
