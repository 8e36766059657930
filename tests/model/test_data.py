"""Data folders: what is good is read, and every bad row is named by file and line."""

import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from model.data import Row, check_folder, read_rows, read_skills, split_path
from topics.errors import BadData, UsageError
from topics.events import SkillCard

SKILLS = [
    {"skill_id": "rides:acorn", "name": "Acorn Rides", "phrases": ["get me a ride"], "colour": "red"},
    {"skill_id": "cats:paw", "name": "Paw", "category": None, "invocation": None, "intents": [{"name": "Fact"}]},
]
TRAIN = [
    {"text": "get me a car", "skill_id": "rides:acorn", "source": "made up", "linked": ["cats:paw"]},
    {"text": "hello there", "skill_id": None, "source": "made up"},
]
DEV = [{"text": "a cat fact please", "skill_id": "cats:paw", "source": "made up", "linked": []}]


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "skills.jsonl").write_bytes(lines(SKILLS))
    (tmp_path / "utterances.train.jsonl.gz").write_bytes(gzip.compress(lines(TRAIN)))
    (tmp_path / "utterances.dev.jsonl").write_bytes(lines(DEV))
    return tmp_path


def test_a_good_folder_is_read_and_in_order(folder: Path) -> None:
    assert check_folder(folder) == []
    assert [card.skill_id for card in read_skills(folder)] == ["rides:acorn", "cats:paw"]
    assert read_skills(folder)[0] == SkillCard(
        skill_id="rides:acorn", name="Acorn Rides", phrases=("get me a ride",)
    )
    assert read_rows(split_path(folder, "train")) == [
        Row("get me a car", "rides:acorn", "made up", ("cats:paw",)),
        Row("hello there", None, "made up", None),
    ]
    assert read_rows(split_path(folder, "dev")) == [Row("a cat fact please", "cats:paw", "made up", ())]


def test_a_null_field_of_a_card_counts_as_left_out(folder: Path) -> None:
    card = read_skills(folder)[1]
    assert (card.category, card.invocation, card.phrases, card.can_fulfill) == ("", "", (), {})


def test_blank_lines_are_skipped_and_counted_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"text": "a", "skill_id": null}\n  \n{"text": ""}\n')
    with pytest.raises(BadData, match=r"rows\.jsonl:4: "):
        read_rows(path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b""))
    assert read_rows(tmp_path / "rows.jsonl") == read_rows(tmp_path / "rows.jsonl.gz") == []


BAD_ROWS = {
    "not JSON": (b"get me a car", "no valid JSON"),
    "cut JSON": (b'{"text": "a", "skill', "no valid JSON"),
    "an array": (b"[1]", "Expected `object`, got `array`"),
    "missing text": (b'{"skill_id": null}', "missing required field `text`"),
    "missing skill_id": (b'{"text": "a"}', "missing required field `skill_id`"),
    "text of the wrong type": (b'{"text": 7, "skill_id": null}', "Expected `str`, got `int` - at `$.text`"),
    "empty text": (b'{"text": "", "skill_id": null}', ">= 1 - at `$.text`"),
    "blank text": (b'{"text": "  ", "skill_id": null}', "at `$.text`"),
    "text over the limit": (b'{"text": "%s", "skill_id": null}' % (b"x" * 4_001), "<= 4000 - at `$.text`"),
    "skill_id of the wrong type": (b'{"text": "a", "skill_id": 3}', "at `$.skill_id`"),
    "linked of the wrong type": (b'{"text": "a", "skill_id": null, "linked": "b"}', "at `$.linked`"),
    "too many links": (lines([{"text": "a", "skill_id": None, "linked": ["b"] * 501}])[:-1], "<= 500"),
    "not UTF-8": (b'{"text": "a\xff", "skill_id": null}', "not UTF-8"),
    "lone surrogate": (b'{"text": "a\\ud800", "skill_id": null}', "no valid JSON"),
    "nested too deeply": (b'{"more": ' + b"[" * 9_000 + b"]" * 9_000 + b"}", "nested too deeply"),
}


@pytest.mark.parametrize(("row", "says"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line(folder: Path, row: bytes, says: str) -> None:
    path = folder / "utterances.dev.jsonl"
    path.write_bytes(lines(DEV) + row + b"\n" + lines(DEV))
    with pytest.raises(BadData) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)
    assert check_folder(folder) == [str(caught.value)]


BAD_CARDS = {
    "missing name": (b'{"skill_id": "x"}', "missing required field `name`"),
    "null name": (b'{"skill_id": "x", "name": null}', "missing required field `name`"),
    "empty skill_id": (b'{"skill_id": "", "name": "x"}', "at `$.skill_id`"),
    "reviews below 0": (b'{"skill_id": "x", "name": "x", "reviews": -1}', "at `$.reviews`"),
    "an intent without name": (b'{"skill_id": "x", "name": "x", "intents": [{}]}', "at `$.intents[0]`"),
    "an array": (b"[]", "got `array`"),
}


@pytest.mark.parametrize(("card", "says"), BAD_CARDS.values(), ids=BAD_CARDS)
def test_a_bad_card_is_named_by_file_and_line(folder: Path, card: bytes, says: str) -> None:
    path = folder / "skills.jsonl"
    path.write_bytes(lines(SKILLS) + card + b"\n")
    with pytest.raises(BadData) as caught:
        read_skills(folder)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert says in str(caught.value)
    assert check_folder(folder) == [str(caught.value)]


def test_a_skill_that_occurs_twice_is_named(folder: Path) -> None:
    (folder / "skills.jsonl").write_bytes(lines([*SKILLS, SKILLS[0]]))
    with pytest.raises(BadData, match=r"skills\.jsonl:3: skill_id 'rides:acorn' occurs twice"):
        read_skills(folder)
    [problem] = check_folder(folder)
    assert problem.startswith(f"{folder}/skills.jsonl:3: ")
    assert problem.endswith(f"first at {folder}/skills.jsonl:1")


def test_check_names_every_bad_row_of_every_file(folder: Path) -> None:
    stranger = {"text": "b", "skill_id": "who", "linked": ["cats:paw", "what"]}
    (folder / "skills.jsonl").write_bytes(lines(SKILLS) + b"{\n")
    (folder / "utterances.train.jsonl.gz").write_bytes(gzip.compress(b"?\n" + lines(TRAIN) + b"?\n"))
    (folder / "utterances.dev.jsonl").write_bytes(lines([stranger, TRAIN[0], *DEV]))
    places = [problem.removeprefix(f"{folder}/").split(": ", 1) for problem in check_folder(folder)]
    assert [place for place, _ in places] == [
        "skills.jsonl:3",
        "utterances.train.jsonl.gz:1",
        "utterances.train.jsonl.gz:4",
        "utterances.dev.jsonl:1",
        "utterances.dev.jsonl:1",
        "utterances.dev.jsonl:2",
    ]
    assert [what for _, what in places[3:]] == [
        "skill_id 'who' is not in the catalogue",
        "linked[1] 'what' is not in the catalogue",
        f"the text is in the training split too, at {folder}/utterances.train.jsonl.gz:2",
    ]


def _cut(data: bytes) -> bytes:
    return data[:-12]


def _flipped(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 0xFF]) + data[-5:]


def _plain(_: bytes) -> bytes:
    return b"this is no gzip file"


@pytest.mark.parametrize("damage", [_cut, _flipped, _plain])
def test_a_damaged_gzip_is_named_where_it_breaks_off(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "utterances.train.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadData, match=r"train\.jsonl\.gz:\d: the gzip file is damaged or cut here"):
        read_rows(path)
    assert len(check_folder(folder)) == 1


def test_a_missing_file_was_asked_wrongly(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.jsonl is not there"):
        read_rows(folder / "nothing.jsonl")
    with pytest.raises(UsageError, match="is no folder"):
        read_skills(folder / "nowhere")
    (folder / "utterances.dev.jsonl").unlink()
    with pytest.raises(UsageError, match=r"has no utterances\.dev\.jsonl or utterances\.dev\.jsonl\.gz"):
        split_path(folder, "dev")
    [problem] = check_folder(folder)
    assert "has no utterances.dev.jsonl" in problem


def test_a_folder_in_place_of_a_file_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_rows(folder)


def test_the_real_corpus_is_in_order_and_read_quickly(corpus_dir: Path) -> None:
    begin_s = time.process_time()  # of the processor: others may be busy with it, too
    rows = read_rows(split_path(corpus_dir, "train"))
    assert time.process_time() - begin_s < 5  # 0.6 s on a fast core
    assert len(rows) > 10_000
    assert check_folder(corpus_dir) == []
