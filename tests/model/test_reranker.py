"""The reranker, on lists that a trained shortlister makes."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from model.bundle import Bundle
from model.encoder import WordBatches
from model.reranker import (
    COLUMNS,
    FEATURES_OF,
    GROUPS,
    LIKELY,
    LIST_FEATURES,
    LIST_FEATURES_OF,
    NONE,
    OWN_FEATURES,
    POSTERIOR,
    WIDTH,
    Group,
    Hypotheses,
    Listed,
    Reranker,
    RerankerSettings,
    Together,
    intended,
    pack,
    rerank_loss,
)
from model.shortlist import Shortlists

SHAPE = RerankerSettings(candidates=6, width=16, heads=2)
TOGETHER: tuple[Together, ...] = get_args(Together)
TEXTS = ["get me a car", "a pizza please", "will it rain"]
SHORTLISTERS = [OWN_FEATURES.index(name) for name in ("text_log_probability", "log_probability")]
every_together = pytest.mark.parametrize("together", TOGETHER)


def lists(bundle: Bundle, texts: list[str], count: int = 6) -> Hypotheses:
    batches = WordBatches(bundle.vocabulary)
    batch = batches.batch(bundle.vocabulary.encode(texts))
    linked = torch.tensor([[at, at + 3, -1] for at in range(len(texts))])
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(batch, linked, count)
        return bundle.evidence.hypotheses(made, batch, texts, linked)


def taught(together: Together = "pointwise", **changes: object) -> Reranker:
    """A reranker in which every weight counts, as all are drawn at random."""
    torch.manual_seed(2)
    network = Reranker(replace(SHAPE, together=together, **changes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
        network.own_mean.normal_()
        network.own_spread.uniform_(0.5, 2.0)
        network.temperature.fill_(1.7)
    return network


def turned(found: Listed, order: Tensor) -> Listed:
    """The same lists with their candidates at other places."""
    return Listed(found.rows[:, order], found.own[:, order], found.lists)


def logits(network: Reranker, found: Listed) -> Tensor:
    with torch.no_grad():
        said: Tensor = network(found)
    return said


def test_no_two_features_have_one_name() -> None:
    assert len(set(OWN_FEATURES)) == len(OWN_FEATURES) == WIDTH
    assert len(set(LIST_FEATURES)) == len(LIST_FEATURES)


@every_together
def test_the_answer_does_not_depend_on_the_order_of_the_list(small_bundle: Bundle, together: Together) -> None:
    found = lists(small_bundle, TEXTS)
    order = torch.tensor(np.random.default_rng(3).permutation(6))
    for network in (taught(together), small_bundle.reranker):
        straight, shuffled = logits(network, found), logits(network, turned(found, order))
        assert torch.allclose(straight[:, order], shuffled[:, :6], atol=1e-4)
        assert torch.allclose(straight[:, NONE:], shuffled[:, NONE:], atol=1e-4)


@every_together
def test_equal_candidates_do_not_make_the_order_matter(small_bundle: Bundle, together: Together) -> None:
    """Of skills that have left, or are far below, the shortlister says the same."""
    found = lists(small_bundle, TEXTS)
    found.own[..., LIKELY] = -30.0
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    network = taught(together)
    assert torch.allclose(
        logits(network, found)[:, order], logits(network, turned(found, order))[:, :6], atol=1e-4
    )


def test_the_bilstm_reads_in_the_order_of_the_shortlister(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS)
    network, read = taught("bilstm"), list[Tensor]()
    network.together.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].data))
    best = found.own[..., LIKELY].argsort(dim=1, descending=True)
    assert best.tolist() == [[*range(6)]] * 3, "lists come best first"
    logits(network, found)
    logits(network, turned(found, torch.tensor([5, 3, 1, 0, 2, 4])))
    assert torch.allclose(read[0], read[1], atol=1e-6)


@every_together
def test_candidates_see_each_other_or_by_features_alone(small_bundle: Bundle, together: Together) -> None:
    found = lists(small_bundle, TEXTS)
    changed = Listed(found.rows, found.own.clone(), found.lists)
    changed.own[:, 5, COLUMNS["statistics"]] += 3.0
    network = taught(together)
    same = torch.allclose(logits(network, found)[:, :5], logits(network, changed)[:, :5], atol=1e-4)
    assert same is (together == "pointwise")


@every_together
def test_contributions_sum_to_the_scores(small_bundle: Bundle, together: Together) -> None:
    found, network = lists(small_bundle, TEXTS), taught(together)
    with torch.no_grad():
        added = network.contributions(found)  # (B, C, G)
    assert added.shape[-1] == len(GROUPS)
    assert (added.abs().amax((0, 1)) > 1e-3).all(), "each group adds something"
    assert torch.allclose(added.double().sum(-1), 1.7 * logits(network, found)[:, :6].double(), atol=1e-5)


@pytest.mark.parametrize("group", FEATURES_OF)
@every_together
def test_a_group_that_it_does_not_see_cannot_change_a_score(
    small_bundle: Bundle, together: Together, group: Group
) -> None:
    """But for what the shortlister itself says of a candidate: that is where it starts from."""
    found = lists(small_bundle, TEXTS)
    changed = Listed(found.rows, found.own.clone(), found.lists.clone())
    columns = [at for at in range(WIDTH)[COLUMNS[group]] if at not in SHORTLISTERS]
    changed.own[..., columns] += torch.randn(3, 6, len(columns))
    changed.lists[:, [LIST_FEATURES.index(name) for name in LIST_FEATURES_OF.get(group, ())]] -= 2.0
    others = tuple(one for one in FEATURES_OF if one != group)
    blind, seeing = taught(together, groups=others), taught(together)
    assert torch.equal(logits(blind, found), logits(blind, changed))
    assert not torch.allclose(logits(seeing, found), logits(seeing, changed), atol=0.01)
    with torch.no_grad():
        assert group in ("text", "links") or not blind.contributions(found)[..., GROUPS.index(group)].any()


@every_together
def test_an_untrained_reranker_mixes_what_the_shortlister_says_and_what_links_say_by_habit(
    small_bundle: Bundle, together: Together
) -> None:
    found = lists(small_bundle, TEXTS)
    own = logits(Reranker(replace(SHAPE, together=together)).eval(), found)[:, :6]
    assert torch.allclose(own, found.own[..., [LIKELY, POSTERIOR]].mean(-1), atol=1e-4)


def test_an_untrained_reranker_that_sees_nothing_says_what_the_shortlister_says(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS)
    network = Reranker(replace(SHAPE, groups=())).eval()
    assert torch.allclose(logits(network, found)[:, :6], found.own[..., LIKELY], atol=1e-4)
    none = found.lists[:, :2] @ torch.tensor([0.3, 0.7])
    assert torch.allclose(logits(network, found)[:, NONE], none, atol=1e-4)


def test_what_no_phrase_is_near_to_is_for_nobody_from_the_start(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car", "get me a car"])
    found.lists[1, LIST_FEATURES.index("best_phrase")] -= 0.5
    near, far = logits(Reranker(SHAPE).eval(), found)[:, NONE]
    assert far > near + 5


@every_together
def test_a_list_longer_than_the_catalogue_gives_its_empty_places_no_probability(
    small_bundle: Bundle, together: Together
) -> None:
    size = len(small_bundle.catalogue)
    found = lists(small_bundle, TEXTS, size + 3)
    empty = found.rows < 0
    assert empty.any()
    assert sorted(found.rows[0][~empty[0]].tolist()) == list(range(size))
    probabilities = torch.softmax(logits(taught(together), found), dim=-1)
    assert probabilities[:, :NONE][empty].max() < 1e-9


@every_together
def test_empty_places_change_no_other_score(small_bundle: Bundle, together: Together) -> None:
    full, network = lists(small_bundle, TEXTS), taught(together)
    beside = torch.nn.functional.pad
    padded = Listed(
        beside(full.rows, (3, 0), value=-1), beside(full.own, (0, 0, 3, 0), value=7.0), full.lists
    )  # the empty ones come first, and the shortlister has words for them
    assert torch.allclose(logits(network, full), logits(network, padded)[:, 3:], atol=1e-4)


@every_together
def test_a_list_without_a_skill_is_for_nobody(together: Together) -> None:
    nobody = Listed(torch.full((2, 6), -1), torch.zeros(2, 6, WIDTH), torch.zeros(2, len(LIST_FEATURES)))
    probabilities = torch.softmax(logits(taught(together), nobody), dim=-1)
    assert torch.allclose(probabilities[:, NONE:].sum(1), torch.ones(2))


def test_the_reranker_is_told_what_links_add_and_what_the_text_says_without(small_bundle: Bundle) -> None:
    linked, linked_list = features(small_bundle, 2)
    alone, alone_list = features(small_bundle, -1)
    assert torch.allclose(linked["text_log_probability"], alone["text_log_probability"], atol=1e-4)
    assert torch.allclose(alone["log_probability"], alone["text_log_probability"], atol=1e-4)
    assert torch.allclose(alone["posterior"], alone["text_log_probability"], atol=1e-4)
    assert linked["log_probability"][2] > alone["log_probability"][2] + 0.1
    assert linked["posterior"][2] > alone["posterior"][2] + 0.1
    assert linked["is_linked"].nonzero().tolist() == [[2]]
    assert linked_list["links"] == pytest.approx(0.1)
    assert alone_list["links"] == 0.0
    assert (linked_list["linked_candidates"], alone_list["linked_candidates"]) == (1.0, 0.0)
    assert linked_list["none_log_probability"] < alone_list["none_log_probability"]


def features(bundle: Bundle, link: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """By name, of one request with one link: (skills,) of each skill by its row, and those of the list."""
    batches = WordBatches(bundle.vocabulary)
    batch, linked = batches.batch(bundle.vocabulary.encode(["get me a car"])), torch.tensor([[link]])
    size = len(bundle.catalogue)
    with torch.no_grad():
        made = Shortlists(bundle.shortlister).make(batch, linked, size)
        found = bundle.evidence.hypotheses(made, batch, ["get me a car"], linked)
    assert sorted(found.rows[0].tolist()) == list(range(size))
    own = found.own[0][found.rows[0].argsort()]  # (skills, X)
    return dict(zip(OWN_FEATURES, own.T, strict=True)), dict(
        zip(LIST_FEATURES, found.lists[0].tolist(), strict=True)
    )


def test_features_are_standardised_by_candidates_that_are_there(small_bundle: Bundle) -> None:
    found = lists(small_bundle, TEXTS, len(small_bundle.catalogue) + 3)
    found.own[found.rows < 0] = 1e6
    network = Reranker(SHAPE)
    network.standardise(found)
    there = found.own[found.rows >= 0].double().numpy()
    spread = there.std(0)
    assert np.allclose(network.own_mean.numpy(), there.mean(0), atol=1e-4)
    assert (spread < 1e-3).any(), "and where all are alike, nothing is blown up"
    assert np.allclose(network.own_spread.numpy(), np.where(spread > 1e-3, spread, 1.0), rtol=1e-3)


def test_the_right_outcome_is_the_candidate_or_none_or_elsewhere(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car"] * 3)
    none = len(small_bundle.catalogue)
    absent = next(row for row in range(none) if row not in found.rows[0])
    targets = torch.tensor([int(found.rows[0, 2]), none, absent])
    assert intended(found, targets, none).tolist() == [2, 6, 7]


def test_packing_and_taking_lists_are_opposites(small_bundle: Bundle) -> None:
    found = lists(small_bundle, ["get me a car", "a pizza please"])
    again = pack([found.take(torch.tensor([0])), found.take(torch.tensor([1]))])
    assert torch.equal(again.own, found.own)
    assert torch.equal(again.rows, found.rows)
    assert torch.equal(again.lists, found.lists)


def test_the_loss_is_the_weighted_mean_of_each_lists_own() -> None:
    said, right = torch.randn(5, 8), torch.tensor([0, 7, 3, 3, 6])
    weights = torch.tensor([1.0, 8.0, 0.0, 0.5, 2.0])
    said[1, 2] = -1e30
    total = 0.0
    for row, at, weight in zip(said.double().tolist(), right.tolist(), weights.tolist(), strict=True):
        total += weight * (math.log(math.fsum(math.exp(one) for one in row)) - row[at])
    assert float(rerank_loss(said, right, weights)) == pytest.approx(total / 11.5, rel=1e-5)
    assert float(rerank_loss(said, right, torch.zeros(5))) == 0.0
