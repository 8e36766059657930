"""Who decides beside the release that serves: a canary for a share of the customers, a shadow that nobody meets.

Both are releases on trial. A canary is sticky: the same customers meet it for as long as it is there, and those of
a small share are among those of a larger one. What a trial cannot decide, the serving release has decided: a
release on trial takes no answer away from anybody.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from workers.deciding import Answer, Asked, Batch, Selecting, answers, decide_batch
from workers.metrics import RouterMetrics

log = logging.getLogger("namefree.canary")
WHOLE = 2**64  # a draw is 64 bits of a hash


@dataclass(frozen=True)
class Trial:
    """A release that decides for a share of the customers. `role`: `canary` or `shadow`."""

    role: str
    selector: Selecting
    share: float

    def takes(self, customer_id: str) -> bool:
        """Whether this customer is in the share: by a hash with the release and the role, so that another
        release meets other customers."""
        return draw(f"{self.role}:{self.selector.release}", customer_id) < self.share


def draw(salt: str, customer_id: str) -> float:
    """A customer's own number in [0, 1): the same at every router, each time.

    >>> draw("canary:a", "c-1") == draw("canary:a", "c-1") != draw("canary:b", "c-1")
    True
    """
    return int.from_bytes(blake2b(f"{salt}:{customer_id}".encode(), digest_size=8).digest()) / WHOLE


@dataclass(frozen=True)
class Lineup:
    """Which selectors decide a batch."""

    current: Selecting
    canary: Trial | None = None
    shadow: Trial | None = None

    @property
    def selectors(self) -> tuple[Selecting, ...]:
        """All of them, the serving one first."""
        return (self.current, *(trial.selector for trial in (self.canary, self.shadow) if trial))


def decide_lineup(batch: Batch, lineup: Lineup, metrics: RouterMetrics) -> None:
    """Fills `batch.answers`, in the order of `batch.asked`, and `batch.shadowed`.

    The serving release decides the whole batch, and the canary's answers take their places: so its decisions are
    the same to the last bit with a canary as without one, and are there where the canary fails. Only where a
    canary has answered everything it is not asked.
    """
    tried = _tried(lineup.canary, batch.asked, batch.polled_s, metrics)
    if not tried or len(tried) < len(batch.asked):
        decide_batch(batch, lineup.current)
    if tried:
        _take_places(batch, tried)
    batch.shadowed = _tried(lineup.shadow, batch.asked, time.time(), metrics)


def _tried(trial: Trial | None, asked: Sequence[Asked], polled_s: float, metrics: RouterMetrics) -> list[Answer]:
    """The trial's answers for its share of the customers; none at all where it raises."""
    if trial is None or not asked:
        return []
    own = [one for one in asked if trial.takes(one.utterance.customer_id)]
    if not own:
        return []
    try:
        return answers(own, trial.selector, polled_s)
    except Exception:  # whatever a model on trial raises, the one that serves has an answer
        metrics.trial_failures.labels(trial.role).inc()
        log.exception("the %s %s could not decide %d requests", trial.role, trial.selector.release, len(own))
        return []


def _take_places(batch: Batch, tried: list[Answer]) -> None:
    """Puts the canary's answers where the serving release's were, also where that one had none."""
    found = {id(answer.asked): answer for answer in (*batch.answers, *tried)}
    batch.answers = [found[id(one)] for one in batch.asked if id(one) in found]
    answered = {id(answer.asked.message) for answer in tried}
    batch.refused = [(message, error) for message, error in batch.refused if id(message) not in answered]
