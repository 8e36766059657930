"""The reranker, on lists that a trained shortlister makes."""

import numpy as np
import pytest
import torch

from model.bundle import Bundle
from model.encoder import WordBatches
from model.reranker import (
    LIST_FEATURES,
    NONE,
    OWN_FEATURES,
    Hypotheses,
    Reranker,
    RerankerSettings,
    hypotheses,
    intended,
    pack,
    take,
)
from model.shortlist import Shortlists

SHAPE = RerankerSettings(candidates=6, width=16, heads=2)


def lists(bundle: Bundle, texts: list[str], count: int = 6) -> Hypotheses:
    batches = WordBatches(bundle.vocabulary)
    batch = batches.batch(bundle.vocabulary.encode(texts))
    linked = torch.tensor([[at, at + 3, -1] for at in range(len(texts))])
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(batch, linked, count)
        return hypotheses(bundle.shortlister, bundle.declarations, made, batch, linked)


def test_the_answer_does_not_depend_on_the_order_of_the_list(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car", "a pizza please", "will it rain"])
    order = torch.tensor(np.random.default_rng(3).permutation(6))
    turned = Hypotheses(
        rows=found.rows[:, order],
        own=found.own[:, order],
        lists=found.lists,
        linked=found.linked[:, order],
        attention=found.attention[:, order],
        none=found.none,
    )
    with torch.no_grad():
        straight, shuffled = small_bundle.reranker(found), small_bundle.reranker(turned)
    assert torch.allclose(straight[:, order], shuffled[:, :6], atol=1e-4)
    assert torch.allclose(straight[:, NONE:], shuffled[:, NONE:], atol=1e-4)


def test_an_untrained_reranker_says_what_the_shortlister_says(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car", "a pizza please"])
    with torch.no_grad():
        probabilities = torch.softmax(Reranker(SHAPE).eval()(found), dim=-1)
    assert torch.allclose(probabilities[:, :6], found.own[..., 0].exp(), atol=1e-3)
    assert torch.allclose(probabilities.sum(1), torch.ones(2))


def test_a_list_longer_than_the_catalogue_gives_its_empty_places_no_probability(small_bundle: Bundle) -> None:
    size = len(small_bundle.catalogue)
    found = lists(small_bundle, ["get me a car", "a pizza please"], size + 3)
    empty = found.rows < 0
    assert empty.any()
    assert sorted(found.rows[0][~empty[0]].tolist()) == list(range(size))
    with torch.no_grad():
        probabilities = torch.softmax(Reranker(SHAPE).eval()(found), dim=-1)
    assert probabilities[:, :NONE][empty].max() < 1e-9


def test_the_reranker_is_told_what_links_add_and_what_the_text_says_without(small_bundle: Bundle) -> None:
    linked, linked_list = features(small_bundle, 2)
    alone, alone_list = features(small_bundle, -1)
    assert torch.allclose(linked["text_log_probability"], alone["text_log_probability"], atol=1e-4)
    assert torch.allclose(alone["log_probability"], alone["text_log_probability"], atol=1e-4)
    assert linked["log_probability"][2] > alone["log_probability"][2] + 0.1
    assert linked["linked"].nonzero().tolist() == [[2]]
    assert linked_list["links"] == pytest.approx(0.1)
    assert alone_list["links"] == 0.0
    assert (linked_list["linked_candidates"], alone_list["linked_candidates"]) == (1.0, 0.0)
    assert linked_list["none_log_probability"] < alone_list["none_log_probability"]


def features(bundle: Bundle, link: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """By name, of one request with one link: (skills,) of each skill by its row, and those of the list."""
    batches = WordBatches(bundle.vocabulary)
    batch, linked = batches.batch(bundle.vocabulary.encode(["get me a car"])), torch.tensor([[link]])
    size = len(bundle.catalogue)
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(batch, linked, size)
        found = hypotheses(bundle.shortlister, bundle.declarations, made, batch, linked)
    assert sorted(found.rows[0].tolist()) == list(range(size))
    own = found.own[0][found.rows[0].argsort()]  # (skills, X)
    return dict(zip(OWN_FEATURES, own.T, strict=False)), dict(
        zip(LIST_FEATURES, found.lists[0].tolist(), strict=True)
    )


def test_the_right_outcome_is_the_candidate_or_none_or_elsewhere(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car"] * 3)
    none = len(small_bundle.catalogue)
    absent = next(row for row in range(none) if row not in found.rows[0])
    targets = torch.tensor([int(found.rows[0, 2]), none, absent])
    assert intended(found, targets, none).tolist() == [2, 6, 7]


def test_packing_and_taking_lists_are_opposites(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car", "a pizza please"])
    again = pack([take(found, torch.tensor([0])), take(found, torch.tensor([1]))])
    assert torch.equal(again.own, found.own)
    assert torch.equal(again.rows, found.rows)
