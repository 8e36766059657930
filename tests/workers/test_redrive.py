"""Dead letters on a real broker: looked at, mended and sent back exactly once, whoever is killed in between."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Message
from msgspec.structs import replace

from tests.conftest import Broker
from topics import codec
from topics.errors import NamefreeError, UsageError, WorkerError
from topics.events import DeadLetter, Redriven, Utterance
from topics.kafka import producer, read_all
from topics.registry import DEAD_LETTERS, REDRIVEN, UTTERANCES, Topic, create_topics, topic_name
from topics.settings import Settings
from workers.children import environment
from workers.commands.dead_letters import command, since_in
from workers.dead_letters import MAX_VALUE_BYTES
from workers.failpoints import VARIABLE
from workers.redrive import Redriver, letters_at, markers, redrive, redrive_where

T0_MS = 1_795_369_000_000
TRACE = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
GOOD = codec.encode(Utterance(event_time_ms=T0_MS, utterance_id="u-1", customer_id="c-1", text="get me a car"))


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=1)
    return settings


def put(settings: Settings, *values: bytes | None, trace: Any = None, **fields: Any) -> None:
    """Dead letters of these values, a second between them."""
    client = producer(replace(settings, kafka={"message.max.bytes": "4000000"}))
    for at, value in enumerate(values):
        given = {
            "event_time_ms": T0_MS + 1_000 * at,
            "reason": "not_json",
            "message": "Utterance: no valid UTF-8 JSON",
            "topic": topic_name(settings, UTTERANCES),
            "partition": 0,
            "offset": at,
            "source_key": b"c-1",
            "source_value": value,
            **fields,
        }
        client.produce(topic_name(settings, DEAD_LETTERS), codec.encode(DeadLetter(**given)), headers=trace)
    assert client.flush(30) == 0


def on(settings: Settings, topic: Topic) -> list[Message]:
    return list(read_all(settings, topic_name(settings, topic)))


def sent_back(settings: Settings) -> list[tuple[bytes | None, bytes | None]]:
    return [(message.key(), message.value()) for message in on(settings, UTTERANCES)]


def run(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), obj=settings)


def told(settings: Settings, *arguments: str) -> Any:
    result = run(settings, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_event_goes_back_with_key_bytes_and_trace_and_a_second_time_only_when_asked(
    settings: Settings,
) -> None:
    put(settings, b"\xff{", trace=[*TRACE, ("other", b"x")])
    assert told(settings, "redrive", "0:0") == {"redriven": ["0:0"], "left_out": {}}
    (message,) = on(settings, UTTERANCES)
    assert (message.key(), message.value(), message.headers()) == (b"c-1", b"\xff{", TRACE)
    with pytest.raises(
        UsageError, match=r"dead letter 0:0 \(.*utterances\[0\]@0\) is not redriven: redriven before"
    ):
        redrive(settings, ["0:0"])
    assert redrive_where(settings, lambda _: True).ids == []
    assert len(on(settings, UTTERANCES)) == 1
    redrive(settings, ["0:0"], again=True)
    assert sent_back(settings) == [(b"c-1", b"\xff{")] * 2
    (marker,) = markers(settings).values()
    assert (marker.letter_time_ms, marker.topic, marker.mended) == (T0_MS, topic_name(settings, UTTERANCES), False)


def test_a_mended_value_goes_in_place_of_the_bytes_and_must_be_an_event(
    settings: Settings, tmp_path: Path
) -> None:
    put(settings, b"{", b"a" * MAX_VALUE_BYTES)
    mended = tmp_path / "mended.json"
    for bad, why in (b"{", "no valid UTF-8 JSON"), (GOOD.replace(b"c-1", b"c-2"), "the key of"):
        mended.write_bytes(bad)
        with pytest.raises(UsageError, match=f"would be a dead letter again: .*{why}"):
            redrive(settings, ["0:0"], mended.read_bytes())
    mended.write_bytes(GOOD)
    with pytest.raises(UsageError, match="was cut"):
        redrive(settings, ["0:1"])
    assert sent_back(settings) == []
    for letter in ("0:0", "0:1"):
        assert told(settings, "redrive", letter, "--value", str(mended))["redriven"] == [letter]
    assert sent_back(settings) == [(b"c-1", GOOD)] * 2
    assert {marker.mended for marker in markers(settings).values()} == {True}


def test_by_reason_all_go_that_may_and_the_others_are_counted(settings: Settings) -> None:
    put(settings, b"1", None, b"a" * MAX_VALUE_BYTES, b"4")
    put(settings, b"5", topic="somebody.elses")
    put(settings, b"6", reason="invalid")
    redrive(settings, ["0:3"])
    found = told(settings, "redrive", "--reason", "not_json")
    assert found["redriven"] == ["0:0", "0:1"]
    assert [why.split()[:2] for why in found["left_out"]] == [
        ["its", "key"],
        ["redriven", "before"],
        ["its", "source"],
    ]
    assert [value for _, value in sent_back(settings)] == [b"4", b"1", None]
    assert told(settings, "redrive", "--reason", "not_json")["redriven"] == []


def test_named_letters_go_all_or_none(settings: Settings) -> None:
    put(settings, b"1", b"2")
    redrive(settings, ["0:1"])
    for ids in (["0:0", "0:1"], ["0:0", "0:7"], ["0:0", "1:0"]):
        with pytest.raises(UsageError):
            redrive(settings, ids)
    assert sent_back(settings) == [(b"c-1", b"2")]


@pytest.mark.parametrize(("place", "done"), [("before", 0), ("after", 2)])
def test_killed_around_its_commit_a_second_run_sends_what_the_first_did_not(
    settings: Settings, place: str, done: int
) -> None:
    put(settings, b"1", b"2")
    ask = [sys.executable, "-m", "workers", "dead-letters", "redrive", "--reason", "not_json", "--json"]
    env = environment(settings)
    killed = subprocess.run(ask, env={**env, VARIABLE: f"redrive.{place}_commit=kill"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run(ask, env=env, check=True, capture_output=True)
    assert len(json.loads(again.stdout)["redriven"]) == 2 - done
    assert sent_back(settings) == [(b"c-1", b"1"), (b"c-1", b"2")]
    assert len(markers(settings)) == 2


def test_one_that_another_has_replaced_cannot_commit(settings: Settings) -> None:
    put(settings, b"1")
    elder = Redriver(settings)
    letters = letters_at(settings, ["0:0"])
    redrive(settings, ["0:0"])
    with pytest.raises(WorkerError, match="dead letters cannot be sent back"):
        elder.send(letters)
    assert sent_back(settings) == [(b"c-1", b"1")]


def test_a_marker_of_a_topic_before_says_nothing_of_the_letter_under_its_id(settings: Settings) -> None:
    put(settings, b"1")
    marker = Redriven(event_time_ms=T0_MS, letter_time_ms=T0_MS - 1, topic="utterances")
    client = producer(settings)
    client.produce(topic_name(settings, REDRIVEN), codec.encode(marker), "0:0")
    client.flush()
    assert redrive(settings, ["0:0"]).ids == ["0:0"]


def test_the_list_has_the_newest_first_with_counts_and_can_be_narrowed(settings: Settings) -> None:
    put(settings, b"1", b"2", b"3")
    put(settings, b"4", reason="invalid", event_time_ms=T0_MS + 500, topic=f"{settings.prefix}outcomes", offset=7)
    client = producer(settings)
    client.produce(topic_name(settings, DEAD_LETTERS), b"no letter")
    client.flush()
    redrive(settings, ["0:1"])
    found = told(settings, "list")
    assert found["counts"] == {"not_json": 3, "invalid": 1}
    assert [one["id"] for one in found["dead_letters"]] == ["0:2", "0:1", "0:3", "0:0"]
    assert [one["redriven"] is not None for one in found["dead_letters"]] == [False, True, False, False]
    assert found["dead_letters"][2]["source"] == f"{settings.prefix}outcomes[0]@7"

    def narrowed(*arguments: str) -> list[str]:
        return [one["id"] for one in told(settings, "list", *arguments)["dead_letters"]]

    assert narrowed("--reason", "invalid") == narrowed("--topic", "outcomes") == ["0:3"]
    assert narrowed("--topic", f"{settings.prefix}utterances", "--since", "2026-11-22T17:36:41") == ["0:2", "0:1"]
    assert narrowed("--limit", "1") == ["0:2"]
    table = run(settings, "list").stdout
    assert [place for place in ("0:0", "0:1", "0:2", "0:3") if f" {place} " not in table] == []
    assert "invalid" in table


def test_show_prints_text_as_text_and_the_rest_in_base64_and_nothing_steers_the_terminal(
    settings: Settings,
) -> None:
    put(settings, "\x1b[2J get [/b] ü".encode(), b"\xff\x00", None, trace=TRACE)
    text = run(settings, "show", "0:0").stdout
    assert r"\x1b[2J get [/b] ü" in text
    assert TRACE[0][1].decode() in text
    assert "(base64) /wA=" in run(settings, "show", "0:1").stdout
    found = told(settings, "show", "0:0")
    assert (found["key"], found["value"]) == ({"text": "c-1"}, {"text": "\x1b[2J get [/b] ü"})
    assert told(settings, "show", "0:2")["value"] is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["show", "12"], "'12' is no dead letter's id"),
        (["show", "0:99"], "no dead letter has the id 0:99"),
        (["redrive"], "say which dead letters"),
        (["redrive", "0:1", "--reason", "invalid"], "say which dead letters"),
        (["redrive", "0:1", "--topic", "outcomes"], "--topic goes with --reason"),
        (["redrive", "0:1", "0:2", "--value", __file__], "--value mends one dead letter"),
        (["list", "--since", "soon"], "neither an age, as 2h"),
    ],
)
def test_what_is_asked_wrongly_is_refused(settings: Settings, arguments: list[str], why: str) -> None:
    error = run(settings, *arguments).exception
    assert isinstance(error, NamefreeError)
    assert error.exit_code == 2
    assert why in str(error)


def test_an_age_counts_back_from_now() -> None:
    assert since_in("1d") == pytest.approx(since_in("24h"), abs=1_000)
    assert since_in("2026-11-22T18:30+01:00") == 1_795_368_600_000
