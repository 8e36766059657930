"""Skills that are asked whether they can, simulated in process: most answer as their cards say, some lie, some are
silent."""

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

from model.encoder import Words
from model.evidence import Evidence
from model.fulfilment import Question
from model.questions import Askable, Lists, ask
from model.reranker import Hypotheses
from model.shortlist import Shortlist
from topics.events import Ability, SkillCard, SlotAbility

LYING, SILENT = 0.1, 0.1  # shares of the skills that declare intents. Made up.
ENDPOINT = "simulated"
LOCALE = "en-US"

Honest = Callable[[SkillCard, Question], Ability]  # what a card says to a question


class SimulatedAnswers:
    """Answers for the cards that declare intents. Who lies (YES to everything) and who is silent (nothing is
    known) is drawn by `seed` and id."""

    def __init__(self, cards: Iterable[SkillCard], honest: Honest, seed: int) -> None:
        self._cards = {card.skill_id: card for card in cards if card.intents}
        self._honest = honest
        drawn = {skill: random.Random(f"{seed} {skill}").random() for skill in self._cards}
        self.liars = frozenset(skill for skill, at in drawn.items() if at < LYING)
        self.silent = frozenset(skill for skill, at in drawn.items() if LYING <= at < LYING + SILENT)

    def ask(self, questions: Sequence[Question]) -> list[Ability | None]:
        """An answer each, in order; None from who is silent."""
        return [self._answer(question) for question in questions]

    def askable(self, ids: Sequence[str]) -> Askable:
        """Of the skills by row those that can be asked."""
        return Askable(ids, np.array([ENDPOINT if skill in self._cards else "" for skill in ids], dtype=object))

    def _answer(self, question: Question) -> Ability | None:
        if question.skill_id in self.silent:
            return None
        if question.skill_id in self.liars:
            return Ability("YES", {name: SlotAbility("YES", "YES") for name, _ in question.slots})
        return self._honest(self._cards[question.skill_id], question)


class AskingEvidence(Evidence):
    """All that `told` has, with what candidates answer in place of what their cards declare; who is asked is
    chosen as in serving (`model.questions`)."""

    def __init__(self, told: Evidence, answers: SimulatedAnswers, ids: Sequence[str]) -> None:
        """`ids` of the skills by row."""
        vars(self).update(vars(told))  # shared and not made anew: nothing is put in later
        self._answers, self._askable = answers, answers.askable(ids)

    def hypotheses(self, made: Shortlist, words: Words, texts: Sequence[str], linked: Tensor) -> Hypotheses:
        """As `Evidence.hypotheses`."""
        found = super().hypotheses(made, words, texts, linked)
        [lists] = ask(self._answers, self._askable, self.readings, [Lists(found, [LOCALE] * len(texts))])
        return lists.found
