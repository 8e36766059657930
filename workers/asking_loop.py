"""Which question is sent when: bounds overall, for a host and for a skill, and one deadline for a batch.

All of it runs in one event loop; only a batch's `results` are read by another thread.

When a batch's deadline comes, what was not sent is dropped. What is under way may linger until LINGER deadlines
after its own start, so that a connection that was slow to make is there for the next question, and an answer that
is late fills the cache. Lingering questions keep their places at the host and the skill, but none of the next
batch's places overall.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from model.fulfilment import Question
from topics.events import Ability
from workers.answers import Answers
from workers.breakers import Breakers
from workers.endpoints import Endpoint, Refused
from workers.fulfil_wire import Broken

log = logging.getLogger("namefree.asking")
LINGER = 4.0  # deadlines: room for a first connection with TLS, four times there and back
FULL_TIME = 0.9  # of a deadline: who had less, having waited for a place, is not to blame for being late

Result = Literal["answered", "cached", "late", "broken", "refused", "open", "failed"]


class Told(NamedTuple):
    """What became of a question."""

    result: Result
    ability: Ability | None = None


@dataclass(eq=False)
class Batch:
    """Questions that are asked together, each once, until `ends_s` on the monotonic clock."""

    ends_s: float
    left: int
    waiting: dict[str, deque[tuple[Question, Endpoint]]]  # by skill
    results: dict[Question, Told] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, asked: dict[Question, Endpoint], ends_s: float) -> "Batch":
        waiting: dict[str, deque[tuple[Question, Endpoint]]] = {}
        for question, endpoint in asked.items():
            waiting.setdefault(question.skill_id, deque()).append((question, endpoint))
        return cls(ends_s, len(asked), waiting)

    def next(self, is_free: Callable[[str, Endpoint], bool]) -> tuple[Question, Endpoint] | None:
        """Takes the next question for which there is a place, one skill after the other."""
        for skill, queue in self.waiting.items():
            if is_free(skill, queue[0][1]):
                found = queue.popleft()
                del self.waiting[skill]
                if queue:
                    self.waiting[skill] = queue  # behind the other skills
                return found
        return None

    def settle(self, question: Question, told: Told) -> None:
        self.results[question] = told
        self.left -= 1
        if not self.left:
            self.done.set()


@dataclass(eq=False)
class _Flight:
    """A question under way."""

    batch: Batch
    question: Question
    endpoint: Endpoint
    began_s: float
    lingers: bool = False


class AskingLoop:
    """Sends batches' questions by `post`, which raises Refused or Broken where there is no answer."""

    def __init__(
        self,
        post: Callable[[Question, Endpoint], Awaitable[Ability]],
        answers: Answers,
        breakers: Breakers,
        deadline_s: float,
        concurrency: int,
        per_host: int,
    ) -> None:
        self._post = post
        self._answers = answers
        self._breakers = breakers
        self._deadline_s = deadline_s
        self._concurrency = concurrency
        self._per_host = per_host
        self._per_skill = max(1, per_host // 2)  # so that one hanging skill leaves its host's others room
        self._batches: list[Batch] = []
        self._flights: dict[asyncio.Task[None], _Flight] = {}
        self._active = self._lingering = 0
        self._hosts: Counter[str] = Counter()
        self._skills: Counter[str] = Counter()

    def take(self, batch: Batch) -> None:
        """Sends as many of the batch's questions as there are places for, the others as places come free."""
        self._batches.append(batch)
        left_s = batch.ends_s - time.monotonic()
        asyncio.get_running_loop().call_later(left_s, self._end, batch)
        self._send()

    def release(self) -> None:
        """Lets whoever waits for a batch go on: this loop is at its end."""
        for batch in self._batches:
            batch.done.set()

    async def close(self) -> None:
        """Cuts what is under way."""
        self._batches.clear()
        flights = list(self._flights)
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _send(self) -> None:
        for batch in self._batches:
            while self._active < self._concurrency and (found := batch.next(self._is_free)):
                self._start(batch, *found)

    def _is_free(self, skill: str, endpoint: Endpoint) -> bool:
        return self._hosts[endpoint.host] < self._per_host and self._skills[skill] < self._per_skill

    def _start(self, batch: Batch, question: Question, endpoint: Endpoint) -> None:
        if not self._breakers.admit(question.skill_id):  # opened since the batch was made
            batch.settle(question, Told("open"))
            return
        flight = _Flight(batch, question, endpoint, time.monotonic())
        self._active += 1
        self._hosts[endpoint.host] += 1
        self._skills[question.skill_id] += 1
        task = asyncio.get_running_loop().create_task(self._fly(flight))
        self._flights[task] = flight
        task.add_done_callback(self._land)

    def _land(self, task: asyncio.Task[None]) -> None:
        """Gives the places back. An entry at zero goes: the counters stay as small as what is under way."""
        flight = self._flights.pop(task)
        if flight.lingers:
            self._lingering -= 1
        else:
            self._active -= 1
        for counter, key in ((self._hosts, flight.endpoint.host), (self._skills, flight.question.skill_id)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._send()

    async def _fly(self, flight: _Flight) -> None:
        skill = flight.question.skill_id
        try:
            async with asyncio.timeout(LINGER * self._deadline_s):
                ability = await self._post(flight.question, flight.endpoint)
        except Refused as error:
            log.debug("%s must not be asked: %s", skill, error)
            self._breakers.forgo(skill)
            told = Told("refused")
        except Broken as error:
            log.debug("%s gave no answer: %s", skill, error)
            self._breakers.fail(skill)
            told = Told("broken")
        except (TimeoutError, asyncio.CancelledError) as error:
            self._blame_if_late(flight)
            if isinstance(error, asyncio.CancelledError):
                raise
            told = Told("late")
        except Exception:
            log.exception("asking %s failed on our side", skill)
            self._breakers.forgo(skill)
            told = Told("failed")
        else:
            self._answers.put(flight.question, ability)
            self._note_time(flight)
            told = Told("answered", ability)
        flight.batch.settle(flight.question, told)

    def _note_time(self, flight: _Flight) -> None:
        """An answer after its deadline is kept, and a fault all the same: nobody can wait for such a skill."""
        if time.monotonic() - flight.began_s <= self._deadline_s:
            self._breakers.succeed(flight.question.skill_id)
        else:
            self._breakers.fail(flight.question.skill_id)

    def _blame_if_late(self, flight: _Flight) -> None:
        if time.monotonic() - flight.began_s >= FULL_TIME * self._deadline_s:
            self._breakers.fail(flight.question.skill_id)
        else:
            self._breakers.forgo(flight.question.skill_id)

    def _end(self, batch: Batch) -> None:
        """The deadline has come: nothing more of the batch is sent, and what is under way lingers or is cut."""
        if batch not in self._batches:
            return
        self._batches.remove(batch)
        batch.waiting.clear()
        for task, flight in list(self._flights.items()):
            if flight.batch is not batch:
                continue
            if self._lingering < self._concurrency:
                flight.lingers = True
                self._lingering += 1
                self._active -= 1
            else:
                task.cancel()
        self._send()
