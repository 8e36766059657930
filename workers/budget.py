"""How many customers a first canary may have, so that it keeps to its share of the requests.

A share of the customers is not a share of the requests: one of few may ask much, and of a few hundred nobody may
be among the first half percent. So the share of the customers is steered by what the canary has decided.
"""

import logging

log = logging.getLogger("namefree.promotion")

PAUSE_AT, RESUME_AT = (
    0.8,
    0.6,
)  # of the most that it may decide: room for what is under way when it is told to pause
FEW = 20  # requests that a canary should have had, when it is asked whether it has next to none


class Budget:
    """Pauses a canary before it has decided more than `max_seen` of all requests, and widens it where it has next
    to none of those that its share of the customers stands for.

    It is not widened before it is known that routers have loaded it: all of the share would come at once.
    """

    def __init__(self, share: float, max_seen: float, seen: int, decided: int, loaded: bool) -> None:
        """`seen`, `decided`: requests that the canary has decided so far, and all. `loaded`: by the routers, as
        its decisions as a shadow have shown."""
        self._wanted = self._share = share
        self._max_seen = max_seen
        self._paused = False
        self._loaded = loaded
        self._since = (seen, decided)

    def share(self, seen: int, decided: int) -> float:
        """The share of the customers from now on, 0 for a pause; `seen` and `decided` as above.

        >>> budget = Budget(share=0.1, max_seen=0.2, seen=0, decided=0, loaded=True)
        >>> [budget.share(*counts) for counts in ((5, 100), (20, 100), (20, 150), (20, 200))]
        [0.1, 0.0, 0.0, 0.1]
        """
        was_paused = self._paused
        if seen > PAUSE_AT * self._max_seen * decided:
            self._paused = True
        elif seen <= RESUME_AT * self._max_seen * decided:
            self._paused = False
        if self._paused != was_paused:
            log.info("the canary decided %d of %d requests and %s", seen, decided, _does(self._paused))
        self._loaded = self._loaded or seen > self._since[0]
        if self._paused or not self._loaded:
            self._since = (seen, decided)
        else:
            self._widen(seen, decided)
        return 0.0 if self._paused else self._share

    def _widen(self, seen: int, decided: int) -> None:
        due = self._wanted * (decided - self._since[1])
        if due < FEW:
            return
        rare = seen - self._since[0] < due / 4 and seen < self._wanted * decided / 2  # of late, and all in all
        if rare and self._share <= 0.5:
            self._share *= 2
            log.info("few of the canary's customers ask: its share is now %.2g", self._share)
        self._since = (seen, decided)


def _does(paused: bool) -> str:
    return "pauses" if paused else "goes on"
