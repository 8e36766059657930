"""A small market, and one bundle trained on it for the whole session."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import torch

from model.bundle import Bundle, write_bundle
from model.data import Row, read_rows, read_skills, split_path
from model.linking import LinkSettings
from model.pipeline import Recipe, train
from model.reranker import RerankerSettings
from model.sample import SAMPLE_DIR
from model.selector import Selector
from model.shortlister import ShortlisterSettings
from model.training import TrainingSettings
from model.wording import WordingSettings
from topics.events import SkillCard

FAMILIES = ("rides:", "weather:", "pizza:", "timers:")

SMALL = Recipe(
    shortlister=ShortlisterSettings(word_width=32, state_width=16, width=48),
    reranker=RerankerSettings(candidates=6, width=16, heads=2, layers=1),
    training=TrainingSettings(epochs=4, batch=64),
    links=LinkSettings(epochs=3),
    wording=WordingSettings(bits=14),
    pretrained=False,
)


class Market(NamedTuple):
    """Cards, rows that were taught, rows that were not, and the bundle."""

    cards: list[SkillCard]
    rows: list[Row]
    dev: list[Row]
    bundle: Bundle


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def _market() -> Market:
    """Made and trained once, also where several folders' fixtures ask for it."""
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith(FAMILIES)]
    rows = _of(cards, read_rows(split_path(SAMPLE_DIR, "train")))
    dev = _of(cards, read_rows(split_path(SAMPLE_DIR, "dev")))
    return Market(cards, rows, dev, train(cards, rows, SMALL, lambda step, note: None))


def _of(cards: list[SkillCard], rows: list[Row]) -> list[Row]:
    known = {card.skill_id for card in cards}
    kept = [row for row in rows if row.skill_id is None or row.skill_id in known]
    return [
        msgspec.structs.replace(row, linked=tuple(skill for skill in row.linked or () if skill in known))
        for row in kept
    ]


@pytest.fixture(scope="session")
def small_cards() -> list[SkillCard]:
    return _market().cards


@pytest.fixture(scope="session")
def small_rows() -> list[Row]:
    return _market().rows


@pytest.fixture(scope="session")
def small_dev() -> list[Row]:
    return _market().dev


@pytest.fixture(scope="session")
def small_bundle() -> Bundle:
    return _market().bundle


@pytest.fixture(scope="session")
def small_folder(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(small_bundle, folder)
    return folder


@pytest.fixture(scope="session")
def small_selector(small_folder: Path) -> Selector:
    return Selector.load(small_folder)
