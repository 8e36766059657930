"""Attention and its losses, beside the slow and obvious."""

import math

import pytest
import torch

from model import attention
from model.attention import Kind

ENERGIES = torch.tensor([[1.0, -2.0, 0.5], [0.3, 9.0, 9.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bce(x: float, target: float) -> float:
    p = sigmoid(x)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def test_sigmoid_weights_stand_each_on_its_own() -> None:
    a = attention.weights("sigmoid", ENERGIES, MASK)
    expected = [[sigmoid(1.0), sigmoid(-2.0), sigmoid(0.5)], [sigmoid(0.3), 0, 0]]
    assert torch.allclose(a, torch.tensor(expected))


def test_softmax_weights_add_to_one_over_what_is_linked() -> None:
    a = attention.weights("softmax", ENERGIES, MASK)
    z = sum(math.exp(x) for x in (1.0, -2.0, 0.5))
    assert torch.allclose(a[0], torch.tensor([math.exp(x) / z for x in (1.0, -2.0, 0.5)]))
    assert a[1].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", attention.KINDS)
def test_nobody_linked_gives_no_weight_and_padding_changes_nothing(kind: Kind) -> None:
    assert attention.weights(kind, ENERGIES, torch.zeros_like(MASK)).abs().sum() == 0
    wide = attention.weights(
        kind, torch.nn.functional.pad(ENERGIES, (0, 2), value=7.0), torch.nn.functional.pad(MASK, (0, 2))
    )
    assert torch.allclose(wide[:, :3], attention.weights(kind, ENERGIES, MASK))
    assert wide[:, 3:].abs().sum() == 0


@pytest.mark.parametrize("kind", attention.KINDS)
def test_extreme_energies_stay_finite(kind: Kind) -> None:
    extreme = torch.tensor([[1e30, -1e30, 0.0]], requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    a = attention.weights(kind, extreme, mask)
    assert torch.isfinite(a).all()
    loss = attention.supervised_loss(extreme / 1e28, mask, mask)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert extreme.grad is not None
    assert torch.isfinite(extreme.grad).all()


def test_the_summary_is_the_weighted_sum_of_vectors() -> None:
    a, v = torch.rand(2, 3), torch.rand(2, 3, 4)
    slow = torch.stack([sum((a[b, i] * v[b, i] for i in range(3)), torch.zeros(4)) for b in range(2)])
    assert torch.allclose(attention.summary(a, v), slow)


def test_the_supervised_loss_wants_zeros_where_the_intended_skill_is_not_linked() -> None:
    intended = torch.tensor([[True, False, False], [False, False, False]])
    slow = (bce(1.0, 1) + bce(-2.0, 0) + bce(0.5, 0) + bce(0.3, 0)) / 2
    assert attention.supervised_loss(ENERGIES, MASK, intended).item() == pytest.approx(slow, rel=1e-5)
    assert attention.supervised_loss(ENERGIES, torch.zeros_like(MASK), intended).item() == 0


def test_the_distilled_loss_is_least_at_what_the_epoch_before_said() -> None:
    before = torch.tensor([[2.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    T = 16.0
    pairs = [(1.0, 2.0), (-2.0, -1.0), (0.5, 0.0), (0.3, 1.0)]
    slow = sum(bce(now / T, sigmoid(then / T)) for now, then in pairs) / 2
    assert attention.distilled_loss(ENERGIES, before, MASK, T).item() == pytest.approx(slow, rel=1e-5)
    at_rest = attention.distilled_loss(before, before, MASK, T)
    assert at_rest < attention.distilled_loss(before + 0.5, before, MASK, T)


def test_supervision_fades_into_distillation_as_epochs_pass() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert attention.attention_loss(one, two, 0.01, 0).item() == pytest.approx(0.01)
    beta = 1 - 0.95**10
    expected = 0.01 * ((1 - beta) * 1 + beta * 2)
    assert attention.attention_loss(one, two, 0.01, 10).item() == pytest.approx(expected)
