"""Points do what they are told, where and when they are told, and the table of places is that of the code."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from tests.conftest import WaitUntil
from topics.errors import UsageError, WorkerError
from workers.failpoints import CALLS, PLACES, VARIABLE, arm, reach
from workers.transactions import Verdict, verdict

ROOT = Path(__file__).parents[2]
WALK = """
import time
from workers.failpoints import reach
for number in range(5):
    start = time.monotonic()
    reach("router.after_poll")
    print(number, round(time.monotonic() - start, 1), flush=True)
"""


def walk(points: str) -> subprocess.CompletedProcess[str]:
    """What a process says that passes one place five times."""
    environment = {**os.environ, VARIABLE: points}
    return subprocess.run(
        [sys.executable, "-c", WALK], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    arm("")


def test_the_table_names_every_place_of_the_code_and_no_other() -> None:
    code = "".join(path.read_text() for path in (ROOT / "workers").glob("*.py"))
    reached = set(re.findall(r'reach\("([\w.]+)"\)', code))
    dynamic = {f"router.{when}_{call}_transaction" for when in ("before", "after") for call in CALLS[1:]}
    dynamic |= {"router.before_init_transactions", "router.after_init_transactions"}
    assert reached | dynamic == set(PLACES)


def test_a_process_is_killed_at_the_third_passing() -> None:
    done = walk("router.after_poll=kill@3")
    assert done.returncode == -signal.SIGKILL
    assert [line[0] for line in done.stdout.splitlines()] == ["0", "1"]


def test_a_frozen_process_goes_on_after_its_time() -> None:
    start = time.monotonic()
    done = walk("router.after_poll=freeze:1@2")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert time.monotonic() - start >= 1.0


def test_a_frozen_process_may_be_woken_sooner(wait_until: WaitUntil) -> None:
    environment = {**os.environ, VARIABLE: "router.after_poll=freeze:60@2"}
    with subprocess.Popen(
        [sys.executable, "-c", WALK], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    ) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(") ")[2][0] == "T", 30, "frozen")
        process.send_signal(signal.SIGCONT)
        assert process.wait(30) == 0


def test_off_nothing_happens() -> None:
    assert walk("").returncode == 0


@pytest.mark.parametrize(
    "points",
    ["router.nowhere=kill", "router.after_poll=dance", "router.after_poll=kill@x", "router.after_poll=delay"],
)
def test_a_mistyped_point_is_refused(points: str) -> None:
    with pytest.raises(UsageError, match=VARIABLE):
        arm(points)


def test_errors_are_raised_as_told() -> None:
    arm("router.after_poll=raise@1, router.after_decode=abort, router.after_decide=retry")
    with pytest.raises(WorkerError, match=r"router\.after_poll"):
        reach("router.after_poll")
    with pytest.raises(KafkaException) as lost:
        reach("router.after_decode")
    assert verdict(lost.value.args[0]) is Verdict.ABORT
    with pytest.raises(KafkaException) as passing:
        reach("router.after_decide")
    assert passing.value.args[0].retriable()
    reach("router.after_poll")


def test_a_share_is_drawn_by_the_seed() -> None:
    def passings(seed: int) -> list[int]:
        arm(f"router.after_poll=retry@0.1,seed={seed}")
        found = []
        for number in range(1_000):
            try:
                reach("router.after_poll")
            except KafkaException:
                found.append(number)
        return found

    assert passings(1) == passings(1) != passings(2)
    assert 60 < len(passings(1)) < 140
