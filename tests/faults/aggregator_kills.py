"""An aggregator killed again and again around its writes, while decisions and outcomes flow."""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tests.faults.child import Start, run
from tests.faults.fleet import FORKS
from tests.faults.folds import cells_that_differ
from tests.faults.plan import AGGREGATING
from tests.faults.running import BROKER, PARTITIONS
from tests.faults.verdict import CRASHED, TRACEBACK
from tests.workers.aggregating import PATIENCE_S, traffic_on
from topics.broker import embedded_broker
from topics.registry import create_topics
from topics.settings import Settings
from workers.aggregator import AggregatorOptions

INSTANCE = "aggregator"  # the same after each kill: its successor takes its place at once
WRITE_EVERY_S = 0.1


class KillsResult(Struct, kw_only=True):
    """What became of the statistics. `wrong`: all zeros where they are those of an uninterrupted run."""

    seed: int
    seconds: float
    decided: int  # decisions sent, each with an outcome and some with two
    kills: dict[str, int]  # by place
    wrong: dict[str, int]

    def is_clean(self) -> bool:
        return not any(self.wrong.values())


def run_kills(seed: int, kills: int, folder: Path, say: Callable[[str], None] = lambda _: None) -> KillsResult:
    """`kill_again` on a broker of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with embedded_broker(BROKER) as broker:
        return kill_again(Settings(bootstrap=broker.bootstrap), seed, kills, folder, say)


def kill_again(
    settings: Settings, seed: int, kills: int, folder: Path, say: Callable[[str], None] = lambda _: None
) -> KillsResult:
    """`kills` aggregators, each killed at a drawn passing of a drawn place; `folder` takes their logs."""
    start_s, draw, done = time.monotonic(), random.Random(f"kills {seed}"), Counter[str]()
    create_topics(settings, partitions=PARTITIONS)
    with traffic_on(settings) as sent:
        for number in range(kills):
            point = f"aggregator.{draw.choice(AGGREGATING)}=kill@{draw.randint(1, 2 * PARTITIONS)}"
            if _killed_at(settings, point, folder / f"worker-{number:04d}.log"):
                done[point.partition("=")[0]] += 1
            say(f"{number + 1:>4} of {kills}  {sent[0]:>9,} decided  {point}")
    say("the statistics are held against a plain fold")
    logs = "".join(log.read_text(errors="replace") for log in folder.glob("worker-*.log"))
    wrong = {
        "cells of the statistics that differ": cells_that_differ(settings, INSTANCE),
        "aggregators that were not killed": kills - done.total(),
        "aggregators that an exception ended": logs.count(CRASHED),
        "tracebacks in the logs": logs.count(TRACEBACK),
    }
    return KillsResult(
        seed=seed,
        seconds=round(time.monotonic() - start_s, 1),
        decided=sent[0],
        kills=dict(sorted(done.items())),
        wrong=wrong,
    )


def _killed_at(settings: Settings, point: str, log: Path) -> bool:
    """Whether an aggregator came to `point`, and was killed there."""
    options = AggregatorOptions(instance=INSTANCE, metrics_port=0, write_every_s=WRITE_EVERY_S)
    process = FORKS.Process(target=run, args=(Start(settings=settings, options=options, log=log, points=point),))
    process.start()
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
        return False
    return process.exitcode == -signal.SIGKILL
