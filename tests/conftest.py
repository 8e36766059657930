"""What every test may ask for: a broker, names of its own on it, the real corpus, and waiting with a deadline.

Which broker: the cluster that NAMEFREE_BOOTSTRAP names; else `--broker=embedded` (the default), which fails
where it cannot start; else `--broker=testcontainers`, which skips by name where Docker or the image is absent.
"""

import gc
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import pytest

from topics.broker import embedded_broker

T = TypeVar("T")
Kind = Literal["given", "embedded", "testcontainers"]
# The image that testcontainers' own start script is made for.
IMAGE = "confluentinc/cp-kafka:7.6.0"
ENVIRONMENT = pytest.StashKey[dict[str, str]]()
# Before anything imports torch, and inherited by every process that a test starts: torch's idle threads otherwise
# spin for the next piece of work, on the cores that the broker needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class Broker:
    """The broker that this session was given. `kind` tells which, for what not every cluster can do."""

    bootstrap: str
    kind: Kind


class WaitUntil(Protocol):
    """Waits until `condition()` is true and gives its value; fails after `deadline_s`, naming `what`."""

    def __call__(self, condition: Callable[[], T], deadline_s: float, what: str) -> T: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("namefree")
    group.addoption(
        "--broker", choices=["embedded", "testcontainers"], default="embedded", help="which Kafka the tests run on"
    )
    group.addoption("--broker-image", default=IMAGE, help=f"image of --broker=testcontainers (default {IMAGE})")


def pytest_unconfigure() -> None:
    """A router run in this process has frozen what was there; what is frozen at exit is reported as leaked."""
    gc.unfreeze()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ENVIRONMENT] = {k: v for k, v in os.environ.items() if k.startswith("NAMEFREE_")}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No NAMEFREE_* of whoever runs the tests reaches them, and no test reaches the user's own broker.

    The cache stays: what it holds is checked, and fetching it again proves nothing.
    """
    for name in list(os.environ):
        if name.startswith("NAMEFREE_") and name != "NAMEFREE_CACHE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("NAMEFREE_HOME", str(tmp_path / "namefree-home"))


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One broker for the session: `.bootstrap` is `host:port`. Tests keep apart by `topic_prefix`."""
    if given := request.config.stash[ENVIRONMENT].get("NAMEFREE_BOOTSTRAP"):
        yield Broker(given, "given")
    elif request.config.getoption("--broker") == "testcontainers":
        yield from _container(request.config.getoption("--broker-image"))
    else:
        with embedded_broker() as embedded:
            yield Broker(embedded.bootstrap, "embedded")


def _container(image: str) -> Iterator[Broker]:
    _need_image(image)
    try:
        from testcontainers.community.kafka import KafkaContainer
    except ImportError:  # its name before 4.14
        from testcontainers.kafka import KafkaContainer
    container = (
        KafkaContainer(image)
        .with_kraft()
        .with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        .with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        .with_env("KAFKA_LOG_CLEANER_BACKOFF_MS", "1000")
    )
    with container:
        yield Broker(container.get_bootstrap_server(), "testcontainers")


def _need_image(image: str) -> None:
    with warnings.catch_warnings():
        # docker's client forgets a socket where nobody answers; collected here, it fails no later test.
        warnings.simplefilter("ignore", ResourceWarning)
        missing = _what_is_missing(image)
        gc.collect()
    if missing:
        pytest.skip(f"--broker=testcontainers: {missing}")


def _what_is_missing(image: str) -> str | None:
    try:
        import docker  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        return "the docker package is not installed"
    try:
        with closing(docker.from_env()) as client:
            client.images.get(image)
    except docker.errors.ImageNotFound:
        return f"image {image} is absent (docker pull {image})"
    except docker.errors.DockerException as error:
        return f"no Docker answers ({error})"
    return None


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A fresh prefix for topics, groups and transactional ids: the test's name, shortened, and a random part."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name.removeprefix("test_"))[:40].strip("-")
    return f"{name}-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """See `WaitUntil`."""
    return _wait_until


def _wait_until(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    ends = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > ends:
            pytest.fail(f"after {deadline_s:g} s still not: {what}")
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def corpus_dir(request: pytest.FixtureRequest) -> Path:
    """The real corpus: the folder NAMEFREE_TEST_DATA, else `../shared/data` beside the checkout; else a skip."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(request.config.stash[ENVIRONMENT].get("NAMEFREE_TEST_DATA", beside))
    if not any(folder.glob("skills.jsonl*")):
        pytest.skip(f"the real corpus is absent: no skills.jsonl in {folder} (set NAMEFREE_TEST_DATA)")
    return folder
