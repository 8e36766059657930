"""Workers that the demo and an experiment start as processes of their own, as an operator would."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from topics.errors import WorkerError
from topics.kafka_node import free_port
from topics.settings import Settings

HOST = "127.0.0.1"
LEAVE_S = 30.0  # to finish a batch and leave the group
TAIL_LINES = 15
LOOK_S = 0.3


@dataclass(frozen=True)
class Child:
    """A running worker, its metrics' port and its log."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @classmethod
    @contextmanager
    def start(cls, settings: Settings, folder: Path, name: str, *arguments: str) -> Iterator["Child"]:
        """Runs `namefree NAME ARGUMENTS` while the body does, then asks it to leave."""
        port = free_port(HOST)
        log = folder / f"{name}.log"
        command = [sys.executable, "-m", "workers", name, "--metrics-port", str(port), *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment(settings), stdout=file, stderr=file)
            try:
                yield cls(name, process, port, log)
            finally:
                process.terminate()
                try:
                    process.wait(LEAVE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def runs(self) -> bool:
        """Whether it is still the process that was started."""
        return self.process.poll() is None

    def check(self, what: str) -> None:
        """Raises WorkerError where it has ended while we waited for `what`."""
        if not self.runs():
            code = self.process.returncode
            raise WorkerError(
                f"`namefree {self.name}` ended with code {code} while waiting for {what}\n{self._tail()}"
            )

    def late(self, what: str, seconds: float) -> WorkerError:
        """The error for a wait that took too long."""
        return WorkerError(f"waited {seconds:.0f} s in vain for {what}\n{self._tail()}")

    def is_ready(self) -> bool:
        """Whether it says that it can take work."""
        return self._page("ready") is not None

    def serves(self, release: str) -> bool:
        """Whether its metrics say that it serves `release`."""
        return f'namefree_release_info{{release="{release}"}} 1.0' in (self._page("metrics") or "")

    def metric(self, line: str) -> float:
        """The value of the metric `line` (name and labels as its page shows them); 0 while it is not there."""
        found = (row.rpartition(" ") for row in (self._page("metrics") or "").splitlines())
        return next((float(value) for name, _, value in found if name == line), 0.0)

    def _page(self, name: str) -> str | None:
        """A page of its metrics' port; None while it is starting or says no. `check` tells if it has died."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/{name}", timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            return None

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def wait_for(condition: Callable[[], bool], what: str, children: Sequence[Child], seconds: float) -> None:
    """Waits for `condition`. Raises WorkerError, with the end of a log, where a child dies meanwhile or `seconds`
    go by."""
    ends_s = time.monotonic() + seconds
    while not condition():
        for child in children:
            child.check(what)
        if time.monotonic() > ends_s:
            raise children[0].late(what, seconds)
        time.sleep(LOOK_S)


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which a child finds the same cluster."""
    kafka = {f"NAMEFREE_KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.kafka.items()}
    return {**os.environ, "NAMEFREE_BOOTSTRAP": settings.bootstrap, "NAMEFREE_PREFIX": settings.prefix, **kafka}
