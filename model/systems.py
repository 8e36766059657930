"""The named systems that the experiment compares and `namefree train --system` trains.

Each is the standard recipe with something changed, so that a pair of names tells what is compared.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from model.pipeline import Recipe
from model.shortlister import ShortlisterSettings
from model.training import TrainingSettings
from topics.errors import UsageError

Group = Literal["ladder", "departures", "paper", "constants"]
GROUPS: dict[Group, str] = {
    "ladder": "one text model, links weighed in different ways",
    "departures": "the best system with one thing changed",
    "paper": "the published recipe, as near as this code can be to it",
    "constants": "one constant bonus for every link, over the ladder's text model",
}
CONSTANTS = tuple(range(11))  # added to the log-probability of a linked skill: e^10 is more than any link is worth


class System(Struct, frozen=True, kw_only=True):
    """A recipe with a name. `constant`: what a link adds is this, and is not learned."""

    name: str
    group: Group
    told: str
    recipe: Recipe
    constant: float | None = None


def _changed(
    recipe: Recipe,
    shortlister: dict[str, object] | None = None,
    training: dict[str, object] | None = None,
    links: dict[str, object] | None = None,
    **whole: object,
) -> Recipe:
    return replace(
        recipe,
        shortlister=replace(recipe.shortlister, **shortlister or {}),
        training=replace(recipe.training, **training or {}),
        links=replace(recipe.links, **links or {}),
        **whole,
    )


BEST = Recipe()
UNTAUGHT: dict[str, object] = {"supervised": False, "shares": False, "soft_targets": False}
PUBLISHED = _changed(
    BEST,
    shortlister={"reading": "bilstm", "use": "gate", "reads_text": False, "reads_request": False, "summary": True},
    training={"jointly": True, "prototypes": False, "alpha": 0.01},
    pretrained=False,
    own_words=False,
)


def _rung(recipe: Recipe, attention: str, *mechanisms: str) -> Recipe:
    """The recipe with this attention and of the mechanisms these alone."""
    on = dict.fromkeys(mechanisms, True)
    return _changed(recipe, shortlister={**UNTAUGHT, "attention": attention, **on})


def _ladder() -> list[System]:
    rungs = (
        ("none", "links are not looked at", ("none",)),
        ("bonus", "one constant for every link, fitted on texts held out from training", ("bonus",)),
        ("softmax", "attention weights that add up to 1 over the links", ("softmax",)),
        ("sigmoid", "each link has a weight of its own", ("sigmoid",)),
        ("sigmoid+shares", "and each epoch is fed what the one before chose", ("sigmoid", "shares")),
        (
            "sigmoid+soft-targets",
            "and each epoch learns from the weights of the one before",
            ("sigmoid", "soft_targets"),
        ),
        ("sigmoid+supervised", "and weights are told which skill was meant", ("sigmoid", "supervised")),
        ("supervised+shares", "supervised, and fed with shares", ("sigmoid", "supervised", "shares")),
        (
            "supervised+soft-targets",
            "supervised, and learning from the weights before",
            ("sigmoid", "supervised", "soft_targets"),
        ),
        (
            "supervised+both",
            "supervised, and self-distilled in both ways",
            ("sigmoid", "supervised", "shares", "soft_targets"),
        ),
    )
    found = [
        System(name=name, group="ladder", told=told, recipe=_rung(BEST, *kinds)) for name, told, kinds in rungs
    ]
    return [*found, System(name="best", group="ladder", told="the standard recipe", recipe=BEST)]


def _departures() -> list[System]:
    rows: Sequence[tuple[str, str, Recipe]] = (
        ("bilstm", "a BiLSTM reads, as published", _changed(BEST, {"reading": "bilstm"})),
        ("bag", "a bag of words reads", _changed(BEST, {"reading": "bag"})),
        ("no-pretrained", "words start from nothing", _changed(BEST, pretrained=False)),
        ("no-prototypes", "skills start from nothing", _changed(BEST, training={"prototypes": False})),
        ("no-cards", "what cards say is not learned from", _changed(BEST, own_words=False)),
        ("gate", "a weight opens a gate, and is no probability", _changed(BEST, {"use": "gate"})),
        ("not-the-text", "weights do not see the text's scores", _changed(BEST, {"reads_text": False})),
        ("not-the-request", "weights do not see the request", _changed(BEST, {"reads_request": False})),
        ("summary", "the links' summary joins the request, as published", _changed(BEST, {"summary": True})),
        (
            "jointly",
            "links are trained with the text, and not on held-out texts",
            _changed(BEST, training={"jointly": True}),
        ),
        ("best-softmax", "softmax, and all else as in best", _changed(BEST, {"attention": "softmax"})),
        *(
            (f"random-links-{percent}", f"{percent} % of random linked sets", _random_links(percent))
            for percent in (0, 25, 50)
        ),
    )
    return [
        System(name=name, group="departures", told=told, recipe=recipe)
        for name, told, recipe in rows
        if recipe != BEST  # the standard share of random sets is no departure
    ]


def _random_links(percent: int) -> Recipe:
    return _changed(BEST, links={"random_links": percent / 100})


def _published() -> list[System]:
    rungs = (
        ("published-softmax", "softmax alone", ("softmax",)),
        ("published-sigmoid", "sigmoid alone", ("sigmoid",)),
        ("published-supervised", "sigmoid and supervised", ("sigmoid", "supervised")),
        (
            "published",
            "sigmoid, supervised and self-distilled",
            ("sigmoid", "supervised", "shares", "soft_targets"),
        ),
    )
    return [
        System(name=name, group="paper", told=told, recipe=_rung(PUBLISHED, *kinds)) for name, told, kinds in rungs
    ]


def _constants() -> list[System]:
    return [
        System(
            name=f"bonus={value}",
            group="constants",
            told=f"{value} for every link",
            recipe=_rung(BEST, "bonus"),
            constant=float(value),
        )
        for value in CONSTANTS
    ]


SYSTEMS = {system.name: system for system in (*_ladder(), *_departures(), *_published(), *_constants())}
TRAINABLE = tuple(name for name, system in SYSTEMS.items() if system.constant is None)


def selected(names: Sequence[str]) -> list[System]:
    """Systems by their names or their groups' names, in the table's order. Raises UsageError."""
    unknown = [name for name in names if name not in SYSTEMS and name not in GROUPS]
    if unknown:
        raise UsageError(
            f"there is no system {unknown[0]!r}: name one of {', '.join(SYSTEMS)}, or a group: {', '.join(GROUPS)}"
        )
    return [system for system in SYSTEMS.values() if system.name in names or system.group in names]


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with this seed in all that it is made of."""
    return replace(
        recipe,
        training=replace(recipe.training, seed=seed),
        links=replace(recipe.links, seed=seed),
        fitting=replace(recipe.fitting, seed=seed),
    )


def shortened(recipe: Recipe) -> Recipe:
    """The recipe with half of the epochs."""
    return replace(
        recipe,
        training=replace(recipe.training, epochs=-(-recipe.training.epochs // 2)),
        links=replace(recipe.links, epochs=-(-recipe.links.epochs // 2)),
    )


def text_recipe(recipe: Recipe) -> Recipe:
    """What of a recipe its text model depends on, all else being standard: equal ones share the text model.

    Where links are trained jointly with the text, that is what the links are made of, too.
    """
    mine, standard = recipe.shortlister, ShortlisterSettings()
    if not recipe.training.jointly:
        mine = replace(
            standard,
            reading=mine.reading,
            word_width=mine.word_width,
            state_width=mine.state_width,
            width=mine.width,
            dropout=mine.dropout,
        )
    return Recipe(
        text=recipe.text,
        shortlister=mine,
        training=replace(recipe.training, **_unused(recipe.training)),
        pretrained=recipe.pretrained,
        own_words=recipe.own_words,
        held_out=recipe.held_out,
    )


def _unused(training: TrainingSettings) -> dict[str, object]:
    """Settings that only a joint training reads, as they are by default."""
    standard = TrainingSettings()
    names = () if training.jointly else ("random_links", "alpha", "temperature")
    return {name: getattr(standard, name) for name in names}
