"""The statistics topic held against a plain fold of decisions and outcomes, cell by cell."""

import threading
from collections.abc import Iterator

from model.statistics import Statistics
from tests.faults.rubbish import is_rubbish
from tests.workers.aggregating import settled
from topics.kafka import read_all
from topics.registry import DECISIONS, OUTCOMES, STATISTICS, topic_name
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.aggregator_process import run_aggregator
from workers.fold_store import newest_of
from workers.folding import fold_records
from workers.records import Record


def cells_that_differ(settings: Settings, instance: str = "") -> int:
    """How many cells, bucket by partition, are not those of a plain fold; an aggregator catches up first, which
    takes the place of the one called `instance`."""
    options = AggregatorOptions(instance=instance, metrics_port=0, until_idle_s=3.0)
    run_aggregator(settings, options, threading.Event(), lambda _: None)
    messages = read_all(settled(settings, STATISTICS), topic_name(settings, STATISTICS))
    folds = newest_of(message for message in messages if not is_rubbish(message))
    kept = {(fold.bucket, fold.partition): Statistics.from_fold(fold) for fold in folds}
    plain = fold_records(_records(settings))
    return sum(kept.get(cell) != plain.get(cell) for cell in kept.keys() | plain.keys())


def _records(settings: Settings) -> Iterator[Record]:
    for topic in (DECISIONS, OUTCOMES):
        for message in read_all(settings, topic_name(settings, topic)):
            place = message.partition() or 0, message.offset() or 0
            yield Record(topic.name, *place, message.timestamp()[1], message.key(), message.value())
