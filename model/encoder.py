"""The encoder: words -> a convolution or a BiLSTM, and a bag -> one vector u a request.

Axes: B batch, T words, E word width, H state width, D width of requests and skills, W distinct words.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.text import Encoded, Vocabulary, ngrams

Reading = Literal["convolution", "bilstm", "bag"]
READINGS: tuple[Reading, ...] = ("convolution", "bilstm", "bag")
SPAN = 3  # words that one step of the convolution sees
AT_ONCE = 256
"""Words read together where nothing is learned: less than a megabyte, however long the requests of a batch are.
With eight times as many a worker's heap did not stop growing: such a tensor needs a gap of its size in the heap,
and what is small and stays settles in the gaps."""
ROUND = 256  # distinct words of a batch, rounded up for its table


@dataclass(frozen=True)
class Words:
    """A batch of texts, ready for the encoder."""

    words: Tensor  # (B, T) places in `distinct`
    lengths: Tensor  # (B,)
    weights: Tensor  # (B, T), 0 at padding
    distinct: Tensor  # (W,) rows of the vocabulary; 0 where the word is spelled
    spelled: Tensor  # places in `distinct` of words without a row of their own
    ngram_rows: Tensor  # (n-grams of all spelled words,)
    ngram_starts: Tensor  # (spelled words,)


class WordBatches:
    """Turns texts into `Words`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def batch(
        self,
        encoded: Encoded,
        rows: NDArray[np.int64] | None = None,
        spell: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> Words:
        """The texts at `rows` (all by default) as one batch, cut to the longest of them.

        `spell`: the share of known words, drawn by `generator`, that are spelled as if they were unseen.
        """
        every = np.arange(len(encoded.lengths)) if rows is None else rows
        lengths = encoded.lengths[every]
        words = encoded.words[every, : int(lengths.max(initial=1))]
        cut = Encoded(words, lengths, encoded.unseen)
        distinct, inverse = np.unique(words, return_inverse=True)
        strange = distinct >= len(self.vocabulary)
        if generator is not None:
            strange |= (generator.random(len(distinct)) < spell) & (distinct > 0)
        ngram_rows, ngram_starts = self._ngrams_of(distinct[strange], encoded.unseen)
        return Words(
            torch.from_numpy(inverse.reshape(words.shape)),
            torch.from_numpy(lengths),
            torch.from_numpy(self.vocabulary.weights_of(cut)),
            torch.from_numpy(np.where(strange, 0, distinct)),
            torch.from_numpy(np.flatnonzero(strange)),
            torch.from_numpy(ngram_rows),
            torch.from_numpy(ngram_starts),
        )

    def _ngrams_of(
        self, rows: NDArray[np.int64], unseen: tuple[str, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """N-gram rows of words, one after the other, and where each word's begin."""
        known, size = self.vocabulary.words, len(self.vocabulary)
        words = [known[row] if row < size else unseen[row - size] for row in rows.tolist()]
        lists = [ngrams(word, self.vocabulary.settings) for word in words]
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)[:-1]
        return np.asarray([row for found in lists for row in found], dtype=np.int64), starts


class Encoder(nn.Module):
    """u = P_b bag + P_h [what the convolution, or the BiLSTM, makes of the words in their order], (B, D).

    The published encoder is the BiLSTM. The bag (SIF-weighted mean of the word vectors) is our addition: it puts
    requests and cards, which have no word order in common, into one space. The convolution over three words
    (Kim, EMNLP 2014), its maximum and its weighted mean, takes the BiLSTM's place because it is as good at less
    than half of the time; docs/concepts/networks.md has the figures.
    """

    def __init__(
        self, reading: Reading, vocabulary: int, ngram_rows: int, E: int, H: int, D: int, dropout: float
    ) -> None:
        super().__init__()
        self.reading = reading
        self.word = nn.Embedding(vocabulary, E, sparse=True, padding_idx=0)
        self.ngram = nn.EmbeddingBag(ngram_rows, E, mode="mean", sparse=True)
        self.bag = nn.Linear(E, D, bias=False)
        self.dropout = dropout
        nn.init.normal_(self.word.weight, std=E**-0.5)
        nn.init.normal_(self.ngram.weight, std=E**-0.5)
        nn.init.orthogonal_(self.bag.weight)
        with torch.no_grad():
            self.word.weight[0].zero_()  # padding, and where a spelled word stands
        if reading == "convolution":
            self.convolution = nn.Linear(SPAN * E, H)
        elif reading == "bilstm":
            self.forward_lstm = nn.LSTM(E, H, batch_first=True)
            self.backward_lstm = nn.LSTM(E, H, batch_first=True)
        if reading != "bag":
            self.state = nn.Linear(2 * H, D)
            nn.init.normal_(self.state.weight, std=0.01)  # starts as the bag: the nearest prototype wins
            nn.init.zeros_(self.state.bias)

    def word_vectors(self, words: Words) -> Tensor:
        """Vectors of the batch's distinct words, (W, E)."""
        own: Tensor = self.word(words.distinct)  # (W, E)
        if len(words.spelled):
            own = own.index_add(0, words.spelled, self.ngram(words.ngram_rows, words.ngram_starts))
        return own

    def bags(self, words: Words, vectors: Tensor) -> Tensor:
        """SIF-weighted mean of word vectors, unit length, (B, E)."""
        return self._bag(vectors[words.words], words.weights)

    def forward(self, words: Words) -> tuple[Tensor, Tensor]:
        """u (B, D) and the unit bag (B, E)."""
        vectors = self.word_vectors(words)  # (W, E)
        if self.training:
            return self._encode(vectors[words.words], words.weights, words.lengths)
        table = self._table(vectors) if self.reading == "convolution" else None
        some = max(1, AT_ONCE // words.words.shape[1])  # requests
        parts = [slice(at, at + some) for at in range(0, max(1, len(words.lengths)), some)]
        u, bags = zip(*[self._portion(words, part, vectors, table) for part in parts], strict=True)
        return torch.cat(u), torch.cat(bags)

    def _portion(self, words: Words, part: slice, vectors: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """`forward` of some requests (B), (B, D) and (B, E)."""
        places, weights, lengths = words.words[part], words.weights[part], words.lengths[part]
        if table is None:
            return self._encode(vectors[places], weights, lengths)
        bag = F.normalize(F.embedding_bag(places, vectors, per_sample_weights=weights, mode="sum"), dim=-1)
        states = self._pooled(self._looked_up(table, places), weights, lengths)  # (B, 2H)
        u: Tensor = self.bag(bag) + self.state(states)  # (B, D)
        return u, bag

    def _table(self, vectors: Tensor) -> Tensor:
        """What each word adds to the states after, at, and before it, (SPAN (W + some), H), for `_looked_up`.

        The convolution is linear, so a word that occurs often is multiplied once. Zeros come behind the last word,
        up to a round size: the heap has gaps of a few sizes then, and not of each batch's.
        """
        W, E = vectors.shape
        kernel = self.convolution.weight.view(-1, SPAN, E).permute(2, 1, 0)  # (E, SPAN, H)
        padded = F.pad(vectors, (0, 0, 0, ROUND - W % ROUND))  # (W + some, E)
        return (padded @ kernel.flatten(1)).view(SPAN * len(padded), -1)

    def _looked_up(self, table: Tensor, places: Tensor) -> Tensor:
        """The states of `_convolved` by a table, (B, T, H)."""
        B, T = places.shape
        zeros = len(table) // SPAN - 1
        padded = F.pad(places, (SPAN // 2, SPAN // 2), value=zeros) * SPAN  # (B, T + 2)
        rows = torch.stack([padded[:, at : at + T] + at for at in range(SPAN)], dim=-1)  # (B, T, SPAN)
        sums = F.embedding_bag(rows.view(B * T, SPAN), table, mode="sum")  # (B T, H)
        return F.gelu(sums + self.convolution.bias).view(B, T, table.shape[1])

    def _encode(self, x: Tensor, weights: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same of word vectors in their order, (B, T, E)."""
        if self.training:
            kept = torch.rand(x.shape[:2]) > self.dropout / 3  # (B, T): whole words, so that no one word decides
            x, weights = x * kept[..., None], weights * kept
        bag = self._bag(x, weights)  # (B, E)
        u: Tensor = self.bag(bag)  # (B, D)
        if self.reading == "bag":
            return u, bag
        if self.reading == "convolution":
            states = self._pooled(self._convolved(x), weights, lengths)  # (B, 2H)
        else:
            states = self._read(x, lengths)
        return u + self.state(F.dropout(states, self.dropout, self.training)), bag

    def _bag(self, x: Tensor, weights: Tensor) -> Tensor:
        return F.normalize(torch.einsum("bt,bte->be", weights, x), dim=-1)

    def _convolved(self, x: Tensor) -> Tensor:
        """The state at each word, (B, T, H). Beyond its ends a text is zeros."""
        T = x.shape[1]
        padded = F.pad(x, (0, 0, SPAN // 2, SPAN // 2))  # (B, T + 2, E)
        spans = torch.cat([padded[:, at : at + T] for at in range(SPAN)], dim=-1)  # (B, T, 3E)
        return F.gelu(self.convolution(spans))

    def _pooled(self, h: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
        """Maximum and weighted mean over each text's words, (B, 2H)."""
        inside = torch.arange(h.shape[1]) < lengths[:, None]  # (B, T)
        highest = h.masked_fill(~inside[..., None], -1.0).amax(dim=1)  # (B, H); gelu is never below -0.17
        mean = torch.einsum("bt,bth->bh", weights, h) / weights.sum(1, keepdim=True).clamp(min=1e-6)
        return torch.cat([highest, mean], dim=-1)

    def _read(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The last state of each direction, (B, 2H)."""
        return torch.cat([self._last(self.forward_lstm, x, lengths), self._backward(x, lengths)], -1)

    def _backward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Reads each text from its own last word, (B, H). Padding stays at the end, so batches change nothing."""
        B, T, _ = x.shape
        back = (lengths[:, None] - 1 - torch.arange(T)).remainder(T)  # (B, T)
        return self._last(self.backward_lstm, x[torch.arange(B)[:, None], back], lengths)

    def _last(self, lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
        states, _ = lstm(x)  # (B, T, H)
        last: Tensor = states[torch.arange(len(x)), lengths - 1]  # (B, H)
        return last
