"""What links add to the text's scores, beside the slow and obvious."""

import math

import pytest
import torch
from torch import Tensor

from model.attention import LEAST_OTHERS, SURE, Kind, Links, Use, log_odds
from model.statistics import FEATURES, OF_LINKS
from tests.model.networks import ALL_USES

MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
READS = [(True, True), (True, False), (False, True), (False, False)]


def links(kind: Kind, use: Use, reads_text: bool = True, reads_request: bool = True) -> Links:
    torch.manual_seed(2)
    found = Links(kind, use, reads_text, reads_request, 4)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter)
    return found


def told() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Requests, odds, cosines and statistics of three customers with at most three links."""
    random = torch.Generator().manual_seed(5)
    u = torch.nn.functional.normalize(torch.randn(3, 4, generator=random), dim=-1)
    odds = 3 * torch.randn(3, 3, generator=random)
    cosines = torch.rand(3, 3, generator=random) * 2 - 1
    return u, odds, cosines, torch.randn(3, 3, len(FEATURES[OF_LINKS]), generator=random)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_log_odds_are_the_formula_written_out() -> None:
    """ln p_i / Σ_{j ≠ i} p_j over the pool and `none`, whether the linked skill is in the pool or not."""
    pool_rows, pool = torch.tensor([[7, 2, 5]]), torch.tensor([[2.0, 1.0, -1.0]])
    none, own = torch.tensor([[0.5]]), torch.tensor([[1.0, -3.0, 4.0]])
    found = log_odds(own, torch.tensor([[2, 9, -1]]), pool_rows, pool, none)
    inside = 1.0 - math.log(math.exp(2.0) + math.exp(-1.0) + math.exp(0.5))
    outside = -3.0 - math.log(math.exp(2.0) + math.exp(1.0) + math.exp(-1.0) + math.exp(0.5))
    assert found[0, :2].tolist() == pytest.approx([inside, outside], abs=1e-5)


def test_the_log_odds_of_a_skill_that_stands_alone_are_bounded_and_exact_until_there() -> None:
    """One skill far ahead: what is left is a small difference of large numbers, if it is computed as one."""
    for ahead in (5.0, 9.0, 11.0):
        pool = torch.tensor([[20.0, 20.0 - ahead]])
        found = log_odds(
            pool[:, :1] + 2e-6, torch.tensor([[3]]), torch.tensor([[3, 4]]), pool, torch.tensor([[-9.0]])
        )
        assert found.item() == pytest.approx(ahead, abs=1e-4)
    alone = torch.tensor([[1e4]])
    found = log_odds(alone, torch.tensor([[0]]), torch.tensor([[0]]), alone, torch.tensor([[-1e4]]))
    assert found.item() == pytest.approx(-math.log(LEAST_OTHERS), abs=1e-4)


def test_without_any_skill_in_the_pool_the_odds_stand_against_none() -> None:
    nobody = torch.empty(1, 0)
    found = log_odds(torch.tensor([[2.0]]), torch.tensor([[-1]]), nobody.long(), nobody, torch.tensor([[0.5]]))
    assert found.item() == pytest.approx(1.5)


def test_the_gradient_of_extreme_odds_is_finite() -> None:
    own = torch.tensor([[1e4, -1e4]], requires_grad=True)
    pool = torch.cat([own, torch.tensor([[0.0]])], dim=1)
    found = log_odds(own, torch.tensor([[0, 1]]), torch.tensor([[0, 1, 2]]), pool, torch.tensor([[0.0]]))
    found.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert own.grad is not None
    assert torch.isfinite(own.grad).all()


@pytest.mark.parametrize(("reads_text", "reads_request"), READS)
def test_energies_are_the_formula_written_out(reads_text: bool, reads_request: bool) -> None:
    network = links("sigmoid", "log-odds", reads_text, reads_request)
    u, odds, cosines, statistics = told()
    energies, a, _ = network(u, odds, cosines, statistics, MASK)
    for i in range(3):
        slow = network.statistics.weight[0] @ statistics[0, i] + network.bias
        slow = slow + (odds[0, i] if reads_text else network.sharpness.exp() * cosines[0, i])
        if reads_request:
            slow = slow + network.request.weight[0] @ u[0]
        assert energies[0, i].item() == pytest.approx(slow.item(), abs=1e-5)
        assert a[0, i].item() == pytest.approx(sigmoid(slow.item()), abs=1e-6)


def test_a_sigmoid_weight_is_the_probability_of_its_skill_against_all_others() -> None:
    """Two skills of the pool, one of them linked, and `none`: a_i is the softmax once the link is added."""
    network = links("sigmoid", "log-odds")
    pool_rows, pool, none = torch.tensor([[3, 1]]), torch.tensor([[1.5, 0.3]]), torch.tensor([[-0.4]])
    own, linked = torch.tensor([[0.3]]), torch.tensor([[1]])
    odds = log_odds(own, linked, pool_rows, pool, none)
    u, _, cosines, statistics = told()
    energies, a, added = network(u[:1], odds, cosines[:1, :1], statistics[:1, :1], torch.tensor([[True]]))
    assert torch.allclose(added, energies - odds)
    with_link = torch.tensor([1.5, 0.3 + added.item(), -0.4])
    assert a.item() == pytest.approx(torch.softmax(with_link, 0)[1].item(), abs=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("use", ["log-odds", "gate"])
def test_what_is_added_is_the_formula_written_out(kind: Kind, use: Use) -> None:
    network = links(kind, use)
    u, odds, cosines, statistics = told()
    energies, a, added = network(u, odds, cosines, statistics, MASK)
    gate = network.gate.item()
    for i in range(3):
        e, weight = energies[0, i].item(), a[0, i].item()
        if use == "gate":
            slow = math.log1p(math.exp(5 + gate)) * weight
        elif kind == "sigmoid":
            slow = e - odds[0, i].item()
        else:
            slow = math.log(weight / (1 - weight)) - odds[0, i].item() + gate
        assert added[0, i].item() == pytest.approx(slow, abs=1e-4)


def test_an_only_links_softmax_weight_is_one_and_counts_as_nearly_certain() -> None:
    network = links("softmax", "log-odds")
    u, odds, cosines, statistics = told()
    _, a, added = network(u, odds, cosines, statistics, MASK)
    assert a[1].tolist() == [1.0, 0.0, 0.0]
    certain = math.log((1 - SURE) / SURE)
    assert added[1, 0].item() == pytest.approx(certain - odds[1, 0].item() + network.gate.item(), abs=1e-3)


def test_a_bonus_is_one_constant_for_every_link() -> None:
    network = links("bonus", "log-odds")
    energies, a, added = network(*told(), MASK)
    assert torch.equal(added, network.bias * MASK)
    assert not energies.any()
    assert not a.any()


@pytest.mark.parametrize(("kind", "use"), ALL_USES)
@pytest.mark.parametrize("reads_text", [True, False])
def test_padding_and_order_of_links_change_nothing(kind: Kind, use: Use, reads_text: bool) -> None:
    network = links(kind, use, reads_text)
    u, odds, cosines, statistics = told()
    straight = network(u, odds, cosines, statistics, MASK)
    turned = network(u, odds.flip(1), cosines.flip(1), statistics.flip(1), MASK.flip(1))
    wide = network(
        u,
        torch.nn.functional.pad(odds, (0, 2), value=9.0),
        torch.nn.functional.pad(cosines, (0, 2), value=1.0),
        torch.nn.functional.pad(statistics, (0, 0, 0, 2), value=5.0),
        torch.nn.functional.pad(MASK, (0, 2)),
    )
    for name, mine, flipped, padded in zip(("energies", "weights", "added"), straight, turned, wide, strict=True):
        assert torch.allclose(mine[MASK], flipped.flip(1)[MASK], atol=1e-5), name
        assert torch.allclose(mine[MASK], padded[:, :3][MASK], atol=1e-5), name
        if name != "energies":
            assert not mine[~MASK].any(), name
            assert not padded[:, 3:].any(), name
