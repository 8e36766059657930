"""The embedded broker: what it leaves behind, and what it says when it cannot."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from topics.broker import BrokerState, broker_down, broker_status, broker_up, embedded_broker
from topics.errors import BrokerError, UsageError
from topics.folders import home_dir
from topics.kafka_node import free_port, is_node_of

HOST = "127.0.0.1"


def admin_of(bootstrap: str) -> AdminClient:
    config: dict[str, Any] = {"bootstrap.servers": bootstrap, "error_cb": lambda _: None}
    return AdminClient(config)


def topics_of(bootstrap: str) -> set[str]:
    found = admin_of(bootstrap).list_topics(timeout=20).topics
    return {name for name in found if not name.startswith("__")}


def make_topic(bootstrap: str, name: str) -> None:
    admin = admin_of(bootstrap)  # kept until the answer is here: the client ends with its last reference
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(20)


@pytest.fixture
def user_broker() -> Iterator[None]:
    """Ends what the test started through `broker_up`, however the test ends."""
    yield
    broker_down(grace_s=0)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield int(server.getsockname()[1])


def test_it_keeps_port_and_data_over_a_kill_and_leaves_neither_process_nor_folder() -> None:
    with embedded_broker() as broker:
        first, bootstrap = broker.pid, broker.bootstrap
        make_topic(bootstrap, "kept")
        broker.kill()
        assert not is_node_of(first, broker.folder)
        broker.restart()
        assert broker.bootstrap == bootstrap
        assert broker.pid != first
        assert topics_of(bootstrap) == {"kept"}
    assert not is_node_of(broker.pid, broker.folder)
    assert not broker.folder.exists()


def test_a_broker_whose_controller_runs_apart_loads_its_groups_once_after_a_kill(wait_until: Any) -> None:
    folder = Path(tempfile.gettempdir())
    before = set(folder.glob("namefree-controller-*"))
    with embedded_broker(controller_apart=True) as broker:
        make_topic(broker.bootstrap, "kept")
        _commit(broker.bootstrap, 7)
        (controller,) = set(folder.glob("namefree-controller-*")) - before
        broker.restart()
        assert topics_of(broker.bootstrap) == {"kept"}
        assert _commit(broker.bootstrap, 8) == 7
        said = (broker.folder / "logs" / "server.log").read_text()
        assert "Finished loading of metadata from __consumer_offsets" in said
        assert "Started unloading" not in said
    wait_until(lambda: not controller.exists(), 60, "the controller's folder is gone")


def _commit(bootstrap: str, offset: int) -> int:
    """Commits for a group, and returns what was committed before."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "group"}
    with closing(Consumer(settings)) as member:
        (place,) = _patiently(lambda: member.committed([TopicPartition("kept", 0)], timeout=60))
        member.commit(offsets=[TopicPartition("kept", 0, offset)], asynchronous=False)
        return int(place.offset)


def _patiently(call: Callable[[], Any]) -> Any:
    """What it returns, once the group has a coordinator."""
    ends_s = time.monotonic() + 60
    while True:
        try:
            return call()
        except KafkaException as error:
            told = error.args[0]  # the client does not call it retriable that a broker lets go of its groups
            waits = told.retriable() or told.code() == KafkaError.NOT_COORDINATOR
            if not waits or time.monotonic() > ends_s:
                raise
            time.sleep(0.1)


def test_process_and_folder_are_gone_after_the_owner_was_killed(wait_until: Any) -> None:
    program = (
        "import signal\n"
        "from topics.broker import embedded_broker\n"
        "with embedded_broker() as broker:\n"
        "    print(broker.pid, broker.folder, flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert is_node_of(int(pid), Path(folder))
        owner.kill()
    wait_until(lambda: not Path(folder).exists(), 60, "the folder is gone")
    assert not is_node_of(int(pid), Path(folder))


def test_a_broker_that_dies_at_start_leaves_the_tail_of_its_log_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(BrokerError, match="died at start") as died,
        embedded_broker({"metric.reporters": "no.Such"}),
    ):
        pass
    assert "no.Such" in str(died.value)
    assert len(str(died.value).splitlines()) <= 17
    assert not list(tmp_path.glob("namefree-broker-*"))


def test_settings_that_kafka_refuses_are_named() -> None:
    with pytest.raises(BrokerError, match=r"log\.retention\.ms"), embedded_broker({"log.retention.ms": "soon"}):
        pass


def test_a_topic_that_nobody_made_is_an_error_and_not_a_new_topic(broker: Any, topic_prefix: str) -> None:
    if broker.kind == "given":
        pytest.skip("the given cluster has its own rules")
    admin = admin_of(broker.bootstrap)
    assert admin.list_topics(topic_prefix + "mistyped", timeout=20).topics[topic_prefix + "mistyped"].error
    assert topic_prefix + "mistyped" not in topics_of(broker.bootstrap)


@pytest.mark.usefixtures("user_broker")
def test_up_status_and_down_go_round_and_the_data_stays(tmp_path: Path) -> None:
    said: list[str] = []
    folder, port = tmp_path / "data", free_port(HOST)
    assert broker_status() is None

    state = broker_up(folder, port, log=said.append)
    make_topic(state.bootstrap, "kept")
    assert (state.host, state.port, state.data_dir) == (HOST, port, str(folder))
    assert broker_status() == state

    assert broker_up(folder, port, log=said.append) == state
    assert "already running" in said[-1]
    with pytest.raises(UsageError, match=f"runs already on {HOST}:{port}"):
        broker_up(folder, free_port(HOST))
    with pytest.raises(UsageError, match="end it first"):
        broker_up(folder, port, fresh=True)

    assert broker_down(log=said.append) == state
    assert "killed" not in said[-1]
    assert broker_status() is None
    assert broker_down() is None

    again = broker_up(folder, port)
    assert topics_of(again.bootstrap) == {"kept"}
    os.kill(again.pid, signal.SIGSTOP)  # it will not hear SIGTERM
    assert broker_down(log=said.append, grace_s=0.2) == again
    assert said[-1] == f"process {again.pid} did not end within 0.2 s: killed"
    assert broker_status() is None


def test_down_never_ends_a_process_that_is_not_the_broker(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        home_dir().mkdir(parents=True)
        state = BrokerState(stranger.pid, HOST, 9092, str(tmp_path), 0)
        (home_dir() / "broker.json").write_bytes(msgspec.json.encode(state))
        assert broker_status() is None
        assert broker_down() is None
        assert stranger.poll() is None
        stranger.kill()


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(BrokerError, match=f"port {taken_port} of {HOST} cannot be taken.*choose another port"):
        broker_up(tmp_path, taken_port)


def test_an_address_that_no_client_can_be_sent_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"0\.0\.0\.0"):
        broker_up(tmp_path, free_port(HOST), host="0.0.0.0")  # noqa: S104 - the refusal is the point


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokerError, match="file/data cannot be written: Not a directory"):
        broker_up(tmp_path / "file" / "data", free_port(HOST))


def test_a_full_disk_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topics.kafka_node.FREE_BYTES", 1 << 62)
    with pytest.raises(BrokerError, match="MiB are free"):
        broker_up(tmp_path, free_port(HOST))


def test_fresh_removes_a_brokers_folder_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("the only copy")
    with pytest.raises(UsageError, match="not a broker's folder"):
        broker_up(tmp_path, free_port(HOST), fresh=True)
    assert (tmp_path / "thesis.tex").exists()
