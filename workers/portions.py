"""How the demo divides its rows: a corpus, what is asked first and second, and what judges. No text in two."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import orjson

from model.data import Row
from topics.events import SkillCard

# shares of the texts; the first release learns from few, so that there is something left to learn
CORPUS, FIRST, SECOND = 0.3, 0.35, 0.15


@dataclass(frozen=True)
class Portions:
    """Rows by their use."""

    corpus: list[Row]
    first: list[Row]
    second: list[Row]
    judged: list[Row]

    def sizes(self) -> dict[str, int]:
        """Rows of each part."""
        return {
            "corpus": len(self.corpus),
            "asked first": len(self.first),
            "asked second": len(self.second),
            "judged": len(self.judged),
        }


def divide(rows: Sequence[Row], most: int, seed: int) -> Portions:
    """Divides the rows that say who is linked, at most `most` of them, by a hash of their text."""
    linked = [row for row in rows if row.linked is not None]
    order = np.random.default_rng(seed).permutation(len(linked))[:most]
    portions = Portions([], [], [], [])
    for at in order.tolist():
        _part(portions, linked[at].text, seed).append(linked[at])
    return portions


def _part(portions: Portions, text: str, seed: int) -> list[Row]:
    place = int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:4], "big") / 2**32
    if place < CORPUS:
        return portions.corpus
    if place < CORPUS + FIRST:
        return portions.first
    return portions.second if place < CORPUS + FIRST + SECOND else portions.judged


def write_folder(folder: Path, cards: Sequence[SkillCard], taught: Sequence[Row], judged: Sequence[Row]) -> None:
    """A data folder of cards, training rows and dev rows."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"skills": cards, "utterances.train": taught, "utterances.dev": judged}
    for name, values in files.items():
        lines = (orjson.dumps(msgspec.to_builtins(value)) + b"\n" for value in values)
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
