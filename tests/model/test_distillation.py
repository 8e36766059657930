"""What one epoch leaves for the next."""

import msgspec
import numpy as np
import pytest
import torch

from model.attention import attention_loss, distilled_loss, supervised_loss
from model.catalogue import Catalogue
from model.distillation import Memory, classifications, loss
from model.shortlister import ShortlisterSettings
from model.statistics import Statistics
from topics.events import Action, Decision, SkillCard

IDS = ("rides:acorn", "rides:birch", "cats:facts", "timers:eggo")
CATALOGUE = Catalogue([SkillCard(skill_id=skill_id, name=skill_id) for skill_id in IDS])
NONE = len(IDS)
LINKED = np.array([[0, 2], [0, -1], [1, 3], [-1, -1], [1, 2]])
CHOSEN = np.array([0, 1, NONE, 2, 2])

ENERGIES = torch.tensor([[1.0, -2.0], [0.3, 9.0]])
BEFORE = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
LINKS = torch.tensor([[0, 2], [3, -1]])
TARGETS = torch.tensor([2, 1])


def test_classifications_are_folded_as_decisions_would_be_one_by_one() -> None:
    """`none` is the only choice that is told apart: who stayed silent passed all links over."""
    single = Statistics()
    for chosen, links in zip(CHOSEN.tolist(), LINKED.tolist(), strict=True):
        single.fold(
            Decision(
                event_time_ms=0,
                utterance_id="u",
                customer_id="c",
                action=Action.NONE if chosen == NONE else Action.LAUNCH,
                skill_id=None if chosen == NONE else IDS[chosen],
                linked=tuple(IDS[row] for row in links if row >= 0),
            )
        )
    assert classifications(CATALOGUE, CHOSEN, LINKED) == single


def test_a_link_is_chosen_or_passed() -> None:
    found = classifications(CATALOGUE, CHOSEN, LINKED).skills
    told = {skill_id: (both.linked.chosen, both.linked.passed) for skill_id, both in found.items()}
    assert told == {"rides:acorn": (1, 1), "rides:birch": (0, 2), "cats:facts": (1, 1), "timers:eggo": (0, 1)}
    assert {skill_id: both.unlinked.chosen for skill_id, both in found.items() if both.unlinked.chosen} == {
        "rides:birch": 1,
        "cats:facts": 1,
    }
    assert not any(both.unlinked.passed for both in found.values())


def test_memory_gives_back_the_epoch_before_and_nothing_of_links_that_were_others() -> None:
    memory = Memory((2, 2))
    memory.start(np.array([[0, 1], [2, -1]]))
    assert not memory.before(np.array([0, 1])).any(), "nothing is known before the first epoch"
    memory.keep(np.array([1, 0]), torch.tensor([[5.0, 9.0], [1.0, 2.0]]), torch.tensor([2, NONE]))
    first = memory.statistics(CATALOGUE)
    memory.start(np.array([[0, 3], [2, -1]]))
    memory.keep(np.array([0, 1]), torch.zeros(2, 2), torch.tensor([0, 0]))
    assert memory.before(np.array([0, 1])).tolist() == [[1.0, 0.0], [5.0, 9.0]]
    assert memory.before(np.array([1])).tolist() == [[5.0, 9.0]]
    assert first == classifications(CATALOGUE, np.array([NONE, 2]), np.array([[0, 1], [2, -1]]))
    assert memory.statistics(CATALOGUE).skills["cats:facts"].linked.passed == 1


def test_what_a_memory_keeps_is_no_longer_learned_through() -> None:
    energies = torch.zeros(1, 1, requires_grad=True)
    memory = Memory((1, 1))
    memory.start(np.array([[0]]))
    memory.keep(np.array([0]), energies + 1, torch.tensor([0]))
    memory.start(np.array([[0]]))
    assert memory.before(np.array([0])).tolist() == [[1.0]]
    assert not memory.before(np.array([0])).requires_grad


def of(epoch: int, **changes: object) -> float:
    settings = msgspec.structs.replace(ShortlisterSettings(), **changes)
    return loss(settings, 0.1, 16.0, LINKS, TARGETS, ENERGIES, BEFORE, epoch).item()


def test_the_loss_is_as_published() -> None:
    mask = LINKS >= 0
    supervised = supervised_loss(ENERGIES, mask, torch.tensor([[False, True], [False, False]]))
    distilled = distilled_loss(ENERGIES, BEFORE, mask, 16.0)
    for epoch in (1, 7):
        expected = attention_loss(supervised, distilled, 0.1, epoch).item()
        assert of(epoch) == pytest.approx(expected)
        assert of(epoch, soft_targets=False) == pytest.approx(0.1 * 0.95**epoch * supervised.item())
        assert of(epoch, supervised=False) == pytest.approx(0.1 * (1 - 0.95**epoch) * distilled.item())
        assert of(epoch, supervised=False, soft_targets=False) == 0
    assert of(0) == pytest.approx(0.1 * supervised.item()), "the first epoch has none before it"


@pytest.mark.parametrize("kind", ["none", "bonus"])
def test_without_weights_there_is_nothing_to_teach_them(kind: str) -> None:
    assert of(3, attention=kind) == 0
