"""Cards word by word: each word of a request looks for the nearest among the card's rarest."""

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from model.card_words import MOST, NARROW, CardWords
from model.catalogue import Catalogue, card_text
from model.encoder import WordBatches
from model.text import TextSettings, Vocabulary, tokens
from topics.events import Intent, SkillCard

CARDS = [
    SkillCard(
        skill_id="food:fig",
        name="Fig",
        description="Counts the calories and every nutrient of what you eat.",
        phrases=("what did the zebra have for lunch",),
    ),
    SkillCard(
        skill_id="facts:cat", name="Cat Facts", intents=(Intent(name="TellFact", description="a cat fact"),)
    ),
    SkillCard(skill_id="x", name="?"),
    SkillCard(skill_id="long", name="Long", description=" ".join(f"word{n}" for n in (*range(60), 50, 50, 50))),
]
TEXTS = [
    "energy of a fig",
    "tell me every cat fact please",
    "word3 word59",
    "word44 word45 word46 word47",
    "zebra",
    "?",
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    said = [card_text(card) for card in CARDS]
    # words of the long card are the rarer the higher their number
    common = [f"word{n}" for n in range(60) for _ in range(60 - n)]
    return Vocabulary.of([*said, " ".join(common), *TEXTS[:2], "the a of to " * 9], TextSettings(ngram_rows=16))


@pytest.fixture(scope="module")
def vectors(vocabulary: Vocabulary) -> Tensor:
    found = torch.randn(len(vocabulary), NARROW + 20, generator=torch.Generator().manual_seed(0))
    found[0] = 0.0
    return found


@pytest.fixture
def card_words(vocabulary: Vocabulary, vectors: Tensor) -> CardWords:
    return CardWords.of(Catalogue(CARDS), vectors, vocabulary)


def match(card_words: CardWords, vocabulary: Vocabulary, texts: list[str], rows: Tensor | None = None) -> Tensor:
    words = WordBatches(vocabulary).batch(vocabulary.encode(texts))
    return card_words.match(words, torch.arange(len(CARDS)).expand(len(texts), -1) if rows is None else rows)


def slowly(text: str, card: SkillCard, vocabulary: Vocabulary, vectors: Tensor) -> tuple[float, float]:
    """Both features, word by word in float64."""
    rows = {word: row for row, word in enumerate(vocabulary.words) if row}
    narrow = vectors[:, :NARROW].double().numpy()
    said = [
        word
        for word in dict.fromkeys(tokens(card_text(msgspec.structs.replace(card, phrases=()))))
        if word in rows
    ]
    rarest = sorted(said, key=lambda word: -float(vocabulary.weights[rows[word]]))[:MOST]
    weight = similar = exact = 0.0
    for word in tokens(text):
        share = float(vocabulary.weights[rows[word]]) if word in rows else float(vocabulary.weights.max())
        weight += share
        if word not in rows:
            continue  # spelled words have no vector here
        asked = narrow[rows[word]] / np.linalg.norm(narrow[rows[word]])
        cosines = [float(asked @ (narrow[rows[other]] / np.linalg.norm(narrow[rows[other]]))) for other in rarest]
        best = max([*cosines, *([] if len(rarest) == MOST else [0.0])])  # a short card has room for what is 0
        similar += share * best
        exact += share * (word in rarest)
    return similar / max(weight, 1e-6), exact / max(weight, 1e-6)


def test_both_features_are_those_of_a_loop_word_by_word(
    card_words: CardWords, vocabulary: Vocabulary, vectors: Tensor
) -> None:
    expected = [[slowly(text, card, vocabulary, vectors) for card in CARDS] for text in TEXTS]
    assert np.allclose(match(card_words, vocabulary, TEXTS).numpy(), np.array(expected), atol=1e-5)


def test_a_word_that_the_card_has_too_is_found_and_phrases_are_not_looked_at(
    card_words: CardWords, vocabulary: Vocabulary
) -> None:
    exact = match(card_words, vocabulary, ["calories", "cat", "zebra"])[..., 1]
    assert exact[:, :2].tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_of_a_long_card_the_rarest_words_are_looked_at(card_words: CardWords, vocabulary: Vocabulary) -> None:
    exact = match(card_words, vocabulary, ["word59", "word3"])[:, 3, 1]
    assert exact.tolist() == [1.0, 0.0]


def test_a_request_matches_the_same_alone_and_beside_longer_ones(
    card_words: CardWords, vocabulary: Vocabulary
) -> None:
    together = match(card_words, vocabulary, TEXTS)
    alone = torch.cat([match(card_words, vocabulary, [text]) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-6)


def test_a_candidate_matches_the_same_whoever_stands_beside_it(
    card_words: CardWords, vocabulary: Vocabulary
) -> None:
    straight = match(card_words, vocabulary, TEXTS[:2], torch.tensor([[0, 1, 3]] * 2))
    turned = match(card_words, vocabulary, TEXTS[:2], torch.tensor([[3, 0, 1]] * 2))
    assert torch.allclose(straight, turned[:, [1, 2, 0]], atol=1e-6)


def test_words_of_a_card_that_training_never_saw_change_nothing(
    card_words: CardWords, vocabulary: Vocabulary
) -> None:
    before = match(card_words, vocabulary, TEXTS)
    strange = CARDS[0].description + " Gryphons quaff kombucha."
    card_words.put(0, msgspec.structs.replace(CARDS[0], description=strange))
    assert torch.equal(match(card_words, vocabulary, TEXTS), before)


def test_a_request_of_words_that_training_never_saw_matches_nothing(
    card_words: CardWords, vocabulary: Vocabulary
) -> None:
    found = match(card_words, vocabulary, ["gryphons quaff", ""])
    assert not found.any()


def test_a_skill_that_left_matches_nothing_and_one_that_changed_matches_as_its_new_card(
    card_words: CardWords, vocabulary: Vocabulary, vectors: Tensor
) -> None:
    others = match(card_words, vocabulary, TEXTS)
    card_words.put(1, None)
    card_words.put(2, CARDS[0])
    card_words.put(6, CARDS[1])
    found = match(card_words, vocabulary, TEXTS, torch.tensor([[0, 1, 2, 6]] * len(TEXTS)))
    assert not found[:, 1].any()
    assert torch.equal(found[:, 0], others[:, 0])
    assert torch.allclose(found[:, [2, 3]], others[:, [0, 1]], atol=1e-6)
