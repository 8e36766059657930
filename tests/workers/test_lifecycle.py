"""The first signal asks, the second ends; probes and exit codes tell the truth, of processes as they are run."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.workers.aggregating import Feeder, Running, decision
from tests.workers.marketplace import ROOT, START_S, Marketplace
from topics.kafka_node import free_port
from workers.children import environment
from workers.failpoints import VARIABLE
from workers.lifecycle import stop_on_signals

HOST = "127.0.0.1"
DRAIN_S = 30.0  # as the manual says

STUBBORN = """
from confluent_kafka import Consumer
from workers.lifecycle import stop_on_signals
with stop_on_signals() as stop:
    print("ready", flush=True)
    stop.wait()
    print("asked", flush=True)
    Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "stubborn", "log_level": 0}).consume(1, 600)
"""


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    """A process that is asked to stop and works on, in a call in which Python runs no handler."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, cwd=ROOT)
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
        assert stop.wait(30)
    assert signal.getsignal(signal.SIGTERM) is before


def status(port: int, page: str) -> int:
    """The HTTP status of a probe; 0 where nobody answers yet."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/{page}", timeout=10) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_router_is_ready_when_it_can_decide_and_not_live_when_it_hangs(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to end while it hangs, it goes on; asked again, it is gone."""
    monkeypatch.setenv(VARIABLE, "router.after_decode=delay:600")
    port = free_port(HOST)
    router = market.process(metrics_port=port, stalled_after_s=2.0)
    market.until(lambda: status(port, "live") == 200, "it is live")
    market.until(lambda: "waiting for a release" in router.why(), "it waits for a release")
    assert status(port, "ready") == 503
    market.publish("one")
    market.until(lambda: status(port, "ready") == 200, "it is ready")
    market.until(lambda: status(port, "live") == 200, "it is live")
    market.ask(0, 5)
    market.until(lambda: status(port, "live") == 503, "it is not live")
    router.process.send_signal(signal.SIGTERM)
    market.until(lambda: "SIGTERM: finishing the batch" in router.why(), "it was asked")
    assert not router.is_over()
    assert router.end(signal.SIGTERM) == 1


def test_an_aggregator_is_ready_when_it_has_partitions_and_not_live_when_it_hangs(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to end while it hangs, it goes on; asked again, it is gone."""
    monkeypatch.setenv(VARIABLE, "aggregator.before_write=delay:600")
    port = free_port(HOST)
    log = market.folder / "log"
    running = Running(market.settings, log, "--metrics-port", str(port), "--stalled-after", "2")
    try:
        market.until(lambda: status(port, "ready") == 503, "it is not ready")
        market.until(lambda: status(port, "ready") == 200, "it is ready")
        market.until(lambda: status(port, "live") == 200, "it is live")
        Feeder(market.settings).decide([decision(number) for number in range(5)])
        market.until(lambda: status(port, "live") == 503, "it is not live")
        running.process.send_signal(signal.SIGTERM)
        market.until(lambda: "SIGTERM: finishing the batch" in log.read_text(), "it was asked")
        assert running.process.poll() is None
        assert running.end(signal.SIGTERM) == 1
    finally:
        running.process.kill()


@pytest.mark.parametrize("worker", ["route", "aggregate"])
def test_exit_codes_tell_a_supervisor_what_to_do(market: Marketplace, worker: str) -> None:
    """1: start it again, perhaps; 2: that would be of no use."""
    elsewhere = market.settings.prefix + "elsewhere."
    for arguments, code, why in (
        (["--prefix", elsewhere, worker], 1, "run `namefree topics create`"),
        ([worker, "--until-idle", "-1"], 2, "--until-idle"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "workers", *arguments],
            cwd=ROOT,
            env=environment(market.settings),
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        assert (done.returncode, why in done.stderr) == (code, True), done.stderr


def test_a_router_and_an_aggregator_drain_in_time(market: Marketplace) -> None:
    """With a broker that answers: the batch, its commit, and the group that is left."""
    market.publish("one")
    market.ask(0, 20)
    router = market.process()
    running = Running(market.settings, market.folder / "log", "--write-every", "600")
    try:
        market.until_decided(router, 20)
        market.until(lambda: "partitions [0, 1] restored" in running.log.read_text(), "it has partitions")
        asked_s = time.monotonic()
        assert (router.end(signal.SIGTERM), running.end()) == (0, 0)
        assert time.monotonic() - asked_s < DRAIN_S
    finally:
        running.process.kill()
