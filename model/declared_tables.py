"""Tables of what skills declare, made for looking up many requests under many skills at once.

Axes: N hypotheses (a request under a skill that declares intents), T terms of a request, P numbers of a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from model.declared import BITS, UNKNOWN, Declared
from model.lexicon import Lexicon
from model.spans import KINDS

ROW_BITS = 24  # of an entry's key: more rows than any catalogue has
Sets = NDArray[np.int64]


class Entries:
    """What terms mean to skills: four sets for each pair of a term and a row, found by binary search."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._sets = np.zeros((4, 1), np.int64)  # names, values, intents, near; the last column is of no pair
        self._waiting: dict[int, tuple[Sets, Sets]] = {}  # of rows whose entries have changed

    def put(self, row: int, terms: list[int], sets: Sequence[tuple[int, int, int, int]]) -> None:
        """All that the skill at `row` declares from now on."""
        keys = np.asarray(terms, np.int64) << ROW_BITS | row
        self._waiting[row] = keys, np.asarray(sets, np.int64).reshape(-1, 4).T

    def find(self, terms: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[Sets, Sets, Sets, Sets]:
        """Names, values, intents, near ones of terms (..., N) to skills at rows (N,), (..., N) each; 0: none."""
        if self._waiting:
            self._settle()
        keys = terms << ROW_BITS | rows
        at = np.searchsorted(self._keys, keys)
        size = len(self._keys)
        if size:
            hit = self._keys[np.minimum(at, size - 1)] == keys
            at = np.where(hit, at, size)
        return self._sets[0][at], self._sets[1][at], self._sets[2][at], self._sets[3][at]

    def _settle(self) -> None:
        """Takes over what waits; once for all that joined between two requests."""
        changed = np.fromiter(self._waiting, np.int64)
        keep = ~np.isin(self._keys & ((1 << ROW_BITS) - 1), changed)
        keys = np.concatenate([self._keys[keep], *(keys for keys, _ in self._waiting.values())])
        sets = np.concatenate([self._sets[:, :-1][:, keep], *(s for _, s in self._waiting.values())], axis=1)
        order = np.argsort(keys)
        self._keys = keys[order]
        self._sets = np.pad(sets[:, order], ((0, 0), (0, 1)))
        self._waiting.clear()


@dataclass
class Intents:
    """Declared intents, each by its place; and which places are a skill's."""

    slots: Sets  # (I,)
    required: Sets  # (I,)
    refused: Sets  # (I,)
    answers: NDArray[np.int64]  # (I,)
    kinds: NDArray[np.float32]  # (I, KINDS)
    needs: NDArray[np.float32]  # (I, KINDS)
    bits: Sets  # (I,) the intent's own in the set of its skill

    @classmethod
    def of(cls, count: int) -> "Intents":
        """Room for `count` of them."""
        slots, required, refused, bits = np.zeros((4, count), np.int64)
        kinds, needs = np.zeros((2, count, len(KINDS)), np.float32)
        return cls(slots, required, refused, np.full(count, UNKNOWN), kinds, needs, bits)

    def grow(self, count: int) -> None:
        """Room for `count` more."""
        more = Intents.of(count)
        for name in self.__dataclass_fields__:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(more, name)]))

    def put(self, places: list[int], skill: Declared) -> None:
        """The intents of `skill` stand at `places` from now on."""
        for at, (place, intent) in enumerate(zip(places, skill.intents, strict=True)):
            self.slots[place], self.required[place] = intent.slots, intent.required
            self.refused[place], self.answers[place] = intent.refused, intent.answer
            self.kinds[place], self.needs[place] = intent.kinds, intent.needs
            self.bits[place] = 1 << min(at, BITS - 1)


@dataclass
class Skills:
    """Declarations by the catalogue's row."""

    lexicon: Lexicon
    entries: Entries
    intents: Intents
    index: NDArray[np.int64]  # (S, M) places of each skill's intents, -1 at padding
    numbers: Sets  # (S,) slots that hold a number
    listed: Sets  # (S,) slots that take what they list and nothing else
    aspects: Sets  # (S,) slots that are spoken of by name or listed value
    declared: dict[int, Declared]
    free: list[int]  # places of intents that nobody has, a heap

    @classmethod
    def empty(cls) -> "Skills":
        """No skill at all."""
        none = np.zeros(0, np.int64)
        return cls(
            Lexicon(), Entries(), Intents.of(0), np.full((0, 1), -1), none, none.copy(), none.copy(), {}, []
        )

    def put(self, row: int, skill: Declared | None) -> list[int]:
        """What the skill at `row` declares from now on; returns the places of its intents."""
        self._make_room(row)
        if (before := self.declared.pop(row, None)) is not None:
            self.lexicon.drop(before.entries, before.beginnings)
            for place in self.index[row, self.index[row] >= 0].tolist():
                heappush(self.free, place)
        self.index[row] = -1
        if skill is None:
            self.entries.put(row, [], [])
            self.numbers[row] = self.listed[row] = self.aspects[row] = 0
            return []
        places = self._places(row, len(skill.intents))
        self.declared[row] = skill
        self.intents.put(places, skill)
        self.numbers[row], self.listed[row], self.aspects[row] = skill.numbers, skill.listed, skill.aspects
        sets = [*skill.entries.values()]
        self.entries.put(row, self.lexicon.add(skill.entries, skill.beginnings), sets)
        return places

    def _make_room(self, row: int) -> None:
        if (missing := row + 1 - len(self.index)) > 0:
            missing = max(
                missing, len(self.index) // 8
            )  # so that a thousand that join do not copy a thousand times
            self.index = np.pad(self.index, ((0, missing), (0, 0)), constant_values=-1)
            for name in ("numbers", "listed", "aspects"):
                setattr(self, name, np.pad(getattr(self, name), (0, missing)))

    def _places(self, row: int, count: int) -> list[int]:
        """Places for `count` intents: the lowest that nobody has."""
        if (missing := count - self.index.shape[1]) > 0:
            self.index = np.pad(self.index, ((0, 0), (0, missing)), constant_values=-1)
        if (missing := count - len(self.free)) > 0:
            size = len(self.intents.slots)
            missing = max(missing, size // 8)
            self.intents.grow(missing)
            self.free += range(size, size + missing)  # above all others: still a heap
        places = [heappop(self.free) for _ in range(count)]
        self.index[row, :count] = places
        return places
