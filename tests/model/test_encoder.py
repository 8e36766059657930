"""The encoder: what must hold whatever the weights are."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.encoder import AT_ONCE, READINGS, ROUND, SPAN, Reading
from tests.model.networks import TEXTS, encoder, read, word_batches


@pytest.mark.parametrize("reading", READINGS)
def test_a_text_is_encoded_the_same_alone_and_in_longer_company(reading: Reading) -> None:
    network = encoder(reading)
    together, bags = network(read(*TEXTS))
    for at, text in enumerate(TEXTS):
        alone, bag = network(read(text))
        assert torch.allclose(alone[0], together[at], atol=1e-6)
        assert torch.allclose(bag[0], bags[at], atol=1e-6)


@pytest.mark.parametrize("reading", READINGS)
def test_no_texts_are_read_as_none(reading: Reading) -> None:
    u, bags = encoder(reading)(read())
    assert (u.shape, bags.shape) == ((0, 10), (0, 8))


@pytest.mark.parametrize("reading", READINGS)
def test_many_texts_are_read_in_portions_and_come_back_in_order(reading: Reading) -> None:
    network = encoder(reading)
    few, few_bags = network(read(*TEXTS))
    times = AT_ONCE // len(TEXTS)  # a text has several words, so these are several portions
    many, bags = network(read(*TEXTS * times))
    assert torch.allclose(many, few.repeat(times, 1), atol=1e-6)
    assert torch.allclose(bags, few_bags.repeat(times, 1), atol=1e-6)


def test_a_batch_of_long_requests_is_not_in_memory_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router's heap would hold for good what one such batch took."""
    network, seen = encoder("convolution"), []
    whole = network._pooled

    def watched(h: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(h.shape[0] * h.shape[1])
        return whole(h, *rest)

    monkeypatch.setattr(network, "_pooled", watched)
    network(read(*["get me a car and then another one please"] * 1_000))  # 9,000 words
    assert max(seen) <= 256
    assert sum(seen) == 9_000


@pytest.mark.parametrize("distinct", [1, ROUND - 1, ROUND, 2 * ROUND + 5])  # padding is one more
def test_serving_reads_as_training_does_however_many_words_are_distinct(distinct: int) -> None:
    network = encoder("convolution", dropout=0.0)
    words = [f"made{at}up" for at in range(distinct)]
    texts = [" ".join(words[at : at + 1 + at % 7]) for at in range(0, distinct, 3)] + [" ".join(words[-9:])]
    served, served_bags = network(read(*texts))
    learned, learned_bags = network.train()(read(*texts))
    assert torch.allclose(served, learned, atol=1e-5)
    assert torch.allclose(served_bags, learned_bags, atol=1e-6)


@pytest.mark.parametrize("reading", READINGS)
def test_only_a_bag_does_not_hear_the_order_of_words(reading: Reading) -> None:
    u, _ = encoder(reading)(read("get me a car", "car a me get"))
    assert torch.allclose(u[0], u[1], atol=1e-6) == (reading == "bag")


@pytest.mark.parametrize("reading", READINGS)
def test_a_text_without_a_word_is_read_as_something_finite(reading: Reading) -> None:
    u, bag = encoder(reading)(read("?!", "get me a car"))
    assert torch.isfinite(u).all()
    assert not bag[0].any()


def test_the_convolution_is_its_formula_written_out() -> None:
    network = encoder("convolution")
    words = read(*TEXTS)
    u, bag = network(words)
    vectors = network.word_vectors(words)
    for at, length in enumerate(words.lengths.tolist()):
        x = torch.cat([torch.zeros(1, 8), vectors[words.words[at, :length]], torch.zeros(1, 8)])  # (T + 2, E)
        h = F.gelu(torch.stack([network.convolution(x[t : t + SPAN].flatten()) for t in range(length)]))  # (T, H)
        weights = words.weights[at, :length]
        mean = (h * weights[:, None]).sum(0) / weights.sum()
        slow = network.bag(bag[at]) + network.state(torch.cat([h.amax(0), mean]))
        assert torch.allclose(u[at], slow, atol=1e-5)


def test_the_backward_reading_starts_at_each_texts_own_last_word() -> None:
    network = encoder("bilstm")
    batch = read(*TEXTS)
    vectors = network.word_vectors(batch)
    fast = network._backward(vectors[batch.words], batch.lengths)
    for at, length in enumerate(batch.lengths.tolist()):
        backwards = vectors[batch.words[at, :length]].flip(0)[None]
        slow, _ = network.backward_lstm(backwards)
        assert torch.allclose(fast[at], slow[0, -1], atol=1e-6)


def test_an_unseen_word_is_read_by_its_letters() -> None:
    _, bag = encoder("bag")(read("zeppelin", "zeppelins", "quartz"))
    assert bag[0] @ bag[1] > bag[0] @ bag[2]


def test_words_spelled_in_training_are_read_as_if_they_were_unseen() -> None:
    """All known words spelled, each as an unseen word of the same letters is."""
    network, batches = encoder("bag"), word_batches()
    encoded = batches.vocabulary.encode(["get me a car", ""])
    spelled = batches.batch(encoded, spell=1.0, generator=np.random.default_rng(0))
    assert [batches.vocabulary.words[row] for row in spelled.distinct.tolist()] == [""] * 5
    settings = batches.vocabulary.settings
    unseen = type(batches)(type(batches.vocabulary).of(["weather"], settings))
    strange = unseen.batch(unseen.vocabulary.encode(["get", "me", "a", "car"]))
    mine = network.word_vectors(spelled)[spelled.words[0]]
    theirs = network.word_vectors(strange)[strange.words[:, 0]]
    assert torch.allclose(mine, theirs, atol=1e-6)
    assert not network.word_vectors(spelled)[spelled.words[1, 0]].any(), "padding is never spelled"


def test_the_share_of_spelled_words_is_the_one_asked_for() -> None:
    batches = word_batches()
    encoded = batches.vocabulary.encode(["get me a car weather"])
    generator = np.random.default_rng(0)
    spelled = [len(batches.batch(encoded, spell=0.4, generator=generator).spelled) for _ in range(400)]
    assert 0.36 < sum(spelled) / 2000 < 0.44
    assert not len(batches.batch(encoded, spell=0.0, generator=generator).spelled)


@pytest.mark.parametrize("reading", READINGS)
def test_a_text_that_loses_all_its_words_in_training_teaches_nothing_infinite(reading: Reading) -> None:
    network = encoder(reading, dropout=0.9).train()
    u, bag = network(read(*["weather"] * 50))
    assert 5 < (bag.abs().sum(1) == 0).sum() < 45, "some lose their only word and some keep it"
    u.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(grad.coalesce().values() if grad.is_sparse else grad).all() for grad in gradients)
