"""Why a request is decided so, for a person at a terminal and for machines."""

from typing import Any

from model.reranker import GROUPS
from model.selector import Explanation
from topics.events import Action, Candidate
from workers import console

SHOWN = 8  # candidates of a table: who is further down never won; --json has all
RULES = {
    "best": "opening the first costs least",
    "near-tie": "asking costs least",
    "none": "silence costs least",
    "no-candidates": "there is nobody to open",
}


def explanation_json(why: Explanation) -> dict[str, Any]:
    """`parts` by candidate in their order, `costs` of all that could be done, each choice's chance."""
    return {
        "parts": list(why.parts),
        "costs": [option._asdict() for option in why.options],
        "choices": [choice._asdict() for choice in why.choices],
    }


def print_explanation(why: Explanation) -> None:
    """Three tables (what each candidate can do, what made its score, what each action costs) and what follows."""
    _print_abilities(why)
    _print_parts(why)
    _print_costs(why)
    for line in _lines(why):
        console.out.print(line)


def _print_abilities(why: Explanation) -> None:
    rows = [
        (place, one.skill_id, one.intent, _slots(one), one.fulfill or "unknown", one.fulfill_source)
        for place, one in enumerate(why.ranking.candidates[:SHOWN], 1)
    ]
    console.print_table("What each can do", ("", "skill", "intent", "slots", "can fulfil", "who says so"), rows)


def _slots(candidate: Candidate) -> str:
    return ", ".join(f"{name}: {words}" for name, words in candidate.slots.items())


def _print_parts(why: Explanation) -> None:
    pairs = list(zip(why.ranking.candidates, why.parts, strict=True))[:SHOWN]
    rows = [
        (place, one.skill_id, *(parts.get(group, 0.0) for group in GROUPS), one.score)
        for place, (one, parts) in enumerate(pairs, 1)
    ]
    console.print_table("What makes the score", ("", "skill", *GROUPS, "score"), rows)


def _print_costs(why: Explanation) -> None:
    chances = {(choice.action, choice.skill_id): choice.propensity for choice in why.choices}
    rows = [
        (*_named(option.action, option.skill_id), option.cost, chances.get((option.action, option.skill_id), 0.0))
        for option in why.options
    ]
    console.print_table("What each action costs", ("action", "skill", "expected cost", "chosen with"), rows)


def _named(action: Action, skill_id: str | None) -> tuple[str, str]:
    return action.value, skill_id or ""


def _lines(why: Explanation) -> list[str]:
    ranking = why.ranking
    lines = []
    if ranking.reasons:
        first, second = ranking.candidates[:2]
        parts = sorted(ranking.reasons.items(), key=lambda part: -abs(part[1]))
        told = ", ".join(f"{group} {part:+.2f}" for group, part in parts)
        lines.append(f"{first.skill_id} before {second.skill_id} by {first.score - second.score:.2f}: {told}")
    if ranking.without_links is not None:
        lines.append(f"without the links {ranking.without_links} would have come first")
    if ranking.rule in RULES:
        lines.append(f"rule {ranking.rule}: {RULES[ranking.rule]}")
    return lines
