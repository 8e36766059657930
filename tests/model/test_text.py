"""Text to ids."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.text import PAD, TextSettings, Vocabulary, ngrams, tokens

TEXTS = ["get me a car", "what's the weather", "car wash near me"]


def vocabulary(**settings: int) -> Vocabulary:
    return Vocabulary.of(TEXTS, TextSettings(**settings))  # type: ignore[arg-type]


def test_punctuation_and_case_do_not_matter() -> None:
    assert tokens("Get me, a CAR!") == tokens("get me a car")
    assert tokens("what's up") == ["what's", "up"]


def test_the_most_frequent_words_come_first_and_rare_ones_weigh_more_in_a_bag() -> None:
    found = vocabulary()
    assert set(found.words[1:3]) == {"me", "car"}
    assert found.weights[found.words.index("wash")] > found.weights[found.words.index("me")]
    assert found.weights[PAD] == 0


def test_words_that_training_never_saw_get_ids_of_their_own() -> None:
    found = vocabulary()
    encoded = found.encode(["get me a zeppelin", "zeppelin now"])
    assert encoded.unseen == ("zeppelin", "now")
    assert encoded.words[0, 3] == encoded.words[1, 0] == len(found)
    assert (found.weights_of(encoded)[1, :2] > 0).all()


def test_a_long_request_is_cut_and_one_without_words_is_one_padding() -> None:
    encoded = vocabulary(max_words=2).encode(["get me a car", "?!"])
    assert encoded.lengths.tolist() == [2, 1]
    assert encoded.words[1].tolist() == [PAD, PAD]


def test_ngrams_are_the_same_everywhere() -> None:
    assert ngrams("car", TextSettings(ngram_rows=1000)) == [524, 437, 530, 586, 281, 23]


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_is_encoded_with_its_length(texts: list[str]) -> None:
    encoded = vocabulary(max_words=8).encode(texts)
    assert encoded.words.shape == (len(texts), encoded.lengths.max())
    beyond = np.arange(encoded.words.shape[1])[None] >= encoded.lengths[:, None]
    assert (encoded.words[beyond] == PAD).all()
    assert encoded.words.max() < len(vocabulary()) + len(encoded.unseen)
