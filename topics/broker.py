"""The embedded default: a real Apache Kafka of one node, without anything to install.

Two ways to have it:

- `broker_up`, `broker_status`, `broker_down`: a broker of the user's own, which outlives the command.
- `embedded_broker`: a broker for one `with` block, gone afterwards whatever becomes of the process.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import msgspec

from topics.errors import BrokerError, UsageError
from topics.folders import home_dir
from topics.kafka_node import HEAP_MB, Node, free_port, is_node_of, prepare, wait_until_it_answers

# Kafka moves leadership and closes its logs in 1 to 3 s; what takes longer has lost its way.
GRACE_S = 20.0
CONTROLLER_HEAP_MB = 256
# What the guard is told when there is nothing to end, so that it never kills a number given out again.
NO_PROCESS = 0
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class BrokerState(msgspec.Struct, frozen=True):
    """A broker of the user's own, as its state file tells."""

    pid: int
    host: str
    port: int
    data_dir: str
    started_ms: int  # epoch milliseconds

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"


def broker_up(
    data_dir: Path | None = None,
    port: int = 9092,
    host: str = "127.0.0.1",
    fresh: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> BrokerState:
    """Starts the user's broker unless it runs, and returns once it answers.

    Args:
        data_dir: where its data lives; `broker` in namefree's home folder where none is named.
        port: where clients connect.
        host: the one address that it listens on and is found at; 127.0.0.1 keeps it to this machine.
        fresh: starts with empty topics; what was in the folder is removed.
        log: told what is going on, a line at a time.

    Raises:
        UsageError: another broker of the user runs already, or `fresh` was asked of a running one, or of a
            folder that is no broker's.
        BrokerError: port taken, folder not writable, disk full, jars not to be had, died, never answered.
    """
    folder = (data_dir or home_dir() / "broker").absolute()
    with _one_at_a_time():
        if running := broker_status():
            _must_be_the_same(running, folder, host, port, fresh)
            wait_until_it_answers(Node(folder, host, port), lambda: is_node_of(running.pid, folder))
            log(f"already running on {running.bootstrap}, process {running.pid}")
            return running
        if fresh:
            _remove_data(folder)
        return _start_detached(Node(folder, host, port), log)


def broker_status() -> BrokerState | None:
    """The user's broker, or None where none runs."""
    try:
        state = msgspec.json.decode(_state_file().read_bytes(), type=BrokerState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return state if is_node_of(state.pid, Path(state.data_dir)) else None


def broker_down(log: Callable[[str], None] = lambda _: None, grace_s: float = GRACE_S) -> BrokerState | None:
    """Ends the user's broker: SIGTERM, and SIGKILL where it still runs after `grace_s`. Data stays.

    Returns:
        What was ended, or None where nothing ran.
    """
    with _one_at_a_time():
        state = broker_status()
        if state is not None:
            _end(state, grace_s, log)
        _state_file().unlink(missing_ok=True)
        return state


class EmbeddedBroker:
    """A broker for one `with` block. Made by `embedded_broker`."""

    def __init__(self, node: Node, guard: TextIO, log: Callable[[str], None]) -> None:
        self._node = node
        self._guard = guard  # where the guard reads which process to end
        self._log = log
        self._process = self._start()

    @property
    def bootstrap(self) -> str:
        """`host:port`, the same after a restart."""
        return self._node.bootstrap

    def address(self, protocol: str) -> str:
        """`host:port` of another listener, by its security protocol, the same after a restart."""
        return f"{self._node.host}:{self._node.ports[protocol]}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Its data, settings and logs; removed at the end of the block."""
        return self._node.folder

    def kill(self) -> None:
        """SIGKILL, as a crash of the machine's software would be; returns when the process is gone."""
        self._process.kill()
        self._process.wait()
        self._tell_guard(NO_PROCESS)

    def restart(self) -> None:
        """Starts it again on the same port with the same data; killed first where it runs."""
        self.kill()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = _spawned(self._node, self._log)
        self._tell_guard(process.pid)
        try:
            wait_until_it_answers(self._node, lambda: process.poll() is None)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def _tell_guard(self, pid: int) -> None:
        print(pid, file=self._guard, flush=True)


def _spawned(node: Node, log: Callable[[str], None]) -> subprocess.Popen[bytes]:
    command = prepare(node, log)
    with node.console.open("ab") as console:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the owner, who then ends it in order
        )


@contextmanager
def embedded_broker(
    settings: Mapping[str, str] = NO_SETTINGS,
    heap_mb: int = HEAP_MB,
    log: Callable[[str], None] = lambda _: None,
    protocols: Sequence[str] = (),
    controller_apart: bool = False,
) -> Iterator[EmbeddedBroker]:
    """A broker on a free port of 127.0.0.1 with a temporary folder, for tests and the demo.

    Process and folder are gone after the block, also where the owner is killed with SIGKILL: a guard process
    holds the other end of a pipe, and acts when it closes.

    Args:
        settings: server properties beside or over those of `topics.kafka_node.ONE_NODE`.
        heap_mb: Java's heap, in MiB.
        log: told what is going on, a line at a time.
        protocols: more listeners, each on a free port: `SSL`, `SASL_SSL`, `SASL_PLAINTEXT`. What they ask of a
            client is said in `settings`. The listener without any stays; `bootstrap` is its address.
        controller_apart: the controller is a process of its own, as in production, and stays while the broker is
            killed and restarted. A broker that restarts as its own controller believes for a moment that it still
            leads, begins to load its groups, and begins again: until the second loading is over, Kafka 4.3 and 4.4
            give out group offsets that are old.

    Raises:
        BrokerError: jars not to be had, disk full, died at start, never answered.
    """
    folder = Path(tempfile.mkdtemp(prefix="namefree-broker-"))
    port, ports = free_port("127.0.0.1"), dict[str, int]()
    for protocol in protocols:
        ports[protocol] = free_port("127.0.0.1", port, *ports.values())
    node = Node(folder, "127.0.0.1", port, settings, heap_mb, ports)
    with ExitStack() as stack:
        guard = stack.enter_context(_guarded(folder))
        if controller_apart:
            node = replace(node, controller=stack.enter_context(_controller(node, log)))
        broker = EmbeddedBroker(node, guard, log)
        try:
            yield broker
        finally:
            broker.kill()


@contextmanager
def _controller(broker: Node, log: Callable[[str], None]) -> Iterator[Node]:
    """The controller of `broker`, in a process of its own; whether it came up shows when the broker answers."""
    folder = Path(tempfile.mkdtemp(prefix="namefree-controller-"))
    port = free_port(broker.host, broker.port, *broker.ports.values())
    node = replace(broker, folder=folder, port=port, heap_mb=CONTROLLER_HEAP_MB, ports={}, controls=True)
    with _guarded(folder) as guard:
        process = _spawned(node, log)
        print(process.pid, file=guard, flush=True)
        try:
            yield node
        finally:
            process.kill()
            process.wait()
            print(NO_PROCESS, file=guard, flush=True)


@contextmanager
def _guarded(folder: Path) -> Iterator[TextIO]:
    """Runs the guard of `folder`; leaving the block closes its pipe and waits until the folder is gone."""
    read_end, write_end = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("broker_guard.py")), str(folder)],
        stdin=read_end,
        start_new_session=True,  # a Ctrl-C or a signal to the owner's group does not end the guard with it
    )
    os.close(read_end)
    try:
        with os.fdopen(write_end, "w") as pipe:
            yield pipe
    finally:
        guard.wait()


def _start_detached(node: Node, log: Callable[[str], None]) -> BrokerState:
    command = prepare(node, log)
    # The shell leaves it behind as nobody's child, with its output in a file: it outlives this command.
    started = subprocess.run(
        ["/bin/sh", "-c", 'out="$0"; "$@" </dev/null >>"$out" 2>&1 & echo $!', str(node.console), *command],
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    state = BrokerState(int(started.stdout), node.host, node.port, str(node.folder), time.time_ns() // 1_000_000)
    _state_file().write_bytes(msgspec.json.encode(state))
    log(f"starting Kafka on {node.bootstrap}, process {state.pid}, data in {node.folder}")
    try:
        wait_until_it_answers(node, lambda: is_node_of(state.pid, node.folder))
    except BaseException:
        _end(state, 0.0, log)
        _state_file().unlink(missing_ok=True)
        raise
    return state


def _must_be_the_same(running: BrokerState, folder: Path, host: str, port: int, fresh: bool) -> None:
    if fresh:
        raise UsageError(
            f"the broker on {running.bootstrap} runs with its data; end it first (namefree broker down), "
            "then start a fresh one"
        )
    if (running.data_dir, running.host, running.port) != (str(folder), host, port):
        raise UsageError(
            f"a broker runs already on {running.bootstrap} with its data in {running.data_dir}; "
            "use that one, or end it first (namefree broker down)"
        )


def _remove_data(folder: Path) -> None:
    """Removes what a broker left there, and refuses any folder that holds something else."""
    foreign = folder.exists() and any(folder.iterdir()) and not (folder / "server.properties").exists()
    if foreign:
        raise UsageError(f"{folder} is not a broker's folder: it was not removed; name another")
    shutil.rmtree(folder, ignore_errors=True)


def _end(state: BrokerState, grace_s: float, log: Callable[[str], None]) -> None:
    if is_node_of(state.pid, Path(state.data_dir)):
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
    if not _gone(state, grace_s):
        log(f"process {state.pid} did not end within {grace_s:g} s: killed")
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(state.pid, signal.SIGKILL)
        _gone(state, GRACE_S)


def _gone(state: BrokerState, within_s: float) -> bool:
    ends = time.monotonic() + within_s
    while running := is_node_of(state.pid, Path(state.data_dir)):
        if time.monotonic() > ends:
            break
        time.sleep(0.05)
    return not running


def _state_file() -> Path:
    return home_dir() / "broker.json"


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two `up` at once: the second finds what the first has started."""
    home = home_dir()
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = (home / "broker.lock").open("w")
    except OSError as error:
        raise BrokerError(
            f"{home} cannot be written: {error.strerror}; set NAMEFREE_HOME to another folder"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
