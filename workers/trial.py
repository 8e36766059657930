"""A release on trial under a lease: held, looked at, and let go.

A lease is a key of the releases topic whose time ends soon, written again and again. Whatever becomes of the
process that holds it, customers are back at the release that serves when it is over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from topics.events import Release
from topics.settings import Settings
from workers.friction import Feedback
from workers.releases import CURRENT, serve, serving_now, withdraw
from workers.sequential import Tally

log = logging.getLogger("namefree.promotion")

LEASE_S = 60.0
"""A trial ends by itself this long after it was renewed. Longer than a broker's restart and than clocks differ."""

RENEW_S = 10.0  # a few tries within a lease; and so soon a promotion sees that an operator has ended it
LOOK_S = 0.25  # between two looks: a canary that is to pause decides this much longer
TELL_S = 10.0  # between two lines that tell how far a stage is

Verdict = Literal["promoted", "refused", "rolled back", "undecided", "stopped"]
Report = Callable[[str], None]


class Ended(Exception):
    """What ends a promotion before its last stage."""

    def __init__(self, verdict: Verdict, reason: str, measures: dict[str, float] | None = None) -> None:
        super().__init__(reason)
        self.verdict: Verdict = verdict
        self.reason = reason
        self.measures = measures or {}


@dataclass
class Trial:
    """A release on trial beside `parent`, which serves. `share` is that of the lease under `key`, "" for none."""

    settings: Settings
    release: Release
    parent: Release
    feedback: Feedback
    report: Report
    stop: threading.Event
    within_s: float
    key: str = ""
    share: float = 0.0
    _renew_s: float = 0.0

    def hold(self, key: str, share: float) -> None:
        """Has the routers put the release on trial under `key`, and then takes it from where it was before: so a
        router need not load it again."""
        before, self.key, self.share = self.key, key, share
        self._renew_s = time.monotonic() + RENEW_S
        serve(self.settings, self.release, key, share, int((time.time() + LEASE_S) * 1000))
        if before not in ("", key):
            withdraw(self.settings, before)

    def let_go(self) -> None:
        """Ends the trial, where it is still ours."""
        if self.key:
            withdraw(self.settings, self.key)
            self.key = ""

    def looks(self, told: Callable[[], str]) -> Iterator[None]:
        """Yields after each look at what customers do, and holds the lease meanwhile. Raises Ended where time is
        over, somebody else has ended the trial, or this process is to stop. `told`: how far the stage is."""
        ends_s, tell_s = time.monotonic() + self.within_s, time.monotonic() + TELL_S
        while True:
            self.feedback.look(LOOK_S)
            if self.stop.is_set():
                raise Ended("stopped", f"it was told to stop, with {told()}")
            if time.monotonic() >= self._renew_s:
                self.check()
                self.hold(self.key, self.share)
            yield
            if time.monotonic() >= ends_s:
                raise Ended("undecided", f"not enough traffic within {self.within_s / 60:.3g} minutes: {told()}")
            if time.monotonic() >= tell_s:
                tell_s = time.monotonic() + TELL_S
                self.report(f"{self.release.release}: {told()}")

    def check(self) -> None:
        """Raises Ended where another release has come to serve, or the trial is not ours any more."""
        serving = serving_now(self.settings)
        current, held = serving.get(CURRENT), serving.get(self.key)
        if self.key and (held is None or held.digest != self.release.digest):
            self.key = ""  # not ours to withdraw
            raise Ended("stopped", "somebody has ended the trial, or it was not renewed in time")
        if current is None or current.digest != self.parent.digest:
            now = current.release if current else "nothing"
            raise Ended("stopped", f"{now} has come to serve in place of {self.parent.release}")

    def frictions(self) -> tuple[Tally, Tally]:
        """What customers made of the release so far, and of its parent."""
        found = self.feedback.frictions
        return found[self.release.release], found[self.parent.release]

    def seen(self) -> tuple[int, int]:
        """How many requests the release has decided for customers, and how many were decided in all."""
        return self.feedback.decisions[self.release.release], self.feedback.decisions.total()
