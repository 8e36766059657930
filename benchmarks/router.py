"""Decisions a second of one router, exactly-once, sharing the machine with the broker and the customers.

    python -m benchmarks.router --bundle BUNDLE --utterances FILE [--count 60000]

Links are published first; then simulated customers ask as fast as decisions come. The rate is told twice: by
the router's own metrics, between the first and the last full tenth of the run, and by counting the topic.
"""

import tempfile
import time
from pathlib import Path

import click
import msgspec
import orjson

from model.bundle import read_manifest
from model.data import read_rows
from topics.broker import embedded_broker
from topics.kafka import read_all
from topics.registry import DECISIONS, create_topics, topic_name
from topics.settings import Settings
from workers import console
from workers.children import Child
from workers.crowd import Plan
from workers.customers import simulate
from workers.releases import publish

BATCHES = "namefree_batch_size_sum"
STAGE = 'namefree_stage_seconds_sum{{stage="{}"}}'
STAGES = ("decode", "decide", "produce", "commit")


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--utterances", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=60_000, show_default=True)
def main(bundle: Path, utterances: Path, count: int) -> None:
    """Measure one router on a broker of its own."""
    console.start_logging("info")
    with embedded_broker() as broker, tempfile.TemporaryDirectory() as folder:
        settings = Settings(bootstrap=broker.bootstrap)
        create_topics(settings)
        publish(settings, bundle, Path(folder) / "store", "", {}, "benchmark")
        with Child.start(settings, Path(folder), "route") as router:
            found = measure(settings, router, utterances, count)
    console.print_json({"skills": read_manifest(bundle).skills, **found})


def measure(settings: Settings, router: Child, utterances: Path, count: int) -> dict[str, object]:
    """Asks `count` utterances and gives both rates."""
    while not router.is_ready():
        router.check("it to be ready")
        time.sleep(0.2)
    seen: list[tuple[float, float]] = []

    def look(done: int, note: str = "") -> None:
        if not seen or time.monotonic() - seen[-1][0] > 1.0:
            seen.append((time.monotonic(), router.metric(BATCHES)))

    summary = simulate(settings, read_rows(utterances), Plan(run="bench", count=count, act=False), look)
    steady = [(at, total) for at, total in seen if 0.1 * count < total < 0.9 * count]
    (start_s, start), (end_s, end) = steady[0], steady[-1]
    ids = [
        orjson.loads(message.value() or b"{}")["utterance_id"]
        for message in read_all(settings, topic_name(settings, DECISIONS))
    ]
    return {
        "asked": summary.asked,
        "decisions_on_topic": len(ids),
        "distinct_on_topic": len(set(ids)),
        "decisions_in_metrics": router.metric(BATCHES),
        "decisions_per_s_by_metrics": round((end - start) / (end_s - start_s)),
        "decisions_per_s_by_topic": round(summary.decisions_per_s),
        "stage_seconds": {stage: round(router.metric(STAGE.format(stage)), 2) for stage in STAGES},
        "latency_ms_at_full_queue": msgspec.to_builtins(summary.latency_ms),
    }


if __name__ == "__main__":
    main()
