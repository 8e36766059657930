"""A trainer that is killed between writing its candidate and publishing it: the next one is whole."""

import multiprocessing
import signal
from pathlib import Path

from model.data import Row
from tests.conftest import Broker
from tests.workers.test_trainer import options, write_corpus
from topics.events import SkillCard
from topics.registry import create_topics
from topics.settings import Settings
from workers.catalogue import load_catalogue
from workers.cycle_options import CycleOptions
from workers.failpoints import arm
from workers.release_store import read_whole
from workers.releases import all_releases, current_release
from workers.trainer import run_cycle

PATIENCE_S = 120  # for a process to import the networks and train on a hundred rows, on a busy machine


def cycle(settings: Settings, chosen: CycleOptions, points: str) -> None:
    """The trainer's process."""
    arm(points)
    run_cycle(settings, chosen)


def test_a_killed_trainer_serves_nothing_and_the_next_one_publishes(
    broker: Broker,
    topic_prefix: str,
    tmp_path: Path,
    small_cards: list[SkillCard],
    small_rows: list[Row],
    small_dev: list[Row],
) -> None:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=2)
    corpus = write_corpus(tmp_path / "corpus", small_cards, small_rows[:100], small_dev[:40])
    chosen = options(tmp_path, corpus)
    load_catalogue(settings, small_cards)
    process = multiprocessing.get_context("spawn").Process(
        target=cycle, args=(settings, chosen, "trainer.after_bundle=kill")
    )
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    assert current_release(settings) is None
    assert all_releases(settings) == []

    result = run_cycle(settings, chosen)
    serving = current_release(settings)
    assert result.published
    assert serving is not None
    assert serving.release == result.release
    assert read_whole(Path(serving.bundle)).digest == serving.digest
    assert [one.release for one in all_releases(settings)] == [result.release]
