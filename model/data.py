"""Data folders: `skills.jsonl[.gz]` and `utterances.{train,dev}.jsonl[.gz]`, one JSON object a line.

A skill row is a card (`topics.events.SkillCard`) of which only `skill_id` and `name` are needed; a field of
null counts as left out. An utterance row has `text`, `skill_id` (null: no skill should answer), and may have
`source`, `linked`, `weight` (how many requests it stands for) and `beliefs` (where nobody knows which skill was
meant, how likely each is). Unknown fields are skipped, and so are blank lines. Reading stops at the first bad row;
`check_folder` names all of them.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from topics.errors import BadData, UsageError
from topics.events import MAX_LINKS, Line, Share, SkillCard, SkillId, Text

Split = Literal["train", "dev"]
T = TypeVar("T")


# As topics.events.SkillIds, but without its pattern: it would triple the time that a large corpus takes to read,
# and `check_folder` looks every link up anyway.
LinkedIds = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=MAX_LINKS)]


class Row(Struct, frozen=True, omit_defaults=True):
    """One request with the skill that it was meant for; `skill_id` of None: no skill should answer.

    `beliefs`: where that is not sure, how likely each skill is, "" for none; they sum to 1 or less, and `skill_id`
    is the likeliest. Such a row teaches the shortlister's text alone. `weight`: how many requests a sure row
    stands for in what is fitted on held-out rows.
    """

    text: Text
    skill_id: SkillId | None
    source: Line = ""
    linked: LinkedIds | None = None
    weight: Annotated[float, Meta(gt=0.0, le=1_000.0)] = 1.0
    beliefs: dict[Annotated[str, Meta(max_length=200)], Share] = {}


def read_skills(folder: Path) -> list[SkillCard]:
    """The catalogue's cards in file order. Raises BadData at the first bad row, UsageError without a file."""
    cards: dict[str, SkillCard] = {}
    for at, card in _taken(_rows(_file(folder, "skills"), _card)):
        if card.skill_id in cards:
            raise BadData(f"{at}: skill_id {card.skill_id!r} occurs twice")
        cards[card.skill_id] = card
    return list(cards.values())


def read_card(path: Path) -> SkillCard:
    """The card in a JSON file of its own. Raises BadData where it is none, UsageError without a file."""
    try:
        found = _attempt(path.read_bytes(), _card, str(path))
    except OSError as error:
        raise UsageError(f"file {path} cannot be read: {error.strerror}") from error
    if isinstance(found, BadData):
        raise found
    return found


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl or .jsonl.gz file. Raises BadData at the first bad row, UsageError without a file."""
    return [row for _, row in _taken(_rows(path, _row))]


def split_path(folder: Path, split: Split) -> Path:
    """The file of a split. Raises UsageError where the folder has none."""
    return _file(folder, f"utterances.{split}")


def check_folder(folder: Path) -> list[str]:
    """Every bad row of a data folder, each as one sentence that begins with file and line; [] if all is well."""
    problems: list[str] = []
    known = _check_skills(folder, problems)
    seen: dict[str, str] = {}  # text -> where the training split has it
    for split in ("train", "dev"):
        try:
            path = _file(folder, f"utterances.{split}")
        except UsageError as error:
            problems.append(str(error))
            continue
        for at, row in _kept(_rows(path, _row), problems):
            problems += [f"{at}: {problem}" for problem in _row_problems(row, known)]
            if split == "train":
                seen.setdefault(row.text, at)
            elif row.text in seen:
                problems.append(f"{at}: the text is in the training split too, at {seen[row.text]}")
    return problems


def _check_skills(folder: Path, problems: list[str]) -> set[str]:
    """The known skill ids; what is wrong with the catalogue goes to `problems`."""
    first: dict[str, str] = {}
    for at, card in _kept(_rows(_file(folder, "skills"), _card), problems):
        if card.skill_id in first:
            problems.append(f"{at}: skill_id {card.skill_id!r} occurs twice, first at {first[card.skill_id]}")
        first.setdefault(card.skill_id, at)
    return set(first)


def _row_problems(row: Row, known: set[str]) -> Iterator[str]:
    if row.skill_id is not None and row.skill_id not in known:
        yield f"skill_id {row.skill_id!r} is not in the catalogue"
    for skill_id in row.beliefs:
        if skill_id and skill_id not in known:
            yield f"beliefs name {skill_id!r}, which is not in the catalogue"
    if (total := sum(row.beliefs.values())) > 1.001:
        yield f"beliefs sum to {total:.3f}, which is more than 1"
    for position, skill_id in enumerate(row.linked or ()):
        if skill_id not in known:
            yield f"linked[{position}] {skill_id!r} is not in the catalogue"


def _file(folder: Path, stem: str) -> Path:
    """`stem`.jsonl or `stem`.jsonl.gz in `folder`, the plain one first."""
    found = [path for path in (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz") if path.is_file()]
    if not found:
        missing = f"has no {stem}.jsonl or {stem}.jsonl.gz" if folder.is_dir() else "is no folder"
        raise UsageError(f"data folder {folder} {missing}")
    return found[0]


def _taken(rows: Iterator[tuple[str, T | BadData]]) -> Iterator[tuple[str, T]]:
    """The rows with their places, as they are read; raises the first error."""
    for at, row in rows:
        if isinstance(row, BadData):
            raise row
        yield at, row


def _kept(rows: Iterator[tuple[str, T | BadData]], problems: list[str]) -> Iterator[tuple[str, T]]:
    """The good rows with their places; the errors go to `problems`."""
    for at, row in rows:
        if isinstance(row, BadData):
            problems.append(str(row))
        else:
            yield at, row


def _rows(path: Path, decode: Callable[[bytes], T]) -> Iterator[tuple[str, T | BadData]]:
    """`file:line` and what stands there, a bad row as its error. A file that breaks off ends with one error."""
    line = 0
    try:
        with _open(path) as file:
            for line, data in enumerate(file, 1):
                if not data.isspace():
                    yield f"{path}:{line}", _attempt(data, decode, f"{path}:{line}")
    except FileNotFoundError as error:
        raise UsageError(f"file {path} is not there") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield f"{path}:{line + 1}", BadData(f"{path}:{line + 1}: the gzip file is damaged or cut here: {error}")
    except OSError as error:
        raise UsageError(f"file {path} cannot be read: {error.strerror}") from error


def _open(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _attempt(data: bytes, decode: Callable[[bytes], T], at: str) -> T | BadData:
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        return BadData(f"{at}: {error}")
    except UnicodeDecodeError as error:
        return BadData(f"{at}: not UTF-8: {error.reason}, byte {error.start} of a text")
    except msgspec.DecodeError as error:
        return BadData(f"{at}: no valid JSON: {error}")
    except RecursionError:
        return BadData(f"{at}: nested too deeply")


_row = msgspec.json.Decoder(Row).decode


def _card(data: bytes) -> SkillCard:
    fields = msgspec.json.decode(data, type=dict[str, Any])
    return msgspec.convert({name: value for name, value in fields.items() if value is not None}, SkillCard)
