"""The first signal asks, the second ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.lifecycle import stop_on_signals

STUBBORN = """
import time
from workers.lifecycle import stop_on_signals
with stop_on_signals() as stop:
    print("ready", flush=True)
    stop.wait()
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    """A process that is asked to stop and works on."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, cwd=root)
    with process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_worker_at_once(stubborn: subprocess.Popen[str], number: signal.Signals) -> None:
    assert said(stubborn) == "ready"
    stubborn.send_signal(number)
    assert said(stubborn) == "asked"
    stubborn.send_signal(number)
    assert stubborn.wait(30) == 1


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before
