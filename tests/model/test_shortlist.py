"""Shortlists by the index, beside the exact scores of every skill."""

import pytest
import torch
from torch import Tensor

from model.attention import Kind, Use
from model.shortlist import Shortlist, Shortlists
from model.shortlister import POOL
from tests.model.networks import ALL_USES, TEXTS, read, shortlister

SKILLS = 3 * POOL
COUNT = 10


def some_links() -> Tensor:
    """Two far from the first for most requests, as most links are, and padding."""
    return torch.tensor([[5, 100, -1], [-1, -1, -1], [SKILLS - 1, 7, 60]])


def assert_same(made: Shortlist, scores: Tensor, count: int) -> None:
    """The list is the first `count` of scores (B, S + 1), where these are far enough apart to be told from each
    other."""
    best, rows = scores[:, :-1].topk(count, dim=1)  # (B, C)
    assert torch.allclose(made.scores, best, atol=1e-3)
    assert torch.allclose(made.none, scores[:, -1], atol=1e-4)
    apart = torch.ones_like(rows, dtype=torch.bool)
    near = (best[:, :-1] - best[:, 1:]) < 2e-3
    apart[:, :-1] &= ~near
    apart[:, 1:] &= ~near
    assert apart.float().mean() > 0.5
    assert torch.equal(made.rows[apart], rows[apart])


@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_a_shortlist_is_the_first_of_the_exact_scores(kind: Kind, use: Use, summary: bool) -> None:
    model, words = shortlister(kind, use, SKILLS, summary), read(*TEXTS)
    model.present[[3, 8]] = False
    with torch.no_grad():
        scores, found = model(words, some_links())
    made = Shortlists(model).make(words, some_links(), COUNT)
    assert_same(made, scores, COUNT)
    assert torch.allclose(made.weights, found.weights, atol=1e-4)


def test_a_list_longer_than_the_pool_is_exact_too() -> None:
    model, words = shortlister(skills=SKILLS), read(*TEXTS)
    with torch.no_grad():
        model.links.bias.fill_(6.0)
        scores, _ = model(words, some_links())
    assert_same(Shortlists(model).make(words, some_links(), POOL + 20), scores, POOL + 20)


def test_links_that_take_away_leave_room_for_what_is_next() -> None:
    model, words = shortlister(skills=SKILLS), read(*TEXTS)
    with torch.no_grad():
        model.links.bias.fill_(-30.0)
        text = model.text_scores(model.read(words).text, model.skill_vectors())
        linked = text[:, :-1].topk(5, dim=1).indices
        scores, _ = model(words, linked)
    made = Shortlists(model).make(words, linked, COUNT)
    assert_same(made, scores, COUNT)
    assert not made.linked.any()


def test_a_linked_skill_is_on_the_list_though_the_text_puts_it_last() -> None:
    model, words = shortlister(skills=SKILLS), read(TEXTS[0])
    with torch.no_grad():
        model.links.bias.fill_(60.0)
        last = model.text_scores(model.read(words).text, model.skill_vectors())[0, :-1].argmin()
    made = Shortlists(model).make(words, last[None, None], COUNT)
    assert made.rows[0, 0] == last
    assert made.linked[0].tolist() == [True] + [False] * (COUNT - 1)
    assert made.attention[0, 0] == made.weights[0, 0] > 0
    assert not made.attention[0, 1:].any()


def test_a_linked_skill_stands_once_on_the_list() -> None:
    model, words = shortlister(skills=SKILLS), read(TEXTS[0])
    with torch.no_grad():
        model.links.bias.fill_(2.0)
        first = model.text_scores(model.read(words).text, model.skill_vectors())[0, :-1].argmax()
    made = Shortlists(model).make(words, first[None, None], POOL)
    assert (made.rows == first).sum() == 1
    assert len(set(made.rows[0].tolist())) == POOL


def test_text_scores_are_those_without_links() -> None:
    model, words = shortlister(skills=5), read(*TEXTS)
    nobody, links = torch.full((3, 1), -1), torch.tensor([[0, 3], [1, -1], [2, 4]])
    making = Shortlists(model)
    with_links, alone = making.make(words, links, 5), making.make(words, nobody, 5)
    for at in range(3):
        told = dict(zip(with_links.rows[at].tolist(), with_links.text[at].tolist(), strict=True))
        assert [told[row] for row in alone.rows[at].tolist()] == pytest.approx(alone.text[at].tolist(), abs=1e-4)
    assert torch.equal(alone.text, alone.scores)
    assert torch.allclose(with_links.text_total, alone.total, atol=1e-5)
    exact = torch.logsumexp(torch.cat([with_links.scores, with_links.none[:, None]], dim=1), dim=1)
    assert torch.allclose(with_links.total, exact, atol=1e-5)


@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_a_removed_skill_is_never_on_the_list_be_it_linked(kind: Kind, use: Use) -> None:
    model, words = shortlister(kind, use), read(*TEXTS)
    model.present[3] = False
    made = Shortlists(model).make(words, torch.tensor([[3, 0], [3, -1], [-1, -1]]), 8)
    assert 3 not in made.rows
    assert [sorted(row[row >= 0].tolist()) for row in made.rows] == [[0, 1, 2, 4]] * 3


def test_a_list_longer_than_the_catalogue_ends_with_empty_places() -> None:
    model, words = shortlister(skills=5), read(*TEXTS)
    made = Shortlists(model).make(words, torch.tensor([[0, 3], [1, -1], [-1, -1]]), 9)
    assert (made.rows[:, 5:] == -1).all()
    assert [sorted(row) for row in made.rows[:, :5].tolist()] == [list(range(5))] * 3
    assert not made.linked[:, 5:].any()


def test_a_catalogue_that_every_skill_has_left_gives_empty_lists() -> None:
    model, words = shortlister(skills=2), read(*TEXTS)
    model.present[:] = False
    made = Shortlists(model).make(words, torch.tensor([[0, 1], [1, -1], [-1, -1]]), 4)
    assert (made.rows == -1).all()
    assert torch.allclose(made.total, made.none, atol=1e-5)


def test_a_skill_that_joins_or_leaves_the_index_later_is_found_or_not() -> None:
    """As the router does it, while it runs."""
    model, words = shortlister(skills=5), read(TEXTS[0])
    making = Shortlists(model)
    nobody = torch.tensor([[-1]])
    first = int(making.make(words, nobody, 5).rows[0, 0])
    key = model.keys(making.vectors)[first].clone()
    making.index.remove(first)
    assert first not in making.make(words, nobody, 5).rows
    making.index.put(first, key)
    assert making.make(words, nobody, 5).rows[0, 0] == first
