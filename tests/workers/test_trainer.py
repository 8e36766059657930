"""The distillation cycle: it publishes what is better, refuses what is worse, and says why."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from model.bundle import Bundle, read_manifest, write_bundle
from model.data import Row
from model.gate_lines import Bounds
from tests.conftest import Broker
from tests.model.conftest import SMALL
from topics.codec import encode
from topics.errors import UsageError, WorkerError
from topics.events import Action, Decision, Outcome, OutcomeKind, SkillCard, Utterance
from topics.kafka import producer
from topics.registry import DECISIONS, OUTCOMES, UTTERANCES, create_topics, topic_name
from topics.settings import Settings
from workers.catalogue import load_catalogue
from workers.commands import cycle
from workers.cycle_options import CycleOptions, Learning
from workers.gathering import gather
from workers.releases import current_release, publish
from workers.trainer import run_cycle

ANYTHING = Bounds(
    max_loss=1.0, slice_loss=1.0, ece=1.0, none=1.0, friction=1.0
)  # a market of thirty skills scatters
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


def say(settings: Settings, rows: Sequence[Row], kind: OutcomeKind = OutcomeKind.ACCEPTED, start: int = 0) -> None:
    """What a customer asked, what was decided and what became of it, for each row."""
    client, now = producer(settings), int(time.time() * 1000)
    for at, row in enumerate(rows, start):
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
    second = run_cycle(settings, options(tmp_path, corpus, bounds=ANYTHING))
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
    result = run_cycle(settings, options(tmp_path, corpus, bounds=Bounds(max_loss=asks_too_much)))
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


def test_the_command_takes_the_share_that_judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[CycleOptions] = []

    def refuse(_settings: Settings, chosen: CycleOptions, _stop: object) -> None:
        asked.append(chosen)
        raise WorkerError("seen")

    monkeypatch.setattr(cycle, "run_cycle", refuse)
    arguments = ["--store", str(tmp_path), "--judge-share", "0.04"]
    assert isinstance(CliRunner().invoke(cycle.command, arguments, obj=Settings()).exception, WorkerError)
    assert [one.judge_share for one in asked] == [0.04]


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


def test_a_release_says_what_made_it_and_equal_cycles_make_the_same(
    settings: Settings, corpus: Path, tmp_path: Path, small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_cards)
    say(settings, small_rows[150:300])
    first = run_cycle(settings, options(tmp_path, corpus))
    released = current_release(settings)
    assert released is not None
    told = released.provenance
    assert told["parent"] == "none"
    assert told["utterances offsets"].count(":") == 2
    assert told["corpus rows"].startswith("150, digest ")
    assert told["verdict"] == "passed the gate"
    asks_too_much = options(tmp_path, corpus, bounds=Bounds(max_loss=-1.0))  # so that the first serves on
    again, once_more = run_cycle(settings, asks_too_much), run_cycle(settings, asks_too_much)
    assert again.parent == first.release
    assert (again.release, again.provenance) == (once_more.release, once_more.provenance)


def test_what_an_outcome_leaves_open_is_believed_and_can_be_left_out(
    settings: Settings, tmp_path: Path, small_bundle: Bundle, small_rows: list[Row]
) -> None:
    load_catalogue(settings, small_bundle.catalogue.cards())
    say(settings, small_rows[:60])
    say(settings, small_rows[60:90], OutcomeKind.ABANDONED, start=60)
    every = gather(settings, options(tmp_path, None))
    believed = [row for row in every.outcomes if row.beliefs]
    assert 10 < len(believed) <= 30
    assert all(sum(row.beliefs.values()) <= 1 + 1e-6 for row in believed)
    fewer = gather(settings, options(tmp_path, None, learning=Learning(beliefs=False)))
    assert [row for row in every.outcomes if not row.beliefs] == fewer.outcomes
    assert {row.text for row in believed}.isdisjoint(row.text for row in every.judged)


def test_what_is_left_open_is_asked_of_the_release_that_serves_now(
    settings: Settings, tmp_path: Path, small_bundle: Bundle, small_rows: list[Row]
) -> None:
    """The decisions told no other skill; the serving release knows which others may have been meant."""
    load_catalogue(settings, small_bundle.catalogue.cards())
    say(settings, small_rows[:60])
    say(settings, small_rows[60:90], OutcomeKind.REJECTED, start=60)
    alone = [row for row in gather(settings, options(tmp_path, None)).outcomes if row.beliefs]
    assert all(len(row.beliefs) == 1 for row in alone)
    write_bundle(small_bundle, tmp_path / "serving")
    publish(settings, tmp_path / "serving", tmp_path / "store", "", {}, "")
    found = [row for row in gather(settings, options(tmp_path, None)).outcomes if row.beliefs]
    assert [row.text for row in found] == [row.text for row in alone]
    assert np.mean([len(row.beliefs) for row in found]) > 2


def test_a_cycle_writes_its_report(
    settings: Settings, corpus: Path, tmp_path: Path, small_cards: list[SkillCard]
) -> None:
    load_catalogue(settings, small_cards)
    run_cycle(settings, options(tmp_path, corpus, report=tmp_path / "cycle.html"))
    assert "<h1>" in (tmp_path / "cycle.html").read_text(encoding="utf-8")
