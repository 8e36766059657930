"""Utterances with numbers for ids, and links whose skills say by whom and when they were linked.

Utterance n is customer c-(n % customers)'s. Of each stretch of utterances the first few customers change their
links before it: the broker has acknowledged the change before the stretch is sent, so its decisions have to know.
Every fifth utterance has an outcome, which may be there before its decision is.
"""

import time

import numpy as np

from topics.codec import encode
from topics.errors import BrokerError
from topics.events import Link, Links, Outcome, OutcomeKind, Utterance
from topics.registry import LINKS, OUTCOMES, UTTERANCES, topic_name
from topics.settings import Settings
from workers.sender import Sender

CUSTOMERS = 997
CHANGES = 5  # of links, before each stretch
HISTORY = 20  # changes of each customer's links before the first utterance: restoring them takes a moment
AWAY_S = 240.0  # shorter than the client itself tries (300 s)
ANSWERED = 5  # one utterance of so many has an outcome


class Traffic:
    """Sends stretch by stretch, and keeps what each decision has to know."""

    def __init__(self, settings: Settings, utterances: int, stretch: int) -> None:
        self.total = utterances
        self.stretch = stretch
        self.sent = 0
        self.wanted = np.zeros(utterances, np.int64)  # utterance -> version of the links, the newest acknowledged
        self.acked_ms = np.zeros(utterances + 1, np.int64)  # version -> when the broker had it
        self._newest = np.zeros(CUSTOMERS, np.int64)
        self._names = [topic_name(settings, topic) for topic in (UTTERANCES, LINKS, OUTCOMES)]
        self._sender = Sender(settings)
        for version in range(-HISTORY, 1):
            for customer in range(CUSTOMERS):
                self._link(customer, version)
        self._flush()
        self.acked_ms[0] = _now_ms()

    def send_stretch(self) -> None:
        """The next utterances, after the links that change before them."""
        first, last = self.sent, min(self.sent + self.stretch, self.total)
        changed = [number % CUSTOMERS for number in range(first, min(first + CHANGES, last))]
        for customer in changed:
            self._link(customer, first)
            self._newest[customer] = first
        self._flush()
        self.acked_ms[first] = _now_ms()
        for number in range(first, last):
            self.wanted[number] = self._newest[number % CUSTOMERS]
            self._ask(number)
            if number % ANSWERED == 0:
                self._answer(number)
        self._flush()
        self.sent = last

    def _flush(self) -> None:
        """Returns when all is acknowledged, also where a broker takes more than a minute to come back."""
        ends_s = time.monotonic() + AWAY_S
        while True:
            try:
                self._sender.flush()
                return
            except BrokerError:
                if time.monotonic() > ends_s:
                    raise

    def _link(self, customer: int, version: int) -> None:
        linked = (Link(f"{customer}:{version}"),)
        event = Links(event_time_ms=_now_ms(), customer_id=f"c-{customer}", linked=linked)
        self._sender.send(self._names[1], event.customer_id, encode(event))

    def _ask(self, number: int) -> None:
        customer = f"c-{number % CUSTOMERS}"
        event = Utterance(event_time_ms=_now_ms(), utterance_id=f"u-{number}", customer_id=customer, text="go")
        self._sender.send(self._names[0], customer, encode(event))

    def _answer(self, number: int) -> None:
        customer, kind = f"c-{number % CUSTOMERS}", OutcomeKind.ACCEPTED
        event = Outcome(event_time_ms=_now_ms(), utterance_id=f"u-{number}", customer_id=customer, outcome=kind)
        self._sender.send(self._names[2], customer, encode(event))


def _now_ms() -> int:
    return int(time.time() * 1000)
