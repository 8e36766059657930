"""The encoder: words and character n-grams -> BiLSTM and bag -> one vector u a request.

Axes: B batch, T words, E word width, H state width, D width of requests and skills, W distinct words.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.text import Encoded, Vocabulary, ngrams


@dataclass(frozen=True)
class Words:
    """A batch of texts, ready for the encoder."""

    words: Tensor  # (B, T) rows of `distinct`
    lengths: Tensor  # (B,)
    weights: Tensor  # (B, T), 0 at padding
    distinct: Tensor  # (W,) word rows; rows from the vocabulary's size upwards are unseen words
    ngram_rows: Tensor  # (n-grams of all distinct words,)
    ngram_starts: Tensor  # (W,)


class WordBatches:
    """Turns texts into `Words`; keeps each vocabulary word's n-grams, so that texts are read once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ngrams, self._starts = _ragged([ngrams(word, vocabulary.settings) for word in vocabulary.words])

    def batch(self, encoded: Encoded, rows: NDArray[np.int64] | None = None) -> Words:
        """The texts at `rows` (all by default) as one batch, cut to the longest of them."""
        every = np.arange(len(encoded.lengths)) if rows is None else rows
        lengths = encoded.lengths[every]
        words = encoded.words[every, : int(lengths.max(initial=1))]
        cut = Encoded(words, lengths, encoded.unseen)
        distinct, inverse = np.unique(words, return_inverse=True)
        ngram_rows, ngram_starts = self._ngrams_of(distinct, encoded.unseen)
        return Words(
            torch.from_numpy(inverse.reshape(words.shape)),
            torch.from_numpy(lengths),
            torch.from_numpy(self.vocabulary.weights_of(cut)),
            torch.from_numpy(distinct),
            torch.from_numpy(ngram_rows),
            torch.from_numpy(ngram_starts),
        )

    def _ngrams_of(
        self, distinct: NDArray[np.int64], unseen: tuple[str, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """N-gram rows of distinct words, one after the other, and where each word's begin, (W,)."""
        size = len(self.vocabulary)
        known = distinct[distinct < size]  # sorted, so the unseen ones come after all of them
        own, own_starts = _ragged(
            [ngrams(unseen[row - size], self.vocabulary.settings) for row in distinct[len(known) :]]
        )
        counts = self._starts[known + 1] - self._starts[known]
        ends = np.cumsum(counts)
        places = np.arange(int(counts.sum())) + np.repeat(self._starts[known] - (ends - counts), counts)
        starts = np.concatenate([ends - counts, own_starts[:-1] + len(places)])
        return np.concatenate([self._ngrams[places], own]), starts


def _ragged(lists: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists one after the other, and where each begins; one start more than lists."""
    starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return np.asarray([value for values in lists for value in values], dtype=np.int64), starts


class Encoder(nn.Module):
    """u = P_h [last forward state; last backward state] + P_b bag, (B, D).

    The published encoder is the BiLSTM alone; the bag (SIF-weighted mean of the same word vectors) is our
    addition: it puts requests and cards, which have no word order in common, into one space.
    """

    def __init__(self, vocabulary: int, ngram_rows: int, E: int, H: int, D: int, dropout: float) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, E, sparse=True)
        self.ngram = nn.EmbeddingBag(ngram_rows, E, mode="mean", sparse=True)
        self.forward_lstm = nn.LSTM(E, H, batch_first=True)
        self.backward_lstm = nn.LSTM(E, H, batch_first=True)
        self.state = nn.Linear(2 * H, D)
        self.bag = nn.Linear(E, D, bias=False)
        self.dropout = dropout
        nn.init.normal_(self.word.weight, std=E**-0.5)
        nn.init.normal_(self.ngram.weight, std=E**-0.5)
        nn.init.orthogonal_(self.bag.weight)
        nn.init.normal_(self.state.weight, std=0.01)  # starts as the bag: the nearest card or prototype wins

    def word_vectors(self, words: Words) -> Tensor:
        """Vectors of the batch's distinct words, (W, E). In training a tenth of the word rows is left out, so
        that n-grams learn to stand in for words that were never seen."""
        vectors: Tensor = self.ngram(words.ngram_rows, words.ngram_starts)  # (W, E)
        known = words.distinct < self.word.num_embeddings  # (W,)
        if self.training:
            known = known & (torch.rand(len(known)) > self.dropout / 2)
        own: Tensor = self.word(words.distinct * known) * known[:, None]  # (W, E)
        return vectors + own

    def bags(self, words: Words, vectors: Tensor) -> Tensor:
        """SIF-weighted mean of word vectors, unit length, (B, E)."""
        summed = torch.einsum("bt,bte->be", words.weights, vectors[words.words])
        return F.normalize(summed, dim=-1)

    def forward(self, words: Words) -> tuple[Tensor, Tensor]:
        """u (B, D) and the unit bag (B, E)."""
        vectors = self.word_vectors(words)
        x = vectors[words.words]  # (B, T, E)
        if self.training:
            kept = torch.rand(x.shape[:2]) > self.dropout / 2  # (B, T): whole words, so that no one word decides
            x = x * kept[..., None]
            words = Words(words.words, words.lengths, words.weights * kept, *_rest(words))
        states = torch.cat([self._last(self.forward_lstm, x, words.lengths), self._backward(x, words.lengths)], -1)
        states = F.dropout(states, self.dropout, self.training)  # (B, 2H)
        bag = self.bags(words, vectors)
        u: Tensor = self.bag(bag) + self.state(states)
        return u, bag

    def _backward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Reads each text from its own last word, (B, H). Padding stays at the end, so batches change nothing."""
        B, T, _ = x.shape
        back = (lengths[:, None] - 1 - torch.arange(T)).remainder(T)  # (B, T)
        return self._last(self.backward_lstm, x[torch.arange(B)[:, None], back], lengths)

    def _last(self, lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
        states, _ = lstm(x)  # (B, T, H)
        last: Tensor = states[torch.arange(len(x)), lengths - 1]  # (B, H)
        return last


def _rest(words: Words) -> tuple[Tensor, Tensor, Tensor]:
    return words.distinct, words.ngram_rows, words.ngram_starts
