"""The distillation cycle: it publishes what is better, refuses what is worse, and says why."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from model.bundle import Bundle, read_manifest, write_bundle
from model.data import Row
from tests.conftest import Broker
from tests.model.conftest import SMALL
from topics.codec import encode
from topics.errors import UsageError, WorkerError
from topics.events import Action, Decision, Outcome, OutcomeKind, SkillCard, Utterance
from topics.kafka import producer
from topics.registry import DECISIONS, OUTCOMES, UTTERANCES, create_topics, topic_name
from topics.settings import Settings
from workers.catalogue import load_catalogue
from workers.releases import current_release, publish
from workers.trainer import CycleOptions, gather, refusal, run_cycle

RECIPE = msgspec.structs.replace(SMALL, training=msgspec.structs.replace(SMALL.training, epochs=1))


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    found = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(found, partitions=2)
    return found


@pytest.fixture
def corpus(tmp_path: Path, small_cards: list[SkillCard], small_rows: list[Row], small_dev: list[Row]) -> Path:
    return write_corpus(tmp_path / "corpus", small_cards, small_rows[:150], small_dev[:60])


def write_corpus(folder: Path, cards: Sequence[SkillCard], train: Sequence[Row], dev: Sequence[Row]) -> Path:
    folder.mkdir()
    for name, values in (("skills", cards), ("utterances.train", train), ("utterances.dev", dev)):
        lines = (orjson.dumps(msgspec.to_builtins(value)) + b"\n" for value in values)
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    return folder


def say(settings: Settings, rows: Sequence[Row], kind: OutcomeKind = OutcomeKind.ACCEPTED) -> None:
    """What a customer asked, what was decided and what became of it, for each row."""
    client, now = producer(settings), int(time.time() * 1000)
    for at, row in enumerate(rows):
        ids: dict[str, Any] = {"event_time_ms": now, "utterance_id": f"u-{at}", "customer_id": f"c-{at % 7}"}
        skill = row.skill_id
        decision = Decision(
            **ids, action=Action.LAUNCH if skill else Action.NONE, skill_id=skill, linked=row.linked or ()
        )
        for topic, event in (
            (UTTERANCES, Utterance(**ids, text=row.text)),
            (DECISIONS, decision),
            (OUTCOMES, Outcome(**ids, outcome=kind, skill_id=skill)),
        ):
            client.produce(topic_name(settings, topic), encode(event), f"c-{at % 7}".encode())
    assert client.flush(30) == 0


def options(tmp_path: Path, corpus: Path | None, **changes: object) -> CycleOptions:
    chosen = {"cycle_epochs": 1, "min_outcomes": 10, "recipe": RECIPE, **changes}
    return CycleOptions(store=tmp_path / "store", data=corpus, **chosen)  # type: ignore[arg-type]


def test_the_first_cycle_publishes_and_the_next_one_stands_on_it(
    settings: Settings, corpus: Path, tmp_path: Path, small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_cards)
    first = run_cycle(settings, options(tmp_path, corpus))
    assert first.published
    assert (first.parent, first.outcome_rows) == ("", 0)
    say(settings, small_rows[150:300])
    second = run_cycle(settings, options(tmp_path, corpus, max_loss=1.0))
    assert second.published
    assert second.parent == first.release
    assert second.outcome_rows > 100
    serving = current_release(settings)
    assert serving is not None
    assert (serving.release, serving.parent) == (second.release, first.release)
    assert read_manifest(Path(serving.bundle)).digest == serving.digest
    assert serving.measures == second.after


def test_a_refused_candidate_is_named_with_the_measure_and_the_old_one_serves_on(
    settings: Settings, corpus: Path, tmp_path: Path, small_bundle: Bundle, small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_bundle.catalogue.cards())
    write_bundle(small_bundle, tmp_path / "good")
    good = publish(settings, tmp_path / "good", tmp_path / "store", "", {}, "")
    say(settings, small_rows[150:300])
    asks_too_much = -1.0  # a gain of more than 1, which no measure can show
    result = run_cycle(settings, options(tmp_path, corpus, max_loss=asks_too_much))
    assert not result.published
    assert "decision_top1 falls from" in result.reason
    serving = current_release(settings)
    assert serving is not None
    assert serving.release == good.release


def test_rows_that_judge_are_never_taught_and_the_same_in_every_cycle(
    settings: Settings, tmp_path: Path, small_bundle: Bundle, small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_bundle.catalogue.cards())
    say(settings, small_rows)
    found = gather(settings, options(tmp_path, None, judge_share=0.3))
    taught, judged = ({row.text for row in rows} for rows in (found.outcomes, found.judged))
    assert not taught & judged
    assert 0.15 < len(judged) / (len(taught) + len(judged)) < 0.45
    again = gather(settings, options(tmp_path, None, judge_share=0.3))
    assert [row.text for row in again.judged] == [row.text for row in found.judged]


def test_rejected_answers_teach_no_label(
    settings: Settings, tmp_path: Path, small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_cards)
    say(settings, small_rows[:40], OutcomeKind.REJECTED)
    with pytest.raises(WorkerError, match="nothing to learn from: 0 outcomes"):
        gather(settings, options(tmp_path, None))


def test_a_cycle_without_a_catalogue_says_how_to_get_one(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `namefree catalogue load DIR`"):
        run_cycle(settings, options(tmp_path, None))


def test_a_loss_within_the_bound_is_no_refusal() -> None:
    before = {"decision_top1": np.array([1.0, 1.0, 1.0, 0.0])}
    after = {"decision_top1": np.array([1.0, 1.0, 0.0, 0.0])}
    assert refusal(before, after, 0.25) == ""
    assert "decision_top1 falls from 0.7500 to 0.5000 on 4 rows" in refusal(before, after, 0.2)
    assert refusal(None, after, 0.0) == ""
