"""Draws the phrases of each skill from its family's templates."""

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from model.sample.family import Family, IntentPlan, SkillPlan
from model.sample.template import Choose, choose_words, fill_slots, slots_of, variety
from topics.errors import BadData

T = TypeVar("T")

DRAWS_A_PHRASE = 200  # a family whose templates give no new text in so many draws has too few of them
MAYBE_WEIGHT = 0.4  # a skill that answers MAYBE gets less of what is asked


def pick(rng: Random, items: Sequence[T], weights: Sequence[float]) -> T:
    """One item by weight, the same on every Python: `random()` keeps its sequence, and `fsum` its rounding."""
    point = rng.random() * math.fsum(weights)
    for item, weight in zip(items, weights, strict=True):
        point -= weight
        if point < 0:
            return item
    return items[-1]


def evenly(rng: Random) -> Choose:
    """Chooses among options, each as likely."""
    return lambda options: options[int(rng.random() * len(options))]


def draw_phrases(family: Family, skill: SkillPlan, rng: Random) -> list[str]:
    """The skill's phrases, all different: its own first, then from the family's templates.

    Raises `BadData` if the templates cannot give as many as the skill is to have.
    """
    texts = dict.fromkeys(_fill(family, skill, choose_words(own, evenly(rng)), rng) for own in skill.own)
    asks = [(intent, ask) for intent in family.intents if _serves(skill, intent) for ask in intent.asks]
    uses: Counter[str] = Counter()
    for _ in range(skill.phrases * DRAWS_A_PHRASE):
        if len(texts) >= skill.phrases:
            return list(texts)[: skill.phrases]
        intent, ask = pick(rng, asks, [_weight(skill, i, a, uses[a]) for i, a in asks])
        words = choose_words(ask, evenly(rng))
        uses[ask] += 1
        if not _refuses(skill, intent, words):
            texts[_fill(family, skill, words, rng)] = None
    if len(texts) < skill.phrases:
        raise BadData(f"{family.skill_id(skill)} gets {len(texts)} of {skill.phrases} phrases; write more asks")
    return list(texts)


def _serves(skill: SkillPlan, intent: IntentPlan) -> bool:
    return intent.name in (*skill.yes, *skill.maybe)


def _refuses(skill: SkillPlan, intent: IntentPlan, words: str) -> bool:
    return any(skill.answer(f"{intent.name}.{slot}") == "NO" for slot in slots_of(words))


def _weight(skill: SkillPlan, intent: IntentPlan, ask: str, uses: int) -> float:
    """Rich templates more often, a used one less, so that no template makes up a skill."""
    ability = MAYBE_WEIGHT if skill.answer(intent.name) == "MAYBE" else 1.0
    return ability * skill.leans.get(intent.name, 1.0) * math.sqrt(variety(ask)) / (1 + uses)


def _fill(family: Family, skill: SkillPlan, words: str, rng: Random) -> str:
    unknown = slots_of(words) - {*family.values, *skill.values}
    if unknown:
        raise BadData(f"{family.family}: no values for {sorted(unknown)} in {words!r}")
    return fill_slots(words, {**family.values, **skill.values}, evenly(rng))
