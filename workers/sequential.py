"""Is one share higher than another? Asked after every outcome, with one bound on false alarms for all the asking.

The evidence is an e-process: a product of factors whose expectation is at most 1 where the new share is not
higher, so that the chance that it ever reaches 1/alpha is at most alpha (Ville's inequality), however often one
looks. The factor of a block of outcomes is that of R. Turner, A. Ly and P. Grünwald, "Generic E-variables for
exact sequential k-sample tests that allow for optional stopping" (Journal of Statistical Planning and Inference
230, 2024; arXiv:2106.02693), for two samples: with n outcomes on the new and m on the old side,

    prod q(new) prod q(old) / prod q0(all),   q0 = (n q_new + m q_old) / (n + m).

It is exact for any number of outcomes, and the shares may move with the hour, as both sides are compared block by
block. It takes outcomes as independent: a customer who sends everything away counts as often as it comes.
"""

from dataclasses import dataclass
from math import exp, log

import numpy as np

EFFECTS = (0.02, 0.05, 0.1, 0.2, 0.4)  # how much worse: the evidence is the mean over these guesses
LOWEST = 0.005  # no guess is surer than this, so that one outcome never ends the matter


@dataclass(frozen=True)
class Tally:
    """Outcomes, and how many of them were friction. Tallies add and subtract.

    >>> Tally(3, 10) + Tally(1, 10) - Tally(3, 10)
    Tally(frictions=1, outcomes=10)
    """

    frictions: int = 0
    outcomes: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.frictions + other.frictions, self.outcomes + other.outcomes)

    def __sub__(self, other: "Tally") -> "Tally":
        return Tally(self.frictions - other.frictions, self.outcomes - other.outcomes)

    @property
    def share(self) -> float:
        """Of friction; 0 where there are no outcomes."""
        return self.frictions / self.outcomes if self.outcomes else 0.0


class WorseTest:
    """Whether the new side has more friction than the old one. One-sided: better is no alarm.

    >>> test = WorseTest(before=Tally(20, 100))
    >>> test.take(Tally(9, 10), Tally(20, 100))
    >>> test.is_worse(alpha=0.05)
    True
    """

    def __init__(self, before: Tally = Tally()) -> None:
        """`before`: outcomes of the old side from before the test, to guess its share by."""
        self.new = self.old = Tally()
        self._before = before
        self._held_new = self._held_old = Tally()
        self._logs = [0.0] * len(EFFECTS)

    def take(self, new: Tally, old: Tally) -> None:
        """Adds what came of both sides in the same time. A side that had nothing waits for its next outcomes."""
        self._held_new += new
        self._held_old += old
        if not (self._held_new.outcomes and self._held_old.outcomes):
            return
        known = self._before + self.old  # of the past alone: a guess may not know the outcomes that it is used on
        base = (known.frictions + 0.5) / (known.outcomes + 1)
        for at, effect in enumerate(EFFECTS):
            self._logs[at] += _log_factor(self._held_new, self._held_old, base, effect)
        self.new += self._held_new
        self.old += self._held_old
        self._held_new = self._held_old = Tally()

    @property
    def outcomes(self) -> int:
        """Of the new side, those that still wait for company too."""
        return self.new.outcomes + self._held_new.outcomes

    @property
    def evidence(self) -> float:
        """1 at the start; 20 is what happens by chance once in twenty tests, at most."""
        return sum(exp(min(one, 700.0)) for one in self._logs) / len(self._logs)

    @property
    def difference(self) -> float:
        """How much more friction the new side has; below 0 it has less."""
        return self.new.share - self.old.share

    def is_worse(self, alpha: float) -> bool:
        """Significantly; wrong with a chance of at most `alpha` over all the times that it is asked."""
        return self.evidence >= 1 / alpha


class Baseline:
    """Outcomes of the past, dealt out beside new ones where no others come at the same time.

    In random order and each once, which is as good as the order in which they came if they are independent.
    `first`: a tenth of them, to guess their share by; the rest lasts for `wanted` new outcomes.
    """

    def __init__(self, past: Tally, wanted: int, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._left = past
        self.first = self._deal(past.outcomes // 10)
        self._each = max(1, self._left.outcomes // max(1, wanted))

    def draw(self, outcomes: int) -> Tally:
        """As many as belong beside `outcomes` new ones; fewer, and then none, where all are dealt."""
        return self._deal(min(outcomes * self._each, self._left.outcomes))

    def _deal(self, count: int) -> Tally:
        frictions = self._rng.hypergeometric(
            self._left.frictions, self._left.outcomes - self._left.frictions, count
        )
        dealt = Tally(int(frictions), count)
        self._left -= dealt
        return dealt


def _log_factor(new: Tally, old: Tally, base: float, effect: float) -> float:
    """The log of a block's factor, where the old share is guessed as `base` and the new one as `effect` more."""
    q_old = min(max(base, LOWEST), 1 - 2 * LOWEST)
    q_new = min(q_old + effect, 1 - LOWEST)
    q_both = (new.outcomes * q_new + old.outcomes * q_old) / (new.outcomes + old.outcomes)
    return _log_likelihood(new, q_new, q_both) + _log_likelihood(old, q_old, q_both)


def _log_likelihood(tally: Tally, share: float, against: float) -> float:
    calm = tally.outcomes - tally.frictions
    return tally.frictions * log(share / against) + calm * log((1 - share) / (1 - against))
