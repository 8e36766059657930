"""Exemplars: the nearest of a few requests of each skill."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.exemplars import ABSENT, MOST, Exemplars

SKILLS, WIDTH = 6, 12
COUNTS = (0, 1, 3, MOST, MOST + 1, 40)  # requests of each skill


def unit(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def requests() -> tuple[Tensor, Tensor]:
    """Vectors and skills, shuffled, some for nobody and some of skills that are not there."""
    targets = torch.repeat_interleave(torch.arange(SKILLS), torch.tensor(COUNTS))
    targets = torch.cat([targets, torch.full((5,), SKILLS), torch.tensor([-1, SKILLS + 9])])
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    return unit(len(targets)), targets[order]


@pytest.fixture
def exemplars() -> Exemplars:
    return Exemplars.of(*requests(), SKILLS, seed=0)


def kept_of(exemplars: Exemplars, skill: int) -> Tensor:
    """The skill's own, (K, D)."""
    index = exemplars.index[skill]
    return exemplars.vectors[index[index >= 0]]


def is_among(vectors: Tensor, others: Tensor) -> Tensor:
    return (vectors[:, None] == others[None]).all(-1).any(1)


def test_the_nearest_is_that_of_a_loop_over_all_of_them(exemplars: Exemplars) -> None:
    asked = unit(9, seed=5)
    rows = torch.randint(SKILLS, (9, 4), generator=torch.Generator().manual_seed(2))
    expected = np.full((9, 4), ABSENT)
    for b in range(9):
        for c in range(4):
            for vector in kept_of(exemplars, int(rows[b, c])).double().numpy():
                expected[b, c] = max(expected[b, c], float(asked[b].double().numpy() @ vector))
    assert np.allclose(exemplars.nearest(asked, rows).numpy(), expected, atol=1e-5)


def test_no_request_of_a_skill_with_few_is_left_out_and_nobody_has_anothers(exemplars: Exemplars) -> None:
    vectors, targets = requests()
    for skill, count in enumerate(COUNTS):
        kept, own = kept_of(exemplars, skill), vectors[targets == skill]
        assert len(kept) == min(count, MOST)
        assert len(torch.unique(kept, dim=0)) == len(kept)
        assert is_among(kept, own).all()
    assert len(exemplars.vectors) == sum(min(count, MOST) for count in COUNTS), "no row that nobody has"


def test_of_many_requests_equal_seeds_choose_the_same_and_another_others(exemplars: Exemplars) -> None:
    again, other = (Exemplars.of(*requests(), SKILLS, seed=seed) for seed in (0, 1))
    assert torch.equal(again.vectors, exemplars.vectors)
    assert torch.equal(again.index, exemplars.index)
    assert not is_among(kept_of(other, 5), kept_of(exemplars, 5)).all()


def test_the_choice_among_many_is_not_that_of_the_first(exemplars: Exemplars) -> None:
    vectors, targets = requests()
    first = vectors[targets == 5][:MOST]
    assert not is_among(kept_of(exemplars, 5), first).all()


def test_who_has_none_is_near_to_nothing(exemplars: Exemplars) -> None:
    assert exemplars.nearest(unit(1), torch.tensor([[0]])).tolist() == [[ABSENT]]


def test_similarity_is_the_same_alone_and_in_company(exemplars: Exemplars) -> None:
    asked, rows = unit(7, seed=3), torch.tensor([[5, 2, 4]]).expand(7, 3)
    together = exemplars.nearest(asked, rows)
    alone = torch.cat([exemplars.nearest(asked[b : b + 1], rows[b : b + 1]) for b in range(7)])
    assert torch.equal(together, alone)


def test_a_skill_that_joins_brings_its_phrases_and_changes_nobody_elses(exemplars: Exemplars) -> None:
    asked, rows = unit(4, seed=8), torch.arange(SKILLS).expand(4, SKILLS)
    before, phrases = exemplars.nearest(asked, rows), unit(MOST + 3, seed=9)
    exemplars.put(SKILLS + 2, phrases)
    assert torch.equal(exemplars.nearest(asked, rows), before)
    found = exemplars.nearest(phrases[:2], torch.tensor([[SKILLS + 2, SKILLS + 1]] * 2))
    assert torch.allclose(found, torch.tensor([[1.0, ABSENT]] * 2), atol=1e-5)
    assert len(kept_of(exemplars, SKILLS + 2)) == MOST


def test_a_skill_that_comes_back_has_what_it_had_and_not_its_cards_phrases(exemplars: Exemplars) -> None:
    exemplars.put(SKILLS, unit(2, seed=9), source=2)
    assert torch.equal(kept_of(exemplars, SKILLS), kept_of(exemplars, 2))


def test_phrases_that_a_skill_has_no_longer_are_forgotten_and_their_places_used_again(
    exemplars: Exemplars,
) -> None:
    for number in range(30):
        exemplars.put(SKILLS + number % 2, unit(1 + number % 5, seed=number))
    for row, number in ((SKILLS, 28), (SKILLS + 1, 29)):
        assert torch.equal(kept_of(exemplars, row), unit(1 + number % 5, seed=number))
    learned = sum(min(count, MOST) for count in COUNTS)
    assert len(exemplars.vectors) <= learned + 2 * 5
    assert torch.equal(exemplars.vectors[:learned], Exemplars.of(*requests(), SKILLS, seed=0).vectors)


def test_a_card_without_phrases_brings_none(exemplars: Exemplars) -> None:
    exemplars.put(SKILLS, torch.empty(0, WIDTH))
    assert len(kept_of(exemplars, SKILLS)) == 0
