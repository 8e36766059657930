"""The named systems: what each is, and what any two have in common."""

import msgspec
import pytest

from model.pipeline import Recipe
from model.systems import GROUPS, SYSTEMS, TRAINABLE, seeded, selected, shortened, text_recipe
from topics.errors import UsageError


def fields(recipe: Recipe) -> dict[str, object]:
    """Every setting by its path."""
    found: dict[str, object] = {}
    for part, value in msgspec.to_builtins(recipe).items():
        inner = value if isinstance(value, dict) else {"": value}
        found |= {f"{part}.{name}": one for name, one in inner.items()}
    return found


def changed(one: str, other: str) -> set[str]:
    mine, theirs = fields(SYSTEMS[one].recipe), fields(SYSTEMS[other].recipe)
    return {name for name in mine if mine[name] != theirs[name]}


def test_best_is_the_standard_recipe() -> None:
    assert SYSTEMS["best"].recipe == Recipe()


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.group == "departures"])
def test_a_departure_is_one_change(name: str) -> None:
    assert len(changed(name, "best")) == 1


@pytest.mark.parametrize(
    ("name", "before", "what"),
    [
        ("softmax", "none", {"attention"}),
        ("sigmoid", "softmax", {"attention"}),
        ("sigmoid+supervised", "sigmoid", {"supervised"}),
        ("sigmoid+shares", "sigmoid", {"shares"}),
        ("sigmoid+soft-targets", "sigmoid", {"soft_targets"}),
        ("supervised+shares", "sigmoid+supervised", {"shares"}),
        ("supervised+soft-targets", "sigmoid+supervised", {"soft_targets"}),
        ("supervised+both", "sigmoid+supervised", {"shares", "soft_targets"}),
        ("published-sigmoid", "published-softmax", {"attention"}),
        ("published-supervised", "published-sigmoid", {"supervised"}),
        ("published", "published-supervised", {"shares", "soft_targets"}),
    ],
)
def test_each_rung_of_a_ladder_is_its_mechanism(name: str, before: str, what: set[str]) -> None:
    assert changed(name, before) == {f"shortlister.{setting}" for setting in what}


def test_a_name_or_a_group_selects_and_another_is_refused() -> None:
    assert [system.name for system in selected(["best", "none"])] == ["none", "best"]
    assert {system.group for system in selected(["paper", "constants"])} == {"paper", "constants"}
    assert not set(SYSTEMS) & set(GROUPS)
    assert not [name for name in TRAINABLE if SYSTEMS[name].constant is not None]
    with pytest.raises(UsageError, match="there is no system 'bset'"):
        selected(["best", "bset"])


def test_a_seed_is_in_all_that_draws() -> None:
    found = seeded(Recipe(), 5)
    assert {found.training.seed, found.links.seed, found.fitting.seed} == {5}
    assert seeded(found, 0) == seeded(Recipe(), 0)


def test_shortened_has_half_of_the_epochs() -> None:
    whole, half = Recipe(), shortened(Recipe())
    assert half.training.epochs == (whole.training.epochs + 1) // 2
    assert half.links.epochs == (whole.links.epochs + 1) // 2


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.group == "ladder"])
def test_the_ladder_stands_on_one_text_model(name: str) -> None:
    assert text_recipe(SYSTEMS[name].recipe) == text_recipe(Recipe())


def test_text_recipes_keep_what_the_text_reads() -> None:
    texts = [text_recipe(SYSTEMS[name].recipe) for name in ("best", "bag", "bilstm", "no-prototypes", "no-cards")]
    assert len({msgspec.json.encode(text) for text in texts}) == 5
    joint = [text_recipe(SYSTEMS[name].recipe) for name in ("published", "published-softmax", "jointly")]
    assert len({msgspec.json.encode(text) for text in joint}) == 3
