"""Text to word ids: words, character n-grams, and how they are set. No weights here (see `model.encoder`).

A word of the vocabulary has a vector of its own; any other is spelled: the mean of its n-grams' vectors.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
PAD = 0


class TextSettings(Struct, frozen=True, kw_only=True):
    """How text is read. `max_words`: longer requests are cut there; `ngram_rows`: hashed rows of n-grams."""

    max_words: int = 32
    min_count: int = 1
    max_vocabulary: int = 60_000
    ngram_lengths: tuple[int, ...] = (3, 4, 5)
    ngram_rows: int = 32_768
    sif: float = 1e-3  # a of Arora et al. 2017 (SIF): a word's weight in a bag is a / (a + its share)


@dataclass(frozen=True)
class Encoded:
    """Texts as ids. Ids from the vocabulary's size upwards are `unseen` words, in that order."""

    words: NDArray[np.int64]  # (texts, longest), PAD at the end
    lengths: NDArray[np.int64]  # (texts,), at least 1
    unseen: tuple[str, ...]


class Vocabulary:
    """The words that training saw, with their weights in a bag. Row 0 is padding."""

    def __init__(self, words: Sequence[str], weights: NDArray[np.float32], settings: TextSettings) -> None:
        self.words = tuple(words)
        self.weights = weights  # (vocabulary,), row 0 is 0
        self.settings = settings
        self._rows = {word: row for row, word in enumerate(self.words)}
        self._unseen_weight = float(weights.max()) if len(weights) else 1.0

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, texts: Iterable[str], settings: TextSettings, others: Iterable[str] = ()) -> "Vocabulary":
        """The vocabulary of `texts`, most frequent words first, then `others` that have vectors too."""
        counts = Counter(word for text in texts for word in tokens(text))
        kept = [(word, n) for word, n in counts.most_common(settings.max_vocabulary) if n >= settings.min_count]
        room = settings.max_vocabulary - len(kept)
        kept += [(word, 0) for word in islice((word for word in others if word not in counts), room)]
        total = max(1, sum(counts.values()))
        weights = [0.0] + [settings.sif / (settings.sif + n / total) for _, n in kept]
        return cls(["", *(word for word, _ in kept)], np.asarray(weights, dtype=np.float32), settings)

    def encode(self, texts: Sequence[str], max_words: int | None = None) -> Encoded:
        """Ids of each text's first `max_words` words, by default the settings'. A text without a word becomes one
        padding."""
        unseen: dict[str, int] = {}
        rows = [self._ids(text, unseen, max_words or self.settings.max_words) for text in texts]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        words = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.int64)
        for at, row in enumerate(rows):
            words[at, : len(row)] = row
        return Encoded(words, lengths, tuple(unseen))

    def _ids(self, text: str, unseen: dict[str, int], max_words: int) -> list[int]:
        found = tokens(text)[:max_words]
        known = self._rows
        size = len(known)
        return [known[w] if w in known else size + unseen.setdefault(w, len(unseen)) for w in found] or [PAD]

    def weights_of(self, encoded: Encoded) -> NDArray[np.float32]:
        """Each word's weight in a bag, (texts, longest); 0 at padding."""
        table = np.append(self.weights, np.full(len(encoded.unseen), self._unseen_weight, dtype=np.float32))
        found: NDArray[np.float32] = table[encoded.words]
        return found


def tokens(text: str) -> list[str]:
    """Lower-case words; punctuation separates."""
    return WORD.findall(text.lower())


def ngrams(word: str, settings: TextSettings) -> list[int]:
    """Rows of the word's character n-grams, hashed (CRC-32: equal on every machine and in every process)."""
    marked = f"<{word}>"
    pieces = (marked[i : i + n] for n in settings.ngram_lengths for i in range(max(1, len(marked) - n + 1)))
    return [zlib.crc32(piece.encode()) % settings.ngram_rows for piece in pieces]
