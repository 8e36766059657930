"""Answers of skills, remembered: bounded in number (the least used goes first) and in age."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from model.fulfilment import Question
from topics.events import Ability

MOST = 20_000  # answers kept, each about 1 KB with its question
TTL_S = 300.0  # a skill that changes its mind is believed at the latest then


class Answers:
    """Answers by question: skill, endpoint, intent, slots with their values, locale. Any thread may call.

    `ttl_s` is the age in seconds at which an answer is forgotten; 0 remembers nothing.
    """

    def __init__(
        self, ttl_s: float = TTL_S, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Question, tuple[float, Ability]] = OrderedDict()  # ends at (s), answer

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, question: Question) -> Ability | None:
        """The answer that is remembered; None where there is none, or only one too old."""
        with self._lock:
            ends_s, ability = self._kept.get(question, (0.0, None))
            if ability is None:
                return None
            if ends_s <= self._clock():
                del self._kept[question]
                return None
            self._kept.move_to_end(question)
            return ability

    def put(self, question: Question, ability: Ability) -> None:
        """Remembers the answer from now on."""
        if self._ttl_s <= 0:
            return
        with self._lock:
            self._kept[question] = (self._clock() + self._ttl_s, ability)
            self._kept.move_to_end(question)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
