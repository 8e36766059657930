"""Puts an aggregator together: topics and group looked at, metrics served; then its loop."""

import asyncio
import logging
import threading
from collections.abc import Callable

from confluent_kafka import KafkaException
from prometheus_client import CollectorRegistry

from topics.errors import BrokerError, WorkerError
from topics.kafka import REACH_TIMEOUT_S, admin_client, is_forbidden, partitions_of, said
from topics.registry import DEAD_LETTERS, DECISIONS, OUTCOMES, STATISTICS, topic_name
from topics.settings import Settings
from workers.aggregator import Aggregator, AggregatorOptions, Write
from workers.metrics import AggregatorMetrics, serve_metrics

log = logging.getLogger("namefree.aggregator")


def check_partitions(settings: Settings) -> None:
    """Raises WorkerError unless decisions, outcomes and statistics have equally many partitions, and BrokerError
    where one of them, or the dead letters, is missing."""
    partitions_of(settings, topic_name(settings, DEAD_LETTERS))
    topics = (DECISIONS, OUTCOMES, STATISTICS)
    counts = {
        topic_name(settings, topic): len(partitions_of(settings, topic_name(settings, topic))) for topic in topics
    }
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise WorkerError(f"these topics must have equally many partitions, but have: {listed}")


def check_group(settings: Settings, group: str) -> None:
    """Raises BrokerError where the group may not be looked at: faust would try to join it in silence."""
    admin = admin_client(settings)
    try:
        admin.describe_consumer_groups([group], request_timeout=REACH_TIMEOUT_S)[group].result()
    except KafkaException as error:
        if is_forbidden(error.args[0]):  # a group that is not there yet is no error
            raise BrokerError(f"the group {group} cannot be joined: {said(error.args[0])}") from error


def run_aggregator(
    settings: Settings, options: AggregatorOptions, stop: threading.Event, report: Callable[[Write], None]
) -> None:
    """Runs an aggregator until `stop` is set. Raises NamefreeError where it cannot go on."""
    check_partitions(settings)
    check_group(settings, f"{settings.prefix}{options.group}")
    metrics = AggregatorMetrics(CollectorRegistry())
    aggregator: list[Aggregator] = []  # made within its event loop; the probes look in here
    with serve_metrics(
        metrics.registry,
        options.metrics_host,
        options.metrics_port,
        live=lambda: not aggregator or aggregator[0].is_live(),
        ready=lambda: bool(aggregator) and aggregator[0].is_ready(),
    ) as port:
        log.info("aggregating; metrics at http://%s:%d/metrics", options.metrics_host, port)

        async def aggregate() -> None:
            aggregator.append(Aggregator(settings, options, metrics, report))
            await aggregator[0].run(stop)

        asyncio.run(aggregate())
