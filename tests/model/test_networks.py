"""The encoder, the shortlister and the reranker: what must hold whatever the weights are."""

import numpy as np
import pytest
import torch

from model.attention import KINDS, Kind
from model.bundle import Bundle
from model.encoder import Encoder, WordBatches
from model.reranker import NONE, Hypotheses, Reranker, RerankerSettings, hypotheses, intended, pack, take
from model.shortlister import NEVER, Shortlister, ShortlisterSettings
from model.text import TextSettings, Vocabulary

TEXTS = ["get me a car", "weather", "a car for the zeppelin airport tomorrow morning please"]
SETTINGS = TextSettings(ngram_rows=64)


def words() -> WordBatches:
    return WordBatches(Vocabulary.of(TEXTS[:2], SETTINGS))


def shortlister(kind: Kind, skills: int = 5) -> Shortlister:
    torch.manual_seed(1)
    settings = ShortlisterSettings(attention=kind, word_width=8, state_width=6, width=10)
    model = Shortlister(settings, len(words().vocabulary), SETTINGS.ngram_rows, skills)
    torch.nn.init.normal_(model.rows)
    torch.nn.init.normal_(model.gate.weight)
    torch.nn.init.normal_(model.statistics_weight.weight)
    return model.eval()


def test_a_text_is_encoded_the_same_alone_and_in_longer_company() -> None:
    torch.manual_seed(0)
    batches = words()
    encoder = Encoder(len(batches.vocabulary), SETTINGS.ngram_rows, 8, 6, 10, 0.3).eval()
    together, bags = encoder(batches.batch(batches.vocabulary.encode(TEXTS)))
    for at, text in enumerate(TEXTS):
        alone, bag = encoder(batches.batch(batches.vocabulary.encode([text])))
        assert torch.allclose(alone[0], together[at], atol=1e-6)
        assert torch.allclose(bag[0], bags[at], atol=1e-6)


def test_the_backward_reading_starts_at_each_texts_own_last_word() -> None:
    torch.manual_seed(0)
    batches = words()
    encoder = Encoder(len(batches.vocabulary), SETTINGS.ngram_rows, 8, 6, 10, 0.0).eval()
    batch = batches.batch(batches.vocabulary.encode(TEXTS))
    vectors = encoder.word_vectors(batch)
    fast = encoder._backward(vectors[batch.words], batch.lengths)
    for at, length in enumerate(batch.lengths.tolist()):
        backwards = vectors[batch.words[at, :length]].flip(0)[None]
        slow, _ = encoder.backward_lstm(backwards)
        assert torch.allclose(fast[at], slow[0, -1], atol=1e-6)


def test_an_unseen_word_is_read_by_its_letters() -> None:
    torch.manual_seed(0)
    batches = words()
    encoder = Encoder(len(batches.vocabulary), SETTINGS.ngram_rows, 8, 6, 10, 0.0).eval()
    u, bag = encoder(batches.batch(batches.vocabulary.encode(["zeppelin", "zeppelins", "quartz"])))
    assert torch.isfinite(u).all()
    assert bag[0] @ bag[1] > bag[0] @ bag[2]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_links_changes_no_score(kind: Kind) -> None:
    model, batches = shortlister(kind), words()
    batch = batches.batch(batches.vocabulary.encode(TEXTS))
    narrow = torch.tensor([[0, 3], [-1, -1], [2, -1]])
    wide = torch.nn.functional.pad(narrow, (0, 3), value=-1)
    assert torch.allclose(model(batch, narrow).logits, model(batch, wide).logits, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_links_changes_no_score(kind: Kind) -> None:
    model, batches = shortlister(kind), words()
    batch = batches.batch(batches.vocabulary.encode(TEXTS))
    links = torch.tensor([[0, 3, 1], [4, 2, -1], [2, 0, 4]])
    assert torch.allclose(model(batch, links).logits, model(batch, links.flip(1)).logits, atol=1e-5)


def test_the_scores_are_the_formula_written_out() -> None:
    model, batches = shortlister("sigmoid"), words()
    model.statistics.normal_()
    batch = batches.batch(batches.vocabulary.encode(TEXTS[:1]))
    found = model(batch, torch.tensor([[3, 1]]))
    u, _ = model.encoder(batch)
    v = model.skill_vectors()
    unit = u[0] / u[0].norm()
    weights = {
        i: torch.sigmoid(model.attention_scale.exp() * (unit @ v[i]) + model.attention_bias) for i in (1, 3)
    }
    s = weights[1] * v[1] + weights[3] * v[3]
    joined = u[0] + model.mix(torch.cat([u[0], s]))
    gate = torch.nn.functional.softplus(model.gate(u[0]))[0]
    for i in range(6):
        score = model.scale.exp() * (joined / joined.norm()) @ v[i]
        if i < 5:
            score = score + model.statistics[i] @ model.statistics_weight.weight[0]
        if i in weights:
            score = score + gate * weights[i]
        assert found.logits[0, i].item() == pytest.approx(score.item(), abs=1e-4)


def test_a_removed_skill_is_never_shortlisted() -> None:
    model, batches = shortlister("sigmoid"), words()
    model.present[3] = False
    batch = batches.batch(batches.vocabulary.encode(TEXTS[:1]))
    assert model(batch, torch.tensor([[3]])).logits[0, 3] < NEVER / 2


def lists(bundle: Bundle, texts: list[str]) -> Hypotheses:
    batches = WordBatches(bundle.vocabulary)
    batch = batches.batch(bundle.vocabulary.encode(texts))
    linked = torch.tensor([[at, at + 3, -1] for at in range(len(texts))])
    with torch.no_grad():
        vectors = bundle.shortlister.skill_vectors()
        scores = bundle.shortlister(batch, linked, vectors)
        return hypotheses(bundle.shortlister, bundle.declarations, scores, batch, linked, vectors, 6)


def test_the_rerankers_answer_does_not_depend_on_the_order_of_the_list(small_bundle: Bundle) -> None:
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
    fresh = Reranker(RerankerSettings(candidates=6, width=16, heads=2)).eval()
    with torch.no_grad():
        probabilities = torch.softmax(fresh(found), dim=-1)
    assert torch.allclose(probabilities[:, :6], found.own[..., 0].exp(), atol=1e-3)
    assert torch.allclose(probabilities.sum(1), torch.ones(2))


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
