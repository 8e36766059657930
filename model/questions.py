"""Skills asked whether they can: which of a batch's candidates, about what, and their answers put in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.evidence import asked
from model.fulfilment import Asks, Question
from model.readings import Readings
from model.reranker import LIKELY, Hypotheses
from topics.events import Ability

MOST_ASKED = 5  # candidates of a request, the shortlist's best: on the sample's dev rows the meant one is in 98 %
MOST_QUESTIONS = 2_048  # in one call: 30 µs each to put, and beyond some 100 only known answers come in 50 ms
LEAST_LIKELY = 0.01  # by the shortlist, to be asked: 2.9 questions a request instead of 5, and still 97.6 %


@dataclass(frozen=True)
class Lists:
    """Requests with their candidates. `heard`: what skills answered, by request and place in its list."""

    found: Hypotheses
    locales: Sequence[str]
    heard: Mapping[tuple[int, int], Ability] = field(default_factory=dict)


@dataclass(frozen=True)
class Askable:
    """The skills by row: ids, and endpoints, "" where a skill has none."""

    ids: Sequence[str]
    endpoints: NDArray[np.object_]  # (S,)


def ask(asks: Asks, skills: Askable, readings: Readings, batch: Sequence[Lists]) -> list[Lists]:
    """The batch with the answers of those that can be asked, in place of what their cards declare.

    All is asked at once, so that one deadline holds for all. Of each request the best `MOST_ASKED` of the
    shortlist are asked that have an endpoint, an intent for it, a chance; of a batch with too many such, the
    `MOST_QUESTIONS` about which the shortlister is least sure. Where no answer comes, what is declared stays.
    """
    to_ask = [
        (doubt, at, b, c)
        for at, lists in enumerate(batch)
        for doubt, b, c in _to_ask(lists.found, skills.endpoints)
    ]
    places = [place for _, *place in sorted(to_ask, reverse=True)[:MOST_QUESTIONS]]
    questions = [_question(batch[at], skills, readings, b, c) for at, b, c in places]
    heard: list[dict[tuple[int, int], Ability]] = [{} for _ in batch]
    for (at, b, c), ability in zip(places, asks.ask(questions) if questions else [], strict=True):
        if ability is not None:
            heard[at][b, c] = ability
    return [_with_answers(*pair) for pair in zip(batch, heard, strict=True)]


def _to_ask(found: Hypotheses, endpoints: NDArray[np.object_]) -> list[tuple[float, int, int]]:
    """How unsure the shortlister is of it, the request, and the candidate's place."""
    rows = found.rows.numpy()  # (B, C)
    can = (rows >= 0) & (found.understood.intents >= 0) & (endpoints[np.maximum(rows, 0)] != "")
    likely = found.own[..., LIKELY].exp().numpy()  # (B, C)
    can &= likely >= LEAST_LIKELY
    b, c = (can & (can.cumsum(axis=1) <= MOST_ASKED)).nonzero()
    doubt = (likely * (1 - likely))[b, c]
    return list(zip(doubt.tolist(), b.tolist(), c.tolist(), strict=True))


def _question(lists: Lists, skills: Askable, readings: Readings, b: int, c: int) -> Question:
    reading = readings.reading(lists.found.tagged, lists.found.understood, b, c)
    if reading is None:
        raise ValueError("a candidate without an intent cannot be asked")
    row = int(lists.found.rows[b, c])
    slots = tuple(sorted(reading.slots.items()))
    return Question(skills.ids[row], str(skills.endpoints[row]), reading.intent, slots, lists.locales[b])


def _with_answers(lists: Lists, heard: Mapping[tuple[int, int], Ability]) -> Lists:
    if not heard:
        return lists
    answers = [(b, c, ability) for (b, c), ability in heard.items()]
    return replace(lists, found=asked(lists.found, answers), heard=heard)
