"""A circuit breaker a skill: who fails again and again is left alone for a while, then tried with one question.

closed ──`faults` in a row──► open ──cool-down over──► half-open ──answer──► closed
                               ▲                           │
                               └──fault, cool-down × 2─────┘
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FAULTS = 5  # in a row, that open a breaker
COOL_DOWN_S = 30.0  # the first; doubled by each trial that fails
MAX_COOL_DOWN_S = 600.0  # a skill that comes back is asked again at the latest then
MOST = 10_000  # skills with a fault that are kept in mind; beyond, the longest without a new one is forgotten


@dataclass(slots=True)
class _Breaker:
    cool_down_s: float
    faults: int = 0
    open_until_s: float | None = None  # None: closed
    trying: bool = False


class Breakers:
    """Breakers by skill; a skill without faults takes no room. Any thread may call. `clock` gives seconds."""

    def __init__(
        self,
        faults: int = FAULTS,
        cool_down_s: float = COOL_DOWN_S,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._faults = faults
        self._cool_down_s = cool_down_s
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def is_open(self, skill: str) -> bool:
        """Whether the skill is not to be asked now. Changes nothing."""
        with self._lock:
            return self._is_open(self._kept.get(skill))

    def admit(self, skill: str) -> bool:
        """Whether the skill may be asked now. A True must be followed by `succeed`, `fail` or `forgo`."""
        with self._lock:
            breaker = self._kept.get(skill)
            if self._is_open(breaker):
                return False
            if breaker is not None and breaker.open_until_s is not None:
                breaker.trying = True
            return True

    def succeed(self, skill: str) -> None:
        """It answered."""
        with self._lock:
            self._kept.pop(skill, None)

    def fail(self, skill: str) -> None:
        """It did not answer, not in time, or not with an answer."""
        with self._lock:
            breaker = self._kept.setdefault(skill, _Breaker(self._cool_down_s))
            self._kept.move_to_end(skill)
            breaker.faults += 1
            if breaker.trying or (breaker.open_until_s is None and breaker.faults >= self._faults):
                self._open(breaker)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def forgo(self, skill: str) -> None:
        """It was not asked after all, or nothing was learned: the next may try."""
        with self._lock:
            breaker = self._kept.get(skill)
            if breaker is not None:
                breaker.trying = False

    def open_count(self) -> int:
        """Skills whose breaker is open or half-open."""
        with self._lock:
            return sum(breaker.open_until_s is not None for breaker in self._kept.values())

    def _is_open(self, breaker: _Breaker | None) -> bool:
        if breaker is None or breaker.open_until_s is None:
            return False
        return breaker.trying or self._clock() < breaker.open_until_s

    def _open(self, breaker: _Breaker) -> None:
        breaker.open_until_s = self._clock() + breaker.cool_down_s
        breaker.cool_down_s = min(2 * breaker.cool_down_s, MAX_COOL_DOWN_S)
        breaker.trying = False
