"""Finished cells of an experiment, and text models that several cells share, on disk under what made them.

A name is the hash of everything that the content depends on: data, recipe, seed, code. So nothing is computed
twice, a run that broke off goes on, and a changed recipe is another cell. A file is there whole or not at all;
one that cannot be read counts as absent.
"""

import ast
import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import safetensors.torch
from msgspec import Struct
from safetensors import SafetensorError
from torch import Tensor

from model.conditions import Conditions
from model.data import Row
from model.measuring import Epoch, Result
from model.pipeline import Recipe, rows_digest
from model.pretrained import DIGEST
from model.systems import text_recipe
from topics.errors import UsageError
from topics.events import SkillCard

TEXT_CODE = (
    *("data", "catalogue", "text", "pretrained", "encoder"),
    *("examples", "shortlister", "training", "distributed", "pipeline"),
)
LINK_CODE = (
    "attention",
    "counts",
    "statistics",
    "distillation",
    "linking",
)  # what a joint training has in it, too
MEASURING_CODE = ("index", "index_kinds", "shortlist", "conditions", "measuring")

log = logging.getLogger(__name__)


class TextDone(Struct, frozen=True):
    """What is told of a trained text model beside its weights."""

    seconds: float
    top3: float
    epochs: list[Epoch]  # where links were trained with it


class Digests(Struct, frozen=True):
    """Of the data, without which no two runs compare."""

    taught: str  # cards and training rows
    conditions: str  # dev rows in all conditions

    @staticmethod
    def of(cards: Sequence[SkillCard], rows: Sequence[Row], conditions: Conditions) -> "Digests":
        asked = [f"{share} {rows_digest(part)}" for share, part in conditions.rows.items()]
        return Digests(_hash(msgspec.json.encode(cards), rows_digest(rows).encode()), _hash(repr(asked).encode()))


def text_key(digests: Digests, recipe: Recipe) -> str:
    """The name of the text model of a seeded recipe."""
    code = (*TEXT_CODE, *LINK_CODE) if recipe.training.jointly else TEXT_CODE
    words = DIGEST if recipe.pretrained else ""
    settings = msgspec.json.encode(text_recipe(recipe))
    return _hash(settings, *(part.encode() for part in (digests.taught, words, code_digest(code))))


def cell_key(digests: Digests, recipe: Recipe, constant: float | None) -> str:
    """The name of the result of a seeded recipe; equal recipes have equal names, whatever the system is called."""
    code = code_digest((*TEXT_CODE, *LINK_CODE, *MEASURING_CODE))
    settings = msgspec.json.encode((recipe, constant))
    return _hash(settings, *(part.encode() for part in (text_key(digests, recipe), digests.conditions, code)))


@cache
def code_digest(modules: tuple[str, ...]) -> str:
    """A hash of what modules of this package do: comments, docstrings and layout have no part in it."""
    folder = Path(__file__).parent
    return _hash(*(without_remarks(folder / f"{name}.py").encode() for name in modules))


def without_remarks(path: Path) -> str:
    """A module's syntax tree as text, docstrings left out."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


class Store:
    """A folder of cells (JSON) and text models (safetensors)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, key: str) -> Result | None:
        """The result under `key`; None where there is none, or none that is whole."""
        path = self._cell(key)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Result)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s is no whole cell and is computed again: %s", path, error)
            return None

    def keep_result(self, key: str, result: Result) -> None:
        """Writes a result, whole or not at all. Raises UsageError where the folder cannot be written."""
        write_whole(self._cell(key), msgspec.json.encode(result))

    def text(self, key: str) -> tuple[dict[str, Tensor], TextDone] | None:
        """Weights of a text model; None where there are none, or none that are whole."""
        path = self._text(key)
        try:
            data = path.read_bytes()
            return safetensors.torch.load(data), msgspec.json.decode(_metadata(data), type=TextDone)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            log.warning("%s is no whole text model and is trained again: %s", path, error)
            return None

    def keep_text(self, key: str, weights: dict[str, Tensor], done: TextDone) -> None:
        """Writes a text model, whole or not at all. Raises UsageError where the folder cannot be written."""
        told = {"done": msgspec.json.encode(done).decode()}
        write_whole(self._text(key), safetensors.torch.save(weights, told))

    def _cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _text(self, key: str) -> Path:
        return self.folder / "texts" / f"{key}.safetensors"


def _metadata(data: bytes) -> str:
    """What `safetensors.torch.save` was told: its header is JSON after eight bytes of length."""
    size = int.from_bytes(data[:8], "little")
    found: str = msgspec.json.decode(data[8 : 8 + size])["__metadata__"]["done"]
    return found


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there is whole, also where the process dies or two write it at once.

    Raises UsageError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            file.write(data)
        Path(file.name).chmod(0o644)  # a temporary file is its owner's alone
        os.replace(file.name, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
