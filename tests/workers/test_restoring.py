"""Partitions of the aggregator restored from a real broker: all together, or given up, or refused."""

import time

import pytest

from tests.conftest import Broker
from tests.workers.aggregating import Feeder, decision, outcome
from topics.errors import WorkerError
from topics.registry import DECISIONS, OUTCOMES, create_topics
from topics.settings import Settings
from workers.fold_store import FoldWriter, encode_fold, latest_folds
from workers.folding import PartitionFold
from workers.restoring import Abandoned, Restoration, read_records

HOUR_MS = 3_600_000
GROUP = "aggregators"
PARTITIONS = (0, 1, 2)


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    found = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(found, partitions=len(PARTITIONS), replication=1)
    return found


def write_folds(settings: Settings) -> dict[int, PartitionFold]:
    """Folds all that is there, partition by partition, and writes the folds as an aggregator does."""
    folds = {p: PartitionFold(p) for p in PARTITIONS}
    for topic in (DECISIONS, OUTCOMES):
        for record in read_records(settings, topic):
            folds[record.partition].take(record)
    for p, fold in folds.items():
        FoldWriter(settings, GROUP, p).write(
            [encode_fold(one) for one in fold.changed(int(time.time() * 1000))], []
        )
    return folds


def restored(settings: Settings) -> dict[int, PartitionFold]:
    return Restoration(settings, GROUP).restore(PARTITIONS, 60, HOUR_MS)


def test_all_partitions_come_back_with_their_counts_places_and_what_waits(settings: Settings) -> None:
    feeder = Feeder(settings)
    feeder.decide([decision(i) for i in range(300)])
    feeder.answer([outcome(i) for i in range(0, 300, 2)])
    folds = write_folds(settings)
    feeder.decide([decision(i) for i in range(300, 320)])
    found = restored(settings)
    for p, fold in folds.items():
        assert found[p].statistics() == fold.statistics()
        assert (found[p].positions, found[p].waiting) == (fold.positions, fold.waiting)
        assert (found[p].dirty, found[p].refused) == (set(), [])
    assert sum(fold.waiting for fold in found.values()) == 150


def test_of_empty_topics_nothing_is_known(settings: Settings) -> None:
    assert [fold.statistics() for fold in restored(settings).values()] == [{}, {}, {}]
    assert latest_folds(settings) == []


def test_it_is_given_up_in_the_middle_once_nobody_wants_it(settings: Settings) -> None:
    feeder = Feeder(settings)
    feeder.decide([decision(i) for i in range(100)])
    write_folds(settings)
    asked: list[int] = []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) < 50

    with pytest.raises(Abandoned):
        Restoration(settings, GROUP, wanted).restore(PARTITIONS, 60, HOUR_MS)
    assert len(asked) == 50


def test_a_source_that_ends_before_what_was_read_of_it_was_made_anew(settings: Settings) -> None:
    fold = PartitionFold(1)
    feeder = Feeder(settings)
    feeder.decide([decision(i) for i in range(100)])
    for record in read_records(settings, DECISIONS):
        if record.partition == 1:
            fold.take(record)
    fold.positions[DECISIONS.name] += 1_000
    FoldWriter(settings, GROUP, 1).write([encode_fold(one) for one in fold.changed(1)], [])
    with pytest.raises(WorkerError, match=r"decisions\[1\] ends at .* but group aggregators has folded it up to"):
        restored(settings)
