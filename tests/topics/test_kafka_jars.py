"""Fetching Kafka: only the pinned bytes, once, whole, whoever else fetches at the same time."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from topics.errors import BrokerError
from topics.folders import cache_dir
from topics.kafka_jars import KAFKA_VERSION, ROOTS, Jar, class_path, read_lock

JARS = {f"part{i}": f"bytes of part {i}".encode() for i in range(12)}


class Repository(SimpleHTTPRequestHandler):
    """A Maven repository on this machine; `asked` gets the path of every request."""

    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self.asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """The test tells what was asked; stderr need not."""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves `JARS` in place of Maven Central; gives the paths that were asked for."""
    for name, content in JARS.items():
        folder = tmp_path / "served" / "org" / "example" / name / "1.0"
        folder.mkdir(parents=True)
        (folder / f"{name}-1.0.jar").write_bytes(content)
    paths: list[str] = []
    handler = partial(Repository, asked=paths, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr("topics.kafka_jars.MAVEN_CENTRAL", f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield paths
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    lines = [f"{hashlib.sha256(content).hexdigest()}  org.example:{name}:1.0" for name, content in JARS.items()]
    path = tmp_path / "jars.lock"
    path.write_text("\n".join(["# a remark", *lines]) + "\n")
    return path


def silent(_: str) -> None:
    """A log for tests that do not look at it."""


def jars_asked(asked: list[str]) -> list[str]:
    return sorted(path for path in asked if path.endswith(".jar"))


def test_a_second_start_asks_the_network_for_nothing(tmp_path: Path, lock: Path, asked: list[str]) -> None:
    said: list[str] = []
    first = class_path(said.append, tmp_path / "cache", lock)
    assert [Path(path).read_bytes() for path in first.split(":")] == list(JARS.values())
    assert "once: 12 jars" in said[0]
    asked.clear()
    assert class_path(said.append, tmp_path / "cache", lock) == first
    assert asked == []


def test_of_two_that_fetch_at_once_one_does(tmp_path: Path, lock: Path, asked: list[str]) -> None:
    with ThreadPoolExecutor(2) as both:
        fetched = list(both.map(lambda _: class_path(silent, tmp_path / "cache", lock), range(2)))
    assert fetched[0] == fetched[1]
    assert len(jars_asked(asked)) == len(set(jars_asked(asked))) == 12


def test_an_interrupted_fetch_goes_on_where_it_stood(tmp_path: Path, lock: Path, asked: list[str]) -> None:
    paths = class_path(silent, tmp_path / "cache", lock).split(":")
    os.unlink(paths[3])
    asked.clear()
    class_path(silent, tmp_path / "cache", lock)
    assert jars_asked(asked) == ["/org/example/part3/1.0/part3-1.0.jar"]


@pytest.mark.usefixtures("asked")
def test_a_fetched_jar_that_is_not_the_pinned_one_is_refused_and_not_kept(tmp_path: Path, lock: Path) -> None:
    served = tmp_path / "served" / "org" / "example" / "part5" / "1.0" / "part5-1.0.jar"
    served.write_bytes(b"something else")
    with pytest.raises(BrokerError, match=r"not the pinned org\.example:part5:1\.0.*SHA-256"):
        class_path(silent, tmp_path / "cache", lock)
    kept = tmp_path / "cache" / f"kafka-{KAFKA_VERSION}"
    assert not (kept / "part5-1.0.jar").exists()
    assert not list(kept.glob(".staging-*"))


@pytest.mark.usefixtures("asked")
def test_a_jar_that_changed_in_the_cache_is_refused(tmp_path: Path, lock: Path) -> None:
    path = Path(class_path(silent, tmp_path / "cache", lock).split(":")[7])
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(BrokerError, match=r"part7-1\.0\.jar is not the pinned.*delete the file"):
        class_path(silent, tmp_path / "cache", lock)


def test_a_first_fetch_without_network_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: Path
) -> None:
    monkeypatch.setattr("topics.kafka_jars.MAVEN_CENTRAL", "http://127.0.0.1:1/maven2")
    with pytest.raises(BrokerError, match=r"needs the network.*NAMEFREE_BOOTSTRAP"):
        class_path(silent, tmp_path / "cache", lock)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, lock: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokerError, match="NAMEFREE_CACHE"):
        class_path(silent, tmp_path / "file", lock)


def test_the_lock_pins_the_roots_and_no_artifact_twice() -> None:
    jars = read_lock()
    artifacts = [jar.coordinate.rsplit(":", 1)[0] for jar in jars]
    assert set(ROOTS) <= {jar.coordinate for jar in jars}
    assert len(artifacts) == len(set(artifacts))
    kafka = [jar for jar in jars if jar.coordinate.startswith("org.apache.kafka:")]
    assert {jar.coordinate.rsplit(":", 1)[1] for jar in kafka} == {KAFKA_VERSION}
    assert Jar("0", "org.apache.kafka:kafka_2.13:4.3.0").name == "kafka_2.13-4.3.0.jar"


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"NAMEFREE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/namefree"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/namefree"),
        ({}, "/home/me/.cache/namefree"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NAMEFREE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(folder)
