"""How long a partition takes to restore after a month, with old hours rolled up and without: `python
-m benchmarks.roll_up [--days 30]`.

Runs its own broker, fills both topics of one partition with decisions of 20 candidates and their outcomes, each
with the record time of its hour, lets an aggregator fold them, and restores what it left.
"""

import random
import threading
import time
from unittest.mock import patch

import click
from confluent_kafka.admin import NewTopic

from benchmarks.aggregator import pair
from topics import codec
from topics.broker import embedded_broker
from topics.kafka import admin_client, producer, read_all
from topics.registry import DECISIONS, OUTCOMES, STATISTICS, create_topics, topic_name
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.aggregator_process import run_aggregator
from workers.console import figures, print_json
from workers.fold_store import latest_folds, read_statistics
from workers.restoring import Restoration

HOUR_MS = 3_600_000
MOST_RUNS = 5
OPTIONS = AggregatorOptions(metrics_port=0, until_idle_s=10.0)


def create(settings: Settings) -> None:
    """Topics of one partition that keep what is a month old."""
    admin, kept = admin_client(settings), {"retention.ms": "-1"}
    names = [topic_name(settings, topic) for topic in (DECISIONS, OUTCOMES)]
    for made in admin.create_topics([NewTopic(name, 1, 1, config=kept) for name in names]).values():
        made.result()
    create_topics(settings, 1, 1)


def fill(settings: Settings, days: int, an_hour: int, skills: int) -> None:
    """Sends so many decisions an hour over the last days, and an outcome for each."""
    rng, client = random.Random(7), producer(settings)  # noqa: S311  # seeded test data, no secret
    begin_ms = int(time.time() * 1000) - days * 24 * HOUR_MS
    for i in range(days * 24 * an_hour):
        at_ms = begin_ms + i * HOUR_MS // an_hour
        decision, outcome = pair(rng, i, skills, at_ms)
        for name, value in (
            (topic_name(settings, DECISIONS), codec.encode(decision)),
            (topic_name(settings, OUTCOMES), codec.encode(outcome)),
        ):
            client.produce(name, value, decision.customer_id, timestamp=at_ms)
        if i % 1_000 == 0:
            client.flush()
    client.flush()


def fold_all(settings: Settings, pairs: int) -> None:
    """Aggregates what is there: again where a group that was lost for a while looked like the end of it."""
    for _ in range(MOST_RUNS):
        run_aggregator(settings, OPTIONS, threading.Event(), lambda _: None)
        known = read_statistics(settings).statistics
        if (known.decisions, known.outcomes) == (pairs, pairs):
            return
    raise click.ClickException(f"folded {known.decisions} decisions and {known.outcomes} outcomes of {pairs}")


def measure(settings: Settings, pairs: int) -> dict[str, float]:
    """Folds what is there, and restores it."""
    fold_all(settings, pairs)
    restoration = Restoration(settings, f"{settings.prefix}{OPTIONS.group}")
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    restoration.restore([0], OPTIONS.bucket_minutes, OPTIONS.window_ms)
    took_s, took_cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
    newest = {
        message.key(): len(message.value() or b"")
        for message in read_all(settings, topic_name(settings, STATISTICS))
    }
    return {
        "folds": len(latest_folds(settings)),
        "mb": sum(newest.values()) / 1e6,
        "restored_s": took_s,
        "restored_cpu_s": took_cpu_s,
    }


@click.command()
@click.option("--days", default=30, show_default=True)
@click.option("--an-hour", default=40, show_default=True, help="Decisions an hour.")
@click.option("--skills", default=7_000, show_default=True)
def main(days: int, an_hour: int, skills: int) -> None:
    found: dict[str, float] = {}
    totals = set()
    with embedded_broker() as broker:
        for name in ("rolled_up", "by_the_hour"):
            settings = Settings(bootstrap=broker.bootstrap, prefix=f"{name}-")
            create(settings)
            fill(settings, days, an_hour, skills)
            if name == "rolled_up":
                measured = measure(settings, days * 24 * an_hour)
            else:
                with patch("workers.rolling.taken_up_by", lambda bucket, *_: bucket):
                    measured = measure(settings, days * 24 * an_hour)
            found |= {f"{name}_{what}": figure for what, figure in measured.items()}
            totals.add(read_statistics(settings).statistics.version())
            click.echo(figures(found, 2), err=True)
    if len(totals) != 1:
        raise click.ClickException("the counts differ")
    print_json({"days": days, "decisions_an_hour": an_hour, "skills": skills, **found})


if __name__ == "__main__":
    main()
