"""The shortlister's exact scores: what must hold whatever the weights are."""

import pytest
import torch

from model.attention import Kind, Use
from model.shortlister import NEVER, Shortlister, ShortlisterSettings
from model.statistics import OF_LINKS, OF_SKILLS
from tests.model.networks import ALL_USES, SETTINGS, TEXTS, read, shortlister, word_batches

NARROW = torch.tensor([[0, 3], [-1, -1], [2, -1]])


@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_padding_of_links_changes_no_score(kind: Kind, use: Use, summary: bool) -> None:
    model, words = shortlister(kind, use, summary=summary), read(*TEXTS)
    wide = torch.nn.functional.pad(NARROW, (0, 3), value=-1)
    assert torch.allclose(model(words, NARROW)[0], model(words, wide)[0], atol=1e-4)


@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_the_order_of_links_changes_no_score(kind: Kind, use: Use, summary: bool) -> None:
    model, words = shortlister(kind, use, summary=summary), read(*TEXTS)
    links = torch.tensor([[0, 3, 1], [4, 2, -1], [2, 0, 4]])
    assert torch.allclose(model(words, links)[0], model(words, links.flip(1))[0], atol=1e-4)


@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_a_link_speaks_of_its_own_skill_only(kind: Kind, use: Use) -> None:
    model, words = shortlister(kind, use), read(*TEXTS)
    moved = model(words, NARROW)[0] - model(words, torch.full((3, 1), -1))[0]  # (3, S + 1)
    assert (moved[1] == 0).all()
    linked = torch.tensor(
        [[True, False, False, True, False, False], [False] * 6, [False, False, True, *[False] * 3]]
    )
    assert not moved[~linked].any()
    assert (moved[linked].abs().max() > 0.1) == (kind != "none")


def test_the_scores_are_the_formula_written_out() -> None:
    model, words = shortlister("sigmoid"), read(TEXTS[0])
    scores, found = model(words, torch.tensor([[3, 1]]))
    u = model.encoder(words)[0][0]
    unit, v = u / u.norm(), model.skill_vectors()
    told = model.links.request.weight[0] @ unit + model.links.bias
    for i in range(6):
        score = model.scale.exp() * unit @ v[i]
        if i < 5:
            score = score + model.statistics[i, OF_SKILLS] @ model.prior.weight[0]
        if i in (1, 3):
            score = score + told + model.statistics[i, OF_LINKS] @ model.links.statistics.weight[0]
        assert scores[0, i].item() == pytest.approx(score.item(), abs=1e-4)
    assert found.weights.shape == (1, 2)


def test_the_published_summary_is_the_formula_written_out() -> None:
    """s = Σ a_i v_i joins the request, and moves the scores of all skills."""
    model, words = shortlister("sigmoid", "gate", summary=True, reads_text=False), read(TEXTS[0])
    scores, found = model(words, torch.tensor([[3, 1]]))
    u = model.encoder(words)[0][0]
    unit, v = u / u.norm(), model.skill_vectors()
    gate = torch.nn.functional.softplus(5 + model.links.gate)
    weights = {}
    for i in (3, 1):
        told = (
            model.statistics[i, OF_LINKS] @ model.links.statistics.weight[0] + model.links.request.weight[0] @ unit
        )
        weights[i] = torch.sigmoid(model.links.sharpness.exp() * unit @ v[i] + told + model.links.bias)
    assert found.weights[0].tolist() == pytest.approx([weights[3].item(), weights[1].item()], abs=1e-5)
    joined = unit + model.mix(torch.cat([unit, weights[3] * v[3] + weights[1] * v[1]]))
    for i in range(6):
        score = model.scale.exp() * joined / joined.norm() @ v[i]
        if i < 5:
            score = score + model.statistics[i, OF_SKILLS] @ model.prior.weight[0]
        if i in weights:
            score = score + gate * weights[i]
        assert scores[0, i].item() == pytest.approx(score.item(), abs=1e-3)


@pytest.mark.parametrize("reads_text", [True, False])
@pytest.mark.parametrize(("kind", "use"), ALL_USES)
def test_no_link_brings_a_removed_skill_back(kind: Kind, use: Use, reads_text: bool) -> None:
    model, words = shortlister(kind, use, reads_text=reads_text), read(*TEXTS)
    model.present[3] = False
    scores, found = model(words, torch.tensor([[3, 1], [3, -1], [0, 3]]))
    assert (scores[:, 3] < NEVER / 2).all()
    assert found.weights[[0, 1, 2], [0, 0, 1]].tolist() == [0, 0, 0]


def test_a_fresh_shortlister_puts_the_nearest_card_first() -> None:
    """Before any training: the cosine between the request's words and the card's."""
    batches = word_batches()
    torch.manual_seed(4)
    model = Shortlister(
        ShortlisterSettings(word_width=8, state_width=6, width=10), len(batches.vocabulary), SETTINGS.ngram_rows, 2
    ).eval()
    _, cards = model.encoder(read("weather", "car"))
    model.cards.copy_(cards.detach())
    scores = model.text_scores(model.read(read("a car", "the weather")).text, model.skill_vectors())
    assert scores[:, :2].argmax(1).tolist() == [1, 0]


def test_a_query_and_a_key_give_the_score() -> None:
    model, words = shortlister(), read(*TEXTS)
    model.present[2] = False
    vectors, text = model.skill_vectors(), model.read(words).text
    by_index = model.queries(text) @ model.keys(vectors).T
    assert torch.allclose(by_index, model.text_scores(text, vectors)[:, :-1], atol=1e-3)
