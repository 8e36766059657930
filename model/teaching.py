"""What the release that serves would have said, mixed into what a new one learns: distillation, against
forgetting.

The teacher's outputs (Hinton, Vinyals and Dean 2015) are told by text alone. Where they are spread over rivals,
what customers took tells these apart better than the teacher's own training did: each skill's share is multiplied
by how much more often it was taken than the teacher expected.

Axes: N examples, B batch, K beliefs (padded), S skills.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import Bundle
from model.catalogue import Catalogue
from model.data import Row
from model.encoder import WordBatches
from model.examples import Beliefs, Examples, batches, encode_rows
from model.shortlist import Shortlists
from model.statistics import Statistics

TOLD = 8  # skills of which a teacher tells: what is further down says little
IMAGINED = 10.0  # outcomes as expected that stand behind each skill's lift
MOST_LIFT = 4.0


def taught_by(
    parent: Bundle, catalogue: Catalogue, texts: Sequence[str], own: Examples, outcomes: Statistics, share: float
) -> Examples:
    """`own`, of `texts` in their order, of whose beliefs a `share` is now what `parent` says."""
    says = _says(parent, catalogue, texts, lifts(outcomes, catalogue.ids()))
    mine = own.beliefs
    mass = mine.shares.sum(axis=1, keepdims=True)  # (N, 1): who counts less than one goes on to
    rows = np.concatenate([mine.rows, says.rows], axis=1)
    shares = np.concatenate([mine.shares * (1 - share), says.shares * (mass * share)], axis=1)
    return replace(own, beliefs=Beliefs(rows, shares.astype(np.float32)))


def lifts(statistics: Statistics, skill_ids: Sequence[str]) -> NDArray[np.float64]:
    """How much more often each skill was kept where it was opened than was to be expected, (S,); 1 where nothing
    is known. What customers say of skills that were not opened does not count: it is too easily made up."""
    kept, expected = statistics.kept(skill_ids), statistics.expected(skill_ids)  # (S,) each
    usual = expected * (kept.sum() / max(expected.sum(), 1e-9))
    found: NDArray[np.float64] = (kept + IMAGINED) / (usual + IMAGINED)
    return np.clip(found, 1 / MOST_LIFT, MOST_LIFT)


@torch.no_grad()
def _says(parent: Bundle, catalogue: Catalogue, texts: Sequence[str], lift: NDArray[np.float64]) -> Beliefs:
    """The parent's beliefs by text alone; skills that are no more in the catalogue are left out."""
    theirs = parent.catalogue
    nobody = len(catalogue)
    rows_of = np.full(len(theirs) + 1, -1, dtype=np.int64)
    for row, skill_id in enumerate(theirs.ids()):
        if skill_id and skill_id in catalogue:
            rows_of[row] = catalogue.row(skill_id)
    examples = encode_rows([Row(text, None) for text in texts], theirs, parent.vocabulary)
    making, words = Shortlists(parent.shortlister, kind="float32"), WordBatches(parent.vocabulary)
    nothing = np.full((len(texts), 1), -1, dtype=np.int64)
    rows = np.zeros((len(texts), TOLD + 1), dtype=np.int64)
    shares = np.zeros((len(texts), TOLD + 1), dtype=np.float64)
    for batch in batches(examples, words, 512, nothing):
        made = making.make(batch.words, batch.linked, TOLD)
        found = rows_of[np.where(made.rows.numpy() < 0, len(theirs), made.rows.numpy())]  # (B, K)
        likely = np.exp((made.text - made.text_total[:, None]).double().numpy()) * (found >= 0)
        none = np.exp((made.none - made.text_total).double().numpy())[:, None]  # (B, 1)
        width = found.shape[1]
        rows[batch.rows, :width], rows[batch.rows, width] = np.maximum(found, 0), nobody
        shares[batch.rows, : width + 1] = np.concatenate([likely * lift[np.maximum(found, 0)], none], axis=1)
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    return Beliefs(rows, (shares / total).astype(np.float32))
