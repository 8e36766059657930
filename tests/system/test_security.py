"""TLS and SCRAM on a real broker, refusals in one line, and nothing secret in what anybody prints."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from model.sample import SAMPLE_DIR
from tests.conftest import WaitUntil
from tests.secured import ROOT_USER, SECRET, Authority, Secured
from tests.workers.aggregating import Feeder, Running, outcome
from tests.workers.marketplace import Marketplace, RouterProcess
from topics.registry import create_topics
from topics.settings import Settings
from workers.children import environment
from workers.experience import read_experience
from workers.fold_store import read_statistics

COUNT = 40
BOUND_S = 60.0  # for a refusal: 12 s of trying, and the start of a process on a busy machine
ANSWER_S = 240.0  # for whoever does its work


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str
    took_s: float

    @property
    def said(self) -> str:
        return self.out + self.err


def namefree(settings: Settings, *arguments: str) -> Ran:
    """A command in a process of its own, which tells all that it can."""
    start_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers", *arguments],
        env={**environment(settings), "NAMEFREE_LOG_LEVEL": "debug"},
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
    )
    return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - start_s)


def page(port: int, name: str = "metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=10) as found:
        return str(found.read().decode())


def port_in(log: str) -> int:
    found = re.search(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", log)
    assert found, log
    return int(found[1])


def listening(pid: int) -> set[str]:
    """Addresses, as hexadecimal, at which a process listens; from /proc."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:"):
            sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
needs_proc = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="the system has no /proc")


def test_the_loop_turns_with_a_password_over_tls(
    secured: Secured,
    topic_prefix: str,
    tmp_path: Path,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
    small_folder: Path,
) -> None:
    """A router, an aggregator, the trainer's reads and commands, at debug level: all do their work, listen on
    loopback alone, and say nothing secret."""
    settings = secured.root(topic_prefix)
    for name, value in {**environment(settings), "NAMEFREE_LOG_LEVEL": "debug"}.items():
        monkeypatch.setenv(name, value)
    create_topics(settings, partitions=2)
    market = Marketplace(settings, tmp_path, wait_until)
    release = market.publish_bundle(small_folder)
    router = market.route()
    aggregator = Running(settings, tmp_path / "aggregator.log")
    try:
        market.ask(0, COUNT)
        lines = (
            ["topics", "check"],
            ["releases", "list", "--json"],
            ["dead-letters", "list", "--json"],
            ["ask", "get me a car", "--json"],
        )
        with ThreadPoolExecutor() as threads:
            ran = list(threads.map(lambda line: namefree(settings, *line), lines))
        assert [one.code for one in ran] == [0] * len(ran), ran
        assert release.release in ran[1].out
        assert release.release in ran[3].out
        market.until_decided(router, COUNT)
        _fold(settings, aggregator, wait_until)
        assert len(read_experience(settings).offsets["utterances"]) == 2
        logs = [router.why(), aggregator.log.read_text()]
        pages = [page(port_in(router_log(router))), page(port_in(logs[1]))]
        if Path("/proc/self/net/tcp").exists():
            assert listening(router.process.pid) <= LOOPBACK
            assert listening(aggregator.process.pid) <= LOOPBACK
    finally:
        codes = [aggregator.end(), router.end(signal.SIGTERM)]
    assert codes == [0, 0]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in text for text in files)
    assert not any(SECRET in text for text in [*logs, *pages, *(one.said for one in ran)])


def test_the_loop_turns_with_a_certificate(
    secured: Secured, topic_prefix: str, tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clients show it: the router's and the aggregator's."""
    settings = secured.certified(topic_prefix)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    create_topics(settings, partitions=2)
    market = Marketplace(settings, tmp_path, wait_until)
    market.publish("flat")
    router = market.thread()
    aggregator = Running(settings, tmp_path / "aggregator.log")
    try:
        market.ask(0, COUNT)
        market.until_decided(router, COUNT)
        _fold(settings, aggregator, wait_until)
    finally:
        market.stop()
        code = aggregator.end()
    assert (code, router.error) == (0, None)


def _fold(settings: Settings, aggregator: Running, wait_until: WaitUntil) -> None:
    """Customers answer all that was decided, and the aggregator folds it."""
    Feeder(settings).answer([outcome(number) for number in range(COUNT)])

    def folded() -> bool:
        return aggregator.folded() >= 2 * COUNT or aggregator.process.poll() is not None

    wait_until(folded, ANSWER_S, "all decisions and outcomes are folded")
    assert read_statistics(settings).statistics.outcomes == COUNT, aggregator.log.read_text()[-2_000:]


def router_log(router: RouterProcess) -> str:
    return router._log.read_text()


@needs_proc
def test_the_sandbox_listens_on_loopback_alone() -> None:
    command = [sys.executable, "-m", "workers", "sandbox", "--data", str(SAMPLE_DIR), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sandbox:
        assert sandbox.stdout is not None
        assert sandbox.stdout.readline().startswith("http://127.0.0.1:")
        found = listening(sandbox.pid)
        sandbox.terminate()
    assert found
    assert found <= LOOPBACK


def test_a_wrong_password_a_wrong_authority_and_a_plain_client_are_told_in_one_line(
    secured: Secured, topic_prefix: str, tmp_path: Path
) -> None:
    """What is wrong, where, and what to do; exit code 1, soon, and never the password."""
    good = secured.root(topic_prefix)
    create_topics(good, partitions=1)
    stranger = Authority.make(tmp_path / "stranger")
    wrong_password = secured.scram(ROOT_USER, f"not-{SECRET}", topic_prefix)
    wrong_authority = replace(good, kafka={**good.kafka, "ssl.ca.location": str(stranger.ca)})
    plain = replace(secured.scram(ROOT_USER, SECRET, topic_prefix, tls=False), bootstrap=good.bootstrap)
    asked = [
        (wrong_password, ["topics", "check"], "invalid credentials", "check sasl.mechanism, sasl.username"),
        (wrong_password, ["aggregate"], "invalid credentials", "check sasl.mechanism, sasl.username"),
        (wrong_authority, ["route"], "certificate verify failed", "check security.protocol, ssl.ca.location"),
        (plain, ["cycle"], "hangs up", "check security.protocol"),
        (plain, ["ask", "get me a car"], "hangs up", "check security.protocol"),
    ]
    with ThreadPoolExecutor() as threads:
        ran = list(threads.map(lambda one: namefree(one[0], *one[1]), asked))
    for (settings, arguments, what, remedy), one in zip(asked, ran, strict=True):
        assert one.code == 1, (arguments, one.err)
        errors = [line for line in one.err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, (arguments, one.err)
        assert one.err.splitlines()[-1] == errors[0]
        assert "Traceback" not in one.err
        assert all(part in errors[0] for part in (what, settings.bootstrap, remedy)), errors[0]
        assert SECRET not in one.said
        assert one.took_s < BOUND_S


def test_settings_that_make_no_client_are_named_without_their_secrets(secured: Secured) -> None:
    """A path that is wrong, half a credential: asked wrongly, so exit code 2."""
    good = secured.root()
    no_file = replace(good, kafka={**good.kafka, "ssl.ca.location": "/not/there"})
    no_user = replace(good, kafka={name: value for name, value in good.kafka.items() if name != "sasl.username"})
    for settings, what in ((no_file, "ssl.ca.location failed"), (no_user, "sasl.username and sasl.password")):
        ran = namefree(settings, "topics", "check")
        assert (ran.code, what in ran.err, SECRET in ran.said) == (2, True, False), ran.err


def test_printed_settings_show_no_secret() -> None:
    """Whatever the property is called that carries one."""
    names = (
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.jaas.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    )
    settings = Settings(kafka={name: f"{SECRET}-{name}" for name in names})
    for shown in (repr(settings), str(settings), f"{settings}", f"{[settings]}"):
        assert SECRET not in shown
        assert shown.count("***") == len(names)
