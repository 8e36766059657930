"""What requests say, before any skill is asked: their typed spans, and the declared terms in them.

Axes: B batch, T terms of a request (padded), P numbers of a request (padded).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.lexicon import STOP, Lexicon, stem
from model.spans import KINDS, NUMBER, WRITTEN, Span, Tagger, letter
from model.text import Vocabulary, tokens

MOST_TERMS = 24
MOST_NUMBERS = 3
LOOKED_AHEAD = 3  # words behind a number among which that stands what is counted
NO_NUMBER = -2
COMMON = 0.97  # weight in a bag, below which a word is one of everyday requests


class Read(NamedTuple):
    """One request. `said`: declared terms as number, first word, behind the last word."""

    words: list[str]
    spans: list[Span]
    said: list[tuple[int, int, int]]
    weights: list[float]  # of the words


@dataclass(frozen=True)
class Tagged:
    """A batch of requests. Terms and numbers that no skill declares are not among these."""

    read: tuple[Read, ...]
    terms: NDArray[np.int64]  # (T, B), -1 at padding
    weights: NDArray[np.float32]  # (T, B) of the terms, 0 at padding
    total: NDArray[np.float32]  # (B,) weight of all words of the request that say something
    kinds: NDArray[np.float32]  # (B, KINDS) how many spans of each kind
    numbers: NDArray[np.int64]  # (P, B) terms of numbers, -1 where nobody declares it, NO_NUMBER at padding
    counted: NDArray[np.int64]  # (P, LOOKED_AHEAD, B) terms that may be what is counted, -1 at padding

    def __len__(self) -> int:
        return len(self.read)


class Requests:
    """Reads requests against a lexicon that may grow."""

    def __init__(self, lexicon: Lexicon, vocabulary: Vocabulary) -> None:
        weights = dict(zip(vocabulary.words, vocabulary.weights.tolist(), strict=True))
        unseen = max(weights.values(), default=1.0)
        self._lexicon = lexicon
        self._spans = Tagger(lambda word: weights.get(word, unseen) < COMMON)
        self._most_words = vocabulary.settings.max_words

        @lru_cache(maxsize=131_072)
        def known(word: str) -> tuple[str, str, float, bool]:
            """Class, stem, weight, and whether a name may begin here; a word that says nothing has no stem."""
            if word in STOP:
                return letter(word), "", 0.0, False
            return letter(word), stem(word), weights.get(word, unseen), self._spans.may_begin(word)

        self._known = known

    def tag(self, texts: Sequence[str]) -> Tagged:
        """The requests as arrays. Words beyond the vocabulary's longest request are left out."""
        read = [self._read(text) for text in texts]
        B, T = len(read), min(MOST_TERMS, max((len(one.said) for one in read), default=0))
        tagged = Tagged(
            read=tuple(read),
            terms=np.full((max(1, T), B), -1, np.int64),
            weights=np.zeros((max(1, T), B), np.float32),
            total=np.fromiter((sum(one.weights) for one in read), np.float32, B),
            kinds=np.zeros((B, len(KINDS)), np.float32),
            numbers=np.full((MOST_NUMBERS, B), NO_NUMBER, np.int64),
            counted=np.full((MOST_NUMBERS, LOOKED_AHEAD, B), -1, np.int64),
        )
        for b, one in enumerate(read):
            for t, (number, start, end) in enumerate(one.said[:MOST_TERMS]):
                tagged.terms[t, b] = number
                tagged.weights[t, b] = sum(one.weights[start:end])
            for span in one.spans:
                tagged.kinds[b, span.kind] += 1
            self._count(tagged, b, one)
        return tagged

    def _count(self, tagged: Tagged, b: int, one: Read) -> None:
        """Puts down the request's numbers, and what may be counted by them."""
        spans = [span for span in one.spans if span.kind == NUMBER]
        for place, span in enumerate(spans[:MOST_NUMBERS]):
            tagged.numbers[place, b] = self._lexicon.number(span.value)
            for number, start, end in one.said:
                if span.end <= start < span.end + LOOKED_AHEAD and end == start + 1:
                    tagged.counted[place, start - span.end, b] = number

    def _read(self, text: str) -> Read:
        words = tokens(text)[: self._most_words]
        known = [self._known(word) for word in words]
        letters = "".join([one[0] for one in known])
        begin = [at for at, one in enumerate(known) if one[3]]
        spans = self._spans.spans(words, letters, begin)
        stems = [one[1] for one in known]
        for kind, start, end, _ in spans:
            if kind in WRITTEN:  # the words of a date, a time, money are no other value
                stems[start:end] = [""] * (end - start)
        return Read(words, spans, self._lexicon.said(stems), [one[2] for one in known])
