"""A family of rival skills, as its TOML file in `families/` tells it.

`yes`, `maybe` and `no` of a skill name the intents that it declares and how it answers for them; an entry
`intent.slot` in `maybe` or `no` says the same of one slot. Phrases are drawn from what a skill answers with YES
or MAYBE, and never with a slot that it answers with NO: so the phrases keep to what the cards declare.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from topics.errors import BadData

FAMILIES_DIR = Path(__file__).parent / "families"
COMMON_FILE = Path(__file__).parent / "common.toml"

T = TypeVar("T", bound=Struct)
Values = dict[str, list[str]]


class SlotKind(Struct, frozen=True, forbid_unknown_fields=True):
    """What a slot holds. A slot of type `text` is open: its values only fill templates, no card lists them."""

    type: str
    description: str

    @property
    def is_open(self) -> bool:
        return self.type == "text"


class IntentPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """One intent of a family: its slots (`name!` is required) and the templates that ask for it."""

    name: str
    description: str
    asks: list[str]
    slots: list[str] = []


class SkillPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """One skill: its card, its abilities, and how many phrases it gets.

    `own` phrases come first, `leans` multiplies the weight of an intent, `values` narrows slots to what the
    skill serves.
    """

    brand: str
    name: str
    description: str
    reviews: Annotated[int, Meta(ge=0)]
    phrases: Annotated[int, Meta(ge=0)]
    yes: list[str]
    maybe: list[str] = []
    no: list[str] = []
    own: list[str] = []
    leans: dict[str, float] = {}
    values: Values = {}

    def answer(self, ability: str) -> Literal["YES", "MAYBE", "NO"]:
        """How the skill answers for an intent, or for `intent.slot`; an intent's NO holds for its slots."""
        if {ability, ability.partition(".")[0]} & {*self.no}:
            return "NO"
        return "MAYBE" if ability in self.maybe else "YES"

    def declares(self, intent: str) -> bool:
        return intent in (*self.yes, *self.maybe, *self.no)


class Family(Struct, frozen=True, forbid_unknown_fields=True):
    """A family: rivals that overlap. `link_share` is how often a request's intended skill is linked."""

    family: str
    category: str
    link_share: Annotated[float, Meta(ge=0.1, le=1.0)]
    intents: list[IntentPlan]
    skills: list[SkillPlan]
    values: Values = {}
    slots: dict[str, SlotKind] = {}

    def __post_init__(self) -> None:
        """Refuses a skill that names an intent or slot which the family does not have."""
        known = {intent.name for intent in self.intents} | {
            f"{intent.name}.{slot.removesuffix('!')}" for intent in self.intents for slot in intent.slots
        }
        for skill in self.skills:
            if unknown := {*skill.yes, *skill.maybe, *skill.no, *skill.leans} - known:
                raise ValueError(f"{self.skill_id(skill)} names unknown abilities {sorted(unknown)}")

    def skill_id(self, skill: SkillPlan) -> str:
        return f"{self.family}:{skill.brand}"


class Common(Struct, frozen=True, forbid_unknown_fields=True):
    """What families share: slot values, slot kinds, and requests that nobody should answer."""

    values: Values
    slots: dict[str, SlotKind]
    nobody: list[str]


def read_common() -> Common:
    """Reads `common.toml`; raises `BadData` where it is wrong."""
    return _read(COMMON_FILE, Common)


def read_families(common: Common) -> list[Family]:
    """Reads all families by file name, the common values and slots beneath their own.

    Raises `BadData` where a file is wrong.
    """
    return [_with_common(_read(path, Family), common) for path in sorted(FAMILIES_DIR.glob("*.toml"))]


def _with_common(family: Family, common: Common) -> Family:
    values = {**common.values, **family.values}
    return msgspec.structs.replace(family, values=values, slots={**common.slots, **family.slots})


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), kind)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadData(f"{path.name} is not a {kind.__name__.lower()} file: {error}") from error
