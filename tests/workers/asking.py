"""What tests of asking share: a small catalogue in a sandbox, questions to it, a clock to set, raw servers."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from prometheus_client import CollectorRegistry

from model.fulfilment import Question
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility
from workers.asking_options import AskOptions
from workers.metrics import RouterMetrics
from workers.sandbox import Fault, Sandbox

INTENTS = (Intent(name="go", slots=(Slot(name="where", values=("home", "work")), Slot(name="when"))),)
HOME = (("where", "home"),)
YES_HOME = Ability("YES", {"where": SlotAbility("YES", "YES")})
PATIENCE_S = 30.0


class Clock:
    """A clock to set by hand, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def cards(*skills: str) -> dict[str, SkillCard]:
    """Cards that declare the intent `go`."""
    return {skill: SkillCard(skill_id=skill, name=skill, intents=INTENTS) for skill in skills}


@contextmanager
def sandbox(**faults: str) -> Iterator[Sandbox]:
    """One skill for each name, with that fault: `sandbox(good="honest", bad="silent")`."""
    with Sandbox(cards(*faults), {skill: Fault(kind) for skill, kind in faults.items()}) as skills:
        yield skills


def question(skills: Sandbox, skill: str, value: str = "home") -> Question:
    return Question(skill, skills.endpoint(skill), "go", (("where", value),))


def local(deadline_ms: float = 5_000.0, **options: object) -> AskOptions:
    """Options that let the sandbox be asked. The deadline is long where the test is not about it."""
    return AskOptions(deadline_ms=deadline_ms, allow_http=True, allow_private=True, **options)  # type: ignore[arg-type]


def fresh_metrics() -> RouterMetrics:
    return RouterMetrics(CollectorRegistry())


@contextmanager
def raw_server(answer: bytes | None, accept: bool = True) -> Iterator[int]:
    """A port on loopback that sends `answer` whatever it is asked, and closes; None resets the connection.

    Without `accept` connections are made by the system, and nobody is there.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0.05)
        stop = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, answer, stop))
        if accept:
            thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            if accept:
                thread.join(PATIENCE_S)


def _serve(server: socket.socket, answer: bytes | None, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(1.0)
            connection.recv(65_536)
            if answer is None:  # closed with a reset: what is left to send is thrown away
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            else:
                _send(connection, answer)


def _send(connection: socket.socket, answer: bytes) -> None:
    try:
        connection.sendall(answer)
    except OSError:  # the other side has had enough
        return


def http_answer(body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP answer as bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
