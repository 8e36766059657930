"""Words that mean nearly the same by the encoder: a request says `dogs` where a card says `pets`."""

from functools import lru_cache

import numpy as np
import torch

from model.encoder import Encoder
from model.text import Vocabulary

NEAR = 0.55  # cosine; above it stand `dogs` to `pets` and `children` to `kids`, and also `cheap` to `expensive`
MOST = 12
UNSAID = 1.0  # weight in a bag of a word that no request of the training said


class Neighbours:
    """Neighbours among the words that requests of the training said."""

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary) -> None:
        said = np.flatnonzero(vocabulary.weights < UNSAID)[1:]  # the first is padding
        with torch.no_grad():
            vectors = torch.nn.functional.normalize(encoder.word.weight[torch.from_numpy(said)], dim=-1)
        self._vectors = vectors.numpy()  # (said words, E)
        self._words = [vocabulary.words[row] for row in said.tolist()]
        self._rows = {word: row for row, word in enumerate(self._words)}
        self.near = lru_cache(maxsize=65_536)(self._near)

    def _near(self, word: str) -> tuple[str, ...]:
        """The word's nearest, nearest first, without itself; none for a word that no request said.

        One product a word, so that the answer is the same whichever others are asked for.
        """
        row = self._rows.get(word)
        if row is None:
            return ()
        cosines = self._vectors @ self._vectors[row]
        near = np.flatnonzero(cosines >= NEAR)
        order = near[np.argsort(-cosines[near], kind="stable")]
        return tuple(self._words[at] for at in order.tolist() if at != row)[:MOST]
