"""One card's declarations, ready to be compared with requests: slots by kind, and which words speak of them.

Slots of one name in several intents are one slot. Sets of slots, and of intents, are the bits of an integer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from model.catalogue import spoken
from model.lexicon import STOP, beginnings_of, stem, term
from model.spans import DATE, DURATION, KINDS, MONEY, NUMBER, PERSON, PLACE, TIME, TITLE
from model.text import tokens
from topics.events import Ability, Answer, Intent, SkillCard, Slot

BITS = 63  # of a set; slots and intents beyond share the last one
UNKNOWN, NO, MAYBE, YES = -1, 0, 1, 2
ANSWERS: tuple[Answer, ...] = ("NO", "MAYBE", "YES")  # by code
CODES = {answer: code for code, answer in enumerate(ANSWERS)}

Near = Callable[[str], Iterable[str]]

# kinds of slots that are no kinds of spans
BOOLEAN, LISTED, OPEN = len(KINDS), len(KINDS) + 1, len(KINDS) + 2
_BOOLEANS = ({"true", "false"}, {"yes", "no"})

# words of a slot's type, name or description that tell its kind, tried in this order
_CUES: tuple[tuple[int, str], ...] = (
    (DATE, "date day days weekday datum"),
    (TIME, "time hour clock"),
    (DURATION, "duration long length minutes stay"),
    (MONEY, "money amount price cost sum budget"),
    (NUMBER, "number count size many quantity integer"),
    (PLACE, "city place location address area town origin destination airport where country street region"),
    (PERSON, "person artist actor actors director singer performer receiver recipient contact author celebs"),
    (TITLE, "title song movie film album track book show event playlist"),
)
_COUNTED = "people persons adults travelers passengers riders guests party group seats tickets us"
COUNTED = frozenset(stem(word) for word in _COUNTED.split())  # what a number of customers is said to be


NAMES, VALUES, INTENTS, NEAR = range(4)  # the sets of an entry


class Entry(NamedTuple):
    """What a term means to a skill: sets of slots whose name or description has it, of slots that list it as a
    value, of intents whose name or description has it, and of slots to one of whose words it is near."""

    names: int
    values: int
    intents: int
    near: int


@dataclass(frozen=True)
class DeclaredIntent:
    """An intent with its slots as sets. `refused`: slots that the card says it cannot fill or act on."""

    name: str
    slots: int
    required: int
    refused: int
    answer: int  # the card's own, UNKNOWN where it gives none
    kinds: tuple[int, ...]  # how many slots of each kind of span
    needs: tuple[int, ...]  # how many required ones


@dataclass(frozen=True)
class Declared:
    """A skill's declarations."""

    slots: tuple[str, ...]
    bits: tuple[int, ...]  # of the slots, in a set
    kinds: tuple[int, ...]  # of the slots
    intents: tuple[DeclaredIntent, ...]
    entries: dict[str, Entry]
    numbers: int  # slots that hold a number
    listed: int  # slots that take no values but those they list
    aspects: int  # slots that are spoken of by their names, or by values that they list, no numbers among these
    beginnings: tuple[str, ...]  # of phrases among the values
    values: frozenset[str]  # all that are listed, as they are written


def kind_of(slot: Slot) -> int:
    """The kind of a slot, by its type where it says one, else by its values, its name, its description.

    >>> kind_of(Slot(name="from_location")) == PLACE, kind_of(Slot(name="pets", values=("yes", "no"))) == BOOLEAN
    (True, True)
    """
    values = {value.lower() for value in slot.values} - {"none", "dontcare"}
    if values and any(values <= pair for pair in _BOOLEANS):
        return BOOLEAN
    if values and all(term(value).isdecimal() for value in values):
        return NUMBER
    for text in (slot.type, *(() if slot.values else (slot.name, slot.description))):
        words = tokens(spoken(text))
        for kind, cues in _CUES:
            if not set(words).isdisjoint(cues.split()):
                return kind
    return LISTED if values else OPEN


def declared(card: SkillCard, near: Near = lambda _: ()) -> Declared | None:
    """What the card declares; None where it declares no intents: then nothing is known of what it can do.

    `near`: words that mean nearly the same as a word.
    """
    if not card.intents:
        return None
    slots: dict[str, Slot] = {}
    for slot in (slot for intent in card.intents for slot in intent.slots):
        known = slots.get(slot.name)
        slots[slot.name] = slot if known is None or len(slot.values) > len(known.values) else known
    bits = {name: 1 << min(at, BITS - 1) for at, name in enumerate(slots)}
    kinds = {name: kind_of(slot) for name, slot in slots.items()}
    intents = tuple(_intent(intent, bits, kinds, card.can_fulfill.get(intent.name)) for intent in card.intents)
    entries: dict[str, list[int]] = {}
    for one, which, bit in _said(card, slots, bits, kinds, near):
        entries.setdefault(one, [0, 0, 0, 0])[which] |= bit
    values = [value for slot in slots.values() for value in slot.values]
    listed = {name for name, slot in slots.items() if slot.values and kinds[name] in (LISTED, NUMBER)}
    return Declared(
        slots=tuple(slots),
        bits=tuple(bits.values()),
        kinds=tuple(kinds.values()),
        intents=intents,
        entries={one: Entry(*sets) for one, sets in entries.items()},
        numbers=_set(bits, (name for name, kind in kinds.items() if kind == NUMBER)),
        listed=_set(bits, listed),
        aspects=_set(bits, (name for name, kind in kinds.items() if kind in (BOOLEAN, LISTED))),
        beginnings=tuple(one for value in values for one in beginnings_of(value)),
        values=frozenset(value.lower() for value in values),
    )


def _set(bits: dict[str, int], names: Iterable[str]) -> int:
    found = 0
    for name in names:
        found |= bits[name]
    return found


def _intent(
    intent: Intent, bits: dict[str, int], kinds: dict[str, int], ability: Ability | None
) -> DeclaredIntent:
    required = [slot.name for slot in intent.slots if slot.required]
    said = ability.slots.items() if ability else ()
    refused = [name for name, slot in said if name in bits and "NO" in (slot.can_understand, slot.can_fulfill)]
    return DeclaredIntent(
        name=intent.name,
        slots=_set(bits, (slot.name for slot in intent.slots)),
        required=_set(bits, required),
        refused=_set(bits, refused),
        answer=CODES[ability.answer] if ability else UNKNOWN,
        kinds=_counts(kinds[slot.name] for slot in intent.slots),
        needs=_counts(kinds[name] for name in required),
    )


def _counts(kinds: Iterable[int]) -> tuple[int, ...]:
    counts = [0] * len(KINDS)
    for kind in kinds:
        if kind < len(KINDS):
            counts[kind] += 1
    return tuple(counts)


def _said(
    card: SkillCard, slots: dict[str, Slot], bits: dict[str, int], kinds: dict[str, int], near: Near
) -> Iterable[tuple[str, int, int]]:
    """Terms, which of their sets is meant, and what is in it."""
    general: set[str] = set()  # what the skill is about says nothing of one of its slots
    for at, intent in enumerate(card.intents):
        bit = 1 << min(at, BITS - 1)
        found = terms_of(f"{spoken(intent.name)} {intent.description}")
        general.update(found)
        yield from ((one, INTENTS, bit) for one in found)
    for name, slot in slots.items():
        bit, kind = bits[name], kinds[name]
        found = terms_of(f"{spoken(name)} {slot.description}")
        special = kind in (BOOLEAN, LISTED)
        yield from ((one, NAMES, bit) for one in found if not (special and one in general))
        if kind == NUMBER and not COUNTED.isdisjoint(found):
            yield from ((one, NAMES, bit) for one in COUNTED)
        if kind != BOOLEAN:
            yield from ((one, VALUES, bit) for one in map(term, slot.values) if one)
        if special:
            words = {*tokens(spoken(name)), *(word for value in slot.values for word in tokens(value))} - STOP
            others = {stem(other) for word in words if stem(word) not in general for other in near(word)}
            yield from ((one, NEAR, bit) for one in sorted(others - general))


def terms_of(text: str) -> list[str]:
    """The terms of a description: its words, and those that a hyphen joins as one more.

    >>> terms_of("Search for one-way flights")
    ['find', 'way', 'flight', '1way']
    """
    words = [stem(word) for word in tokens(text) if word not in STOP]
    joined = [term(piece) for piece in text.split() if "-" in piece]
    return [word for word in words if not word.isdecimal()] + joined
