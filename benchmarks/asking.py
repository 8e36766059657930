"""How long a decision waits for skills' answers, with endpoints of each kind.

    python -m benchmarks.asking [--batches 300] [--deadline-ms 50]

The skills are a sandbox in a process of its own, which shares the machine's cores. Every question is new, so
nothing comes from the cache, and breakers never open but where it is said.
"""

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import numpy as np
import orjson
from prometheus_client import CollectorRegistry

from model.fulfilment import Question
from topics.events import Intent, SkillCard
from workers import console
from workers.asking import SkillAsks
from workers.asking_options import AskOptions
from workers.breakers import FAULTS, Breakers
from workers.metrics import RouterMetrics
from workers.router_process import GARBAGE_OBJECTS
from workers.sandbox import Fault

HONEST = [f"honest{number}" for number in range(200)]
FAULTY = [str(fault) for fault in Fault if fault is not Fault.HONEST]
NEVER = 10**9  # faults in a row that nobody reaches
# name -> (skills asked, questions to each in a batch, faults that open a breaker)
SCENES: dict[str, tuple[list[str], int, int]] = {
    "one honest": (HONEST[:1], 1, NEVER),
    "ten honest": (HONEST[:10], 1, NEVER),
    "one honest, one silent": ([HONEST[0], "silent"], 1, NEVER),
    "ten honest, one of each fault": ([*HONEST[:10], *FAULTY], 1, NEVER),
    "the same with breakers": ([*HONEST[:10], *FAULTY], 1, FAULTS),
    "more than can be asked": (HONEST, 3, NEVER),
}


@click.command()
@click.option("--batches", default=300, show_default=True, help="Of each kind.")
@click.option("--deadline-ms", default=50.0, show_default=True)
def main(batches: int, deadline_ms: float) -> None:
    """Measure `ask`."""
    gc.freeze()  # as the router does when a release is loaded
    gc.set_threshold(GARBAGE_OBJECTS)
    with sandbox() as home:
        console.print_json({name: measure(home, *scene, batches, deadline_ms) for name, scene in SCENES.items()})


@contextmanager
def sandbox() -> Iterator[str]:
    """The address below which each skill has its path."""
    faults = [f"--fault={kind}={kind}" for kind in FAULTY]
    with tempfile.TemporaryDirectory() as folder:
        cards = [
            SkillCard(skill_id=skill, name=skill, intents=(Intent(name="go"),)) for skill in [*HONEST, *FAULTY]
        ]
        lines = b"\n".join(orjson.dumps(msgspec.to_builtins(card)) for card in cards)
        (Path(folder) / "skills.jsonl").write_bytes(lines)
        command = [sys.executable, "-m", "workers", "sandbox", "--data", folder, "--port", "0", *faults]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process.stdout.readline().rpartition("/")[0] if process.stdout else ""
            finally:
                process.terminate()


def measure(
    home: str, skills: Sequence[str], each: int, faults: int, batches: int, deadline_ms: float
) -> dict[str, object]:
    """Milliseconds that `ask` took, and what became of the questions."""
    metrics = RouterMetrics(CollectorRegistry())
    options = AskOptions(deadline_ms=deadline_ms, allow_http=True, allow_private=True)
    took_ms = []
    with SkillAsks(options, metrics, breakers=Breakers(faults)) as asks:
        for batch in range(batches):
            asked = [
                Question(skill, f"{home}/{skill}", "go", (("where", f"{batch} {number}"),))
                for skill in skills
                for number in range(each)
            ]
            began_s = time.perf_counter()
            asks.ask(asked)
            took_ms.append((time.perf_counter() - began_s) * 1000)
    p50, p99 = np.percentile(took_ms, [50, 99]).round(1).tolist()
    found = {"p50_ms": p50, "p99_ms": p99, "most_ms": round(max(took_ms), 1)}
    return {"questions": len(skills) * each, **found, **metrics.told()}


if __name__ == "__main__":
    main()
