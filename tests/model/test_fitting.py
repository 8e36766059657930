"""Fitting the reranker: what rows count, in which worlds, and by which rows it is judged."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from model.bundle import Bundle
from model.data import Row
from model.encoder import WordBatches
from model.examples import encode_rows
from model.fitting import FittingSettings, Taught, fit_reranker, taught
from model.reranker import (
    COLUMNS,
    LIST_FEATURES,
    OWN_FEATURES,
    WIDTH,
    Listed,
    Reranker,
    RerankerSettings,
    intended,
    rerank_loss,
)
from model.shortlist import Shortlists

SHAPE = RerankerSettings(candidates=6, width=16)
QUICK = FittingSettings(epochs=3, batch=128)
C = 6


def random_lists(rows: int, worlds: int = 1, seed: int = 0) -> Taught:
    """Lists whose features say nothing of what is right, each in `worlds` equal worlds."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(rows, C, WIDTH, generator=generator)
    lists = torch.randn(rows, len(LIST_FEATURES), generator=generator)
    right = torch.randint(C, (rows,), generator=generator)
    one = torch.arange(C).expand(rows, C)
    return Taught(
        Listed(one.repeat(worlds, 1), own.repeat(worlds, 1, 1), lists.repeat(worlds, 1)),
        right.repeat(worlds),
        torch.ones(rows * worlds),
        torch.arange(rows).repeat(worlds),
    )


def told(found: Taught) -> Taught:
    """The same lists, in which one feature tells what is right."""
    own = found.listed.own.clone()
    own[..., OWN_FEATURES.index("values")] = torch.nn.functional.one_hot(found.right, C).float()
    return Taught(Listed(found.listed.rows, own, found.listed.lists), found.right, found.weights, found.rows)


def same(one: Reranker, other: Reranker) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def loss(network: Reranker, found: Taught) -> float:
    with torch.no_grad():
        return float(rerank_loss(network(found.listed), found.right, found.weights))


def test_equal_seeds_give_equal_weights_and_another_seed_others() -> None:
    found = random_lists(60, 2)
    networks = [fit_reranker(found, SHAPE, replace(QUICK, seed=seed), 60) for seed in (1, 1, 2)]
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_the_global_seed_changes_nothing() -> None:
    found = random_lists(30)
    torch.manual_seed(5)
    one = fit_reranker(found, SHAPE, QUICK, 30)
    torch.manual_seed(6)
    assert same(one, fit_reranker(found, SHAPE, QUICK, 30))


def test_it_learns_what_a_feature_tells_of_rows_that_it_has_not_met() -> None:
    settings = replace(QUICK, epochs=30, rate=0.05)
    network = fit_reranker(told(random_lists(200)), SHAPE, settings, 200)
    with torch.no_grad():
        others = told(random_lists(200, seed=1))
        assert (network(others.listed).argmax(1) == others.right).float().mean() > 0.9
    assert loss(network, others) < 0.5


@pytest.mark.parametrize("worlds", [1, 3])
def test_the_temperature_is_that_of_rows_that_the_network_has_not_met(worlds: int) -> None:
    """Lists that say nothing are learned by heart: to the network itself they seem certain, to others not.

    In another world a list is the same row: who has met it there has met it.
    """
    found = random_lists(40, worlds)
    network = fit_reranker(found, SHAPE, replace(QUICK, epochs=60, rate=0.05), 40)
    assert float(network.temperature) > 2.0
    network.temperature.fill_(1.0)
    assert loss(network, found) < 0.7, "it has learned them by heart"


@pytest.mark.parametrize(("rows", "folds"), [(1, 3), (40, 1)])
def test_where_nothing_is_left_to_judge_by_the_temperature_is_one(rows: int, folds: int) -> None:
    network = fit_reranker(random_lists(rows, 2), SHAPE, replace(QUICK, folds=folds), rows)
    assert float(network.temperature) == 1.0
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


def test_more_folds_than_rows_are_one_a_row() -> None:
    found = random_lists(3, 2)
    few, many = (fit_reranker(found, SHAPE, replace(QUICK, folds=folds), 3) for folds in (3, 50))
    assert same(few, many)


def test_lists_that_count_nothing_teach_nothing() -> None:
    found = random_lists(60)
    found.weights[::3] = 0.0
    wrong = Taught(found.listed, found.right.clone(), found.weights, found.rows)
    wrong.right[::3] = (wrong.right[::3] + 1) % C
    assert same(fit_reranker(found, SHAPE, QUICK, 60), fit_reranker(wrong, SHAPE, QUICK, 60))


def test_lists_that_count_more_are_learned_first() -> None:
    found = random_lists(40)
    heavy = Taught(found.listed, found.right, torch.where(torch.arange(40) < 20, 20.0, 0.1), found.rows)
    network = fit_reranker(heavy, SHAPE, replace(QUICK, epochs=40, rate=0.05), 40)
    with torch.no_grad():
        hits = (network(found.listed).argmax(1) == found.right).float()
    assert hits[:20].mean() > hits[20:].mean() + 0.3


def taught_by(
    bundle: Bundle,
    rows: Sequence[Row],
    known: Mapping[str, int],
    settings: FittingSettings,
    families: Sequence[tuple[str, ...]] = (),
) -> Taught:
    catalogue = bundle.catalogue
    counts = np.array([known.get(skill, 10) for skill in catalogue.ids()])
    rivals = {catalogue.row(skill): tuple(map(catalogue.row, family)) for family in families for skill in family}
    return taught(
        Shortlists(bundle.shortlister),
        bundle.evidence,
        WordBatches(bundle.vocabulary),
        [row.text for row in rows],
        encode_rows(rows, catalogue, bundle.vocabulary),
        counts,
        rivals,
        C,
        settings,
    )


PLAIN = FittingSettings(random_links=1.0, alone=0.5, rivals=0.25, rare=8.0, none=7.0)
ROWS = [
    Row("get me a car", "rides:acorn", linked=("rides:acorn", "timers:deepwork")),
    Row("please bake me a very large pizza tonight", "pizza:ovenfox", linked=("pizza:ovenfox",)),
    Row("what is the meaning of life", None, linked=("timers:deepwork", "pizza:ovenfox")),
    Row("car", "timers:deepwork", linked=("rides:acorn",)),
]


def test_each_row_counts_by_how_often_its_skill_was_taught(small_bundle: Bundle) -> None:
    """One that was never taught counts nothing, one for nobody what the settings say."""
    found = taught_by(small_bundle, ROWS, {"rides:acorn": 4, "pizza:ovenfox": 0, "timers:deepwork": 1}, PLAIN)
    base = [1 + 8 / 4, 0.0, 7.0, 1 + 8 / 1]
    for row, weight in zip(found.rows.tolist()[:4], found.weights.tolist()[:4], strict=True):
        assert weight == pytest.approx(base[row])
    assert found.weights.tolist() == pytest.approx([*base, *base, *(0.5 * one for one in base)])


def test_where_no_skill_was_taught_all_rows_count(small_bundle: Bundle) -> None:
    found = taught_by(small_bundle, ROWS[:2], {"rides:acorn": 0, "pizza:ovenfox": 0}, PLAIN)
    assert found.weights.tolist() == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_each_row_is_a_list_in_each_world_with_its_own_links_others_and_none(small_bundle: Bundle) -> None:
    found = taught_by(small_bundle, ROWS, {}, PLAIN)
    assert found.rows.tolist() == [0, 1, 2, 3] * 3
    links = (found.listed.lists[:, LIST_FEATURES.index("links")] * 10).round().int().view(3, 4).tolist()
    assert links[0] == [2, 1, 2, 1]
    assert links[2] == [0, 0, 0, 0]
    text = found.listed.own[..., COLUMNS["text"]][..., 0].view(3, 4, C)
    best = text.amax(2)
    assert torch.allclose(best[0], best[2], atol=1e-4), "lists of one row are of one text"
    assert not torch.allclose(best[0, 0], best[0, 1], atol=1e-3)


def test_what_is_right_is_told_in_the_order_of_the_rows_whatever_their_lengths(small_bundle: Bundle) -> None:
    found = taught_by(small_bundle, ROWS, {}, PLAIN)
    catalogue = small_bundle.catalogue
    targets = [len(catalogue) if row.skill_id is None else catalogue.row(row.skill_id) for row in ROWS]
    right = intended(found.listed, torch.tensor(targets * 3), len(catalogue))
    assert torch.equal(found.right, right)
    assert C in found.right


def test_a_row_of_rivals_is_a_list_with_none_and_with_all_of_them_linked(small_bundle: Bundle) -> None:
    family = ("rides:acorn", "rides:zippalong")
    found = taught_by(small_bundle, ROWS, {}, PLAIN, [family])
    assert found.rows.tolist() == [*[0, 1, 2, 3] * 3, 0, 0]
    assert found.weights[-2:].tolist() == pytest.approx([0.25 * 1.8] * 2)
    assert _linked(small_bundle, found, -2).isdisjoint(family)
    assert _linked(small_bundle, found, -1) >= set(family)
    links = found.listed.lists[-2:, LIST_FEATURES.index("links")] * 10
    assert links.tolist() == pytest.approx([1.0, 3.0]), "what else the customer has linked stays"


def _linked(bundle: Bundle, found: Taught, at: int) -> set[str]:
    """The list's candidates that are linked."""
    is_linked: Tensor = found.listed.own[at, :, OWN_FEATURES.index("is_linked")] > 0
    return {bundle.catalogue.ids()[row] for row in found.listed.rows[at][is_linked].tolist()}
