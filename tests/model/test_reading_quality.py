"""Requests with known truth are read well enough to be told."""

from model.bundle import Bundle
from model.catalogue import Catalogue
from model.data import read_skills
from model.reading_quality import measure, truths
from model.readings import Readings
from model.sample import SAMPLE_DIR


def test_the_same_seed_draws_the_same_truths() -> None:
    assert truths(1, 1) == truths(1, 1) != truths(2, 1)


def test_each_value_of_a_truth_stands_in_its_text() -> None:
    for truth in truths(0, 1):
        assert all(value in truth.text for value in truth.slots.values()), truth


def test_the_sample_is_read_as_its_templates_mean_it(small_bundle: Bundle) -> None:
    """Bounds below what was measured with a real encoder; this one has seen four families."""
    catalogue = Catalogue(read_skills(SAMPLE_DIR))
    readings = Readings.of(catalogue, small_bundle.shortlister.encoder, small_bundle.vocabulary)
    found = measure(readings, catalogue, truths(0, 1))
    assert found["intent"] > 0.6
    for kind in ("date", "duration", "place", "person", "listed"):
        assert found[f"{kind}_recall"] > 0.7, kind
    for kind in ("number", "duration", "place", "money", "listed"):
        assert found[f"{kind}_precision"] > 0.85, kind
