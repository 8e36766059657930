"""How well requests are read, on requests whose intent and slots are known: drawn from the sample's own templates.

The templates name their slots, so that each text comes with its truth.
"""

import re
from collections import Counter
from random import Random
from typing import NamedTuple

import torch

from model.catalogue import Catalogue
from model.declared import declared
from model.readings import Reading, Readings
from model.sample.family import Family, SkillPlan, read_common, read_families
from model.sample.phrases import evenly
from model.sample.template import choose_words, fill_slots
from model.spans import KINDS

_SLOT = re.compile(r"\{(\w+)\}")
_LEADING = {"at", "on", "in", "the", "a", "an", "for", "by"}  # words that may stand before a value or not
OTHERS = ("boolean", "listed", "open")  # kinds of slots beside those of spans


class Truth(NamedTuple):
    """A text with the skill and intent it was made for, and its slots: name to words."""

    text: str
    skill_id: str
    intent: str
    slots: dict[str, str]


def truths(seed: int = 0, draws: int = 2) -> list[Truth]:
    """Each template of each skill that serves it, `draws` times. The same seed gives the same texts."""
    rng = Random(seed)
    return [
        _drawn(family, skill, intent.name, ask, rng)
        for family in read_families(read_common())
        for skill in family.skills
        for intent in family.intents
        if intent.name in (*skill.yes, *skill.maybe)
        for ask in intent.asks
        for _ in range(draws)
    ]


def _drawn(family: Family, skill: SkillPlan, intent: str, ask: str, rng: Random) -> Truth:
    values = {**family.values, **skill.values}
    choose = evenly(rng)
    slots: dict[str, str] = {}
    text = ""
    for at, piece in enumerate(_SLOT.split(choose_words(ask, choose))):
        said = piece if at % 2 == 0 else fill_slots(f"{{{piece}}}", values, choose)
        if at % 2:
            slots.setdefault(piece, said)
        text += said
    return Truth(" ".join(text.split()), family.skill_id(skill), intent, slots)


def measure(readings: Readings, catalogue: Catalogue, found: list[Truth]) -> dict[str, float]:
    """`intent`: share of the texts whose intent is found, given the skill, among skills that declare several.

    `<kind>_precision`, `<kind>_recall` and `<kind>_count` by kind of slot: a slot is right where the slot of that
    name is filled with the same words, but for articles and prepositions before them. Only slots of the true
    intent count, and no value that the template meant for a slot which the card does not have. A kind that never
    occurs is left out.
    """
    right, several = 0, 0
    counts: Counter[tuple[str, str]] = Counter()
    for truth, reading in zip(found, _read(readings, catalogue, found), strict=True):
        card = catalogue.card(catalogue.row(truth.skill_id))
        skill = declared(card)
        if skill is None or reading is None:
            continue
        if len(card.intents) > 1:
            several += 1
            right += reading.intent == truth.intent
        kinds = {name: (*KINDS, *OTHERS)[kind] for name, kind in zip(skill.slots, skill.kinds, strict=True)}
        named = {slot.name for intent in card.intents if intent.name == truth.intent for slot in intent.slots}
        _count(counts, {name: kind for name, kind in kinds.items() if name in named}, truth.slots, reading.slots)
    return {"intent": right / max(1, several), "intent_count": several, **_rates(counts)}


def _read(readings: Readings, catalogue: Catalogue, found: list[Truth]) -> list[Reading | None]:
    tagged = readings.tag([truth.text for truth in found])
    rows = torch.tensor([[catalogue.row(truth.skill_id)] for truth in found])
    bags = readings.bags([truth.text for truth in found])
    understood = readings.understand(tagged, rows, bags)
    return [readings.reading(tagged, understood, b, 0) for b in range(len(found))]


def _count(
    counts: Counter[tuple[str, str]], kinds: dict[str, str], truth: dict[str, str], read: dict[str, str]
) -> None:
    for name, value in truth.items():
        if name in kinds:
            counts[kinds[name], "there"] += 1
            counts[kinds[name], "right"] += _bare(value) == _bare(read.get(name, ""))
    unnamed = [_bare(value) for name, value in truth.items() if name not in kinds]
    for name, value in read.items():
        if name in kinds and _bare(value) not in unnamed:
            counts[kinds[name], "found"] += 1


def _bare(value: str) -> list[str]:
    words = value.split()
    while words and words[0] in _LEADING:
        words = words[1:]
    return words


def _rates(counts: Counter[tuple[str, str]]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for kind in (*KINDS, *OTHERS):
        right, there, found = (counts[kind, what] for what in ("right", "there", "found"))
        if there:
            rates[f"{kind}_precision"] = right / max(1, found)
            rates[f"{kind}_recall"] = right / there
            rates[f"{kind}_count"] = there
    return rates
