"""Whether memory stays: a router and an aggregator at full speed, their resident memory every second.

    python -m benchmarks.soak --minutes 30 [--bundle BUNDLE --utterances FILE] [--out build/soak.json]

A broker of its own, topics that keep a minute or two, customers who ask as fast as decisions come and tell what
became of each. The first minutes warm up: five, or half the run where that is less. What comes after must not grow
by more than 2 %, by the line through all samples and by the largest mean of a minute against the first; else the
exit code is 1. Give it a machine without other work: what waits for an outcome follows the rate, and so does
memory. Without a bundle one is trained on the sample marketplace first, which takes a minute.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import numpy as np
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from model.bundle import write_bundle
from model.data import Row, read_rows, read_skills, split_path
from model.pipeline import Recipe, train
from model.sample import SAMPLE_DIR
from topics.broker import embedded_broker
from topics.kafka import admin_client
from topics.registry import TOPICS, create_topics, topic_name
from topics.settings import Settings
from workers import console
from workers.children import Child
from workers.crowd import Plan
from workers.customers import simulate
from workers.releases import publish

MOST_GROWTH = 0.02
WARM_UP_MINUTES = 5.0
EVERY_S = 1.0
MINUTE = int(60 / EVERY_S)  # samples
BROKER = {"log.retention.check.interval.ms": "10000", "log.segment.delete.delay.ms": "1000"}
KEPT = {"retention.ms": "60000", "segment.ms": "30000", "segment.bytes": str(32 * 1024 * 1024)}


@dataclass
class Samples:
    """Of one worker: seconds since the start and resident bytes."""

    at_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)

    def growth(self, warm_up_s: float) -> dict[str, float]:
        """What there was after the warm-up, in MB, and how it grew from there, as shares of it."""
        after = [(at, rss / 1e6) for at, rss in zip(self.at_s, self.rss, strict=True) if at >= warm_up_s]
        at_s, mb = (np.array(column) for column in zip(*after, strict=True))
        slope, start = np.polyfit(at_s - at_s[0], mb, 1)
        minutes = [float(mb[at : at + MINUTE].mean()) for at in range(0, len(mb) - MINUTE + 1, MINUTE)]
        return {
            "start_mb": round(float(start), 1),
            "end_mb": round(float(mb[-1]), 1),
            "most_mb": round(float(mb.max()), 1),
            "growth_by_line": round(float(slope * (at_s[-1] - at_s[0]) / start), 4),
            "growth_by_minutes": round(max(minutes) / minutes[0] - 1, 4),
        }


def resident_bytes(pid: int) -> int:
    """VmRSS of a process, as Linux tells it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def keep_little(settings: Settings) -> None:
    """The topics that would grow all the time let go of what is older than a minute or two."""
    names = [topic_name(settings, topic) for topic in TOPICS if topic.cleanup == "delete"]
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in KEPT.items()
    ]
    changes = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name in names]
    admin = admin_client(settings)
    for future in admin.incremental_alter_configs(changes).values():
        future.result()


def small_bundle(folder: Path) -> Path:
    recipe = Recipe()
    recipe = msgspec.structs.replace(recipe, training=msgspec.structs.replace(recipe.training, epochs=2))
    cards, rows = read_skills(SAMPLE_DIR), read_rows(split_path(SAMPLE_DIR, "train"))
    write_bundle(train(cards, rows, recipe, lambda _step, _note: None), folder)
    return folder


def soak(settings: Settings, children: Sequence[Child], rows: list[Row], minutes: float) -> dict[str, Samples]:
    """Asks for so long and looks at the workers meanwhile. Raises NamefreeError where one dies."""
    samples = {child.name: Samples() for child in children}
    began_s, enough = time.monotonic(), threading.Event()

    def look() -> None:
        while not enough.wait(EVERY_S - (time.monotonic() - began_s) % EVERY_S):
            for child in children:
                child.check("the end of the soak")
                samples[child.name].at_s.append(time.monotonic() - began_s)
                samples[child.name].rss.append(resident_bytes(child.pid))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        with console.progress("customers", int(minutes * 60)) as advance:
            plan = Plan(run="soak", duration_s=minutes * 60, patience_s=120.0)
            summary = simulate(settings, rows, plan, lambda _done, note="": advance(_since(began_s), note))
    finally:
        enough.set()
        looking.join()
    console.err.print(f"{summary.decided:,} decisions, {summary.decisions_per_s:,.0f} a second")
    return samples


def _since(began_s: float) -> int:
    return int(time.monotonic() - began_s)


def until_ready(children: Sequence[Child]) -> None:
    for child in children:
        while not child.is_ready():
            child.check("it to be ready")
            time.sleep(0.2)


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--utterances", type=click.Path(path_type=Path, exists=True))
@click.option("--out", default=Path("build/soak.json"), show_default=True, type=click.Path(path_type=Path))
def main(minutes: float, bundle: Path | None, utterances: Path | None, out: Path) -> None:
    console.start_logging("warning")
    warm_up_s = 60 * min(WARM_UP_MINUTES, minutes / 2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = bundle or small_bundle(folder / "bundle")
        broker = stack.enter_context(embedded_broker(BROKER))
        settings = Settings(bootstrap=broker.bootstrap)
        create_topics(settings)
        keep_little(settings)
        publish(settings, bundle, folder / "store", "", {}, "soak")
        children = [
            stack.enter_context(Child.start(settings, folder, "route")),
            # short: what waits in it, and a minute's grace longer, is memory by design and follows the rate
            stack.enter_context(Child.start(settings, folder, "aggregate", "--join-window", "0.1")),
        ]
        until_ready(children)
        rows = list(read_rows(utterances or split_path(SAMPLE_DIR, "train")))
        samples = soak(settings, children, rows, minutes)
    found = {name: one.growth(warm_up_s) for name, one in samples.items()}
    grown = [
        name for name, one in found.items() if max(one["growth_by_line"], one["growth_by_minutes"]) > MOST_GROWTH
    ]
    columns = list(next(iter(found.values())))
    console.print_table(
        f"resident memory, {minutes:g} minutes",
        ["worker", *columns],
        [[name, *one.values()] for name, one in found.items()],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    told = {"minutes": minutes, "warm_up_s": warm_up_s, "workers": found, "grown": grown}
    out.write_bytes(
        msgspec.json.format(msgspec.json.encode(told | {"samples": {n: vars(s) for n, s in samples.items()}}))
    )
    sys.exit(1 if grown else 0)


if __name__ == "__main__":
    main()
