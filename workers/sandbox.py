"""A sandbox of skills: a small HTTP server on loopback that answers CanFulfillIntentRequest for cards.

An honest skill answers what its card declares. Others are given a fault, by name or by `RATES`, so that whoever
asks can be tried against what the real ones do. Each skill has a path of its own: /skills/<its id, quoted>.
"""

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from urllib.parse import quote

import msgspec
from aiohttp import web

from model.fulfilment import Question
from topics.errors import WorkerError
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility
from workers.fulfil_wire import Broken, decode_question, encode_answer

HOST = "127.0.0.1"
HUGE_BYTES = 10 * 1024 * 1024
SLOW_MS = 500.0  # far beyond any deadline that a decision can wait for
TRICKLE_S = 0.02  # from one byte to the next
START_S = 30.0


class Fault(StrEnum):
    """What is wrong with a skill."""

    HONEST = "honest"  # nothing: it answers what its card declares
    SLOW = "slow"  # answers after SLOW_MS
    SILENT = "silent"  # takes the question and never answers
    TRICKLING = "trickling"  # answers a byte at a time
    LYING = "lying"  # YES to everything
    MALFORMED = "malformed"  # no JSON
    HUGE = "huge"  # HUGE_BYTES of blanks before its answer
    REDIRECTING = "redirecting"  # sends whoever asks to another path
    SLAMMING = "slamming"  # closes the connection


# What share of skills has a fault where `rates` are wanted. Made up: enough of each to be seen among a hundred.
RATES = {
    Fault.SLOW: 0.05,
    Fault.SILENT: 0.03,
    Fault.LYING: 0.05,
    Fault.TRICKLING: 0.01,
    Fault.MALFORMED: 0.02,
    Fault.HUGE: 0.01,
    Fault.REDIRECTING: 0.01,
    Fault.SLAMMING: 0.02,
}


def faults_by_rates(cards: Iterable[SkillCard], seed: int) -> dict[str, Fault]:
    """A fault for each skill, honest ones among them, by `RATES`: the same for the same seed and id."""
    kinds, shares = list(RATES), list(RATES.values())
    weights = [*shares, 1 - sum(shares)]
    return {
        card.skill_id: random.Random(f"{seed} {card.skill_id}").choices([*kinds, Fault.HONEST], weights)[0]
        for card in cards
    }


def declared(card: SkillCard, question: Question) -> Ability:
    """What the card says to the question: its own answer for the intent, and by each slot's values."""
    intent = next((one for one in card.intents if one.name == question.intent), None)
    own = card.can_fulfill.get(question.intent)
    if intent is None and own is None:
        return Ability("NO", {name: SlotAbility("NO", "NO") for name, _ in question.slots})
    slots = {name: _slot(intent, own, name, value) for name, value in question.slots}
    return Ability(own.answer if own else "YES", slots)


def _slot(intent: Intent | None, own: Ability | None, name: str, value: str) -> SlotAbility:
    if own and name in own.slots:
        return own.slots[name]
    slot: Slot | None = next((one for one in intent.slots if one.name == name), None) if intent else None
    if slot is None:
        return SlotAbility("NO", "NO")
    if not slot.values:
        return SlotAbility("MAYBE", "MAYBE")
    listed = value.casefold() in {one.casefold() for one in slot.values}
    return SlotAbility("YES", "YES") if listed else SlotAbility("MAYBE", "NO")


def _lie(question: Question) -> Ability:
    return Ability("YES", {name: SlotAbility("YES", "YES") for name, _ in question.slots})


@dataclass(frozen=True)
class Heard:
    """A question that came in: whose, with which headers, and its body."""

    skill_id: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(eq=False)
class Sandbox:
    """Serves while it is used as a context manager, from a thread of its own. `port` 0 takes any free one.

    `heard` counts questions by skill; `last` is the newest. Raises WorkerError where the port is taken.
    """

    cards: Mapping[str, SkillCard]
    faults: dict[str, Fault] = field(default_factory=dict)  # may be changed while it serves
    port: int = 0
    slow_ms: float = SLOW_MS
    tls: ssl.SSLContext | None = None
    heard: Counter[str] = field(default_factory=Counter)
    last: Heard | None = None
    most_at_once: int = 0
    _under_way: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _error: OSError | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def endpoint(self, skill: str) -> str:
        """Where a skill answers."""
        return address(self.port, skill, "https" if self.tls else "http")

    def __enter__(self) -> "Sandbox":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sandbox", daemon=True)
        self._thread.start()
        self._ready.wait(START_S)
        if self._error is not None:
            self._thread.join()
            raise WorkerError(f"the sandbox cannot serve at {HOST}:{self.port} ({self._error.strerror})")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/skills/{skill}", self._answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self.port, ssl_context=self.tls)
            await site.start()
            self.port = runner.addresses[0][1]
        except OSError as error:
            self._error = error
        else:
            self._ready.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()
            self._ready.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        skill = request.match_info["skill"]
        card = self.cards.get(skill)
        if card is None:
            raise web.HTTPNotFound(text=f"no skill {skill!r} in this sandbox\n")
        body = await request.read()
        self.heard[skill] += 1
        self.last = Heard(skill, dict(request.headers), body)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            question = decode_question(body, skill, str(request.url))
            return await self._behave(request, card, question)
        except Broken as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        finally:
            self._under_way -= 1

    async def _behave(self, request: web.Request, card: SkillCard, question: Question) -> web.StreamResponse:
        """Does what the skill's fault says."""
        fault = self.faults.get(card.skill_id, Fault.HONEST)
        answer = encode_answer(_lie(question) if fault is Fault.LYING else declared(card, question))
        if fault is Fault.SLOW:
            await asyncio.sleep(self.slow_ms / 1000)
        elif fault is Fault.SILENT:
            await asyncio.Event().wait()  # until the other side goes
        elif fault is Fault.TRICKLING:
            return await _trickle(request, answer)
        elif fault is Fault.MALFORMED:
            answer = answer[: len(answer) // 2]
        elif fault is Fault.HUGE:
            answer = b" " * HUGE_BYTES + answer
        elif fault is Fault.REDIRECTING:
            raise web.HTTPTemporaryRedirect(f"{request.path}/elsewhere")
        elif fault is Fault.SLAMMING and request.transport is not None:
            request.transport.abort()
        return web.Response(body=answer, content_type="application/json")


async def _trickle(request: web.Request, answer: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for byte in answer:
        await response.write(bytes([byte]))
        await asyncio.sleep(TRICKLE_S)
    return response


def address(port: int, skill: str, scheme: str = "http") -> str:
    """Where a skill answers in the sandbox at `port`."""
    return f"{scheme}://{HOST}:{port}/skills/{quote(skill, safe='')}"


def with_endpoints(cards: Iterable[SkillCard], sandbox: Sandbox) -> list[SkillCard]:
    """The cards, with the sandbox as the endpoint of each that declares an intent."""
    return [
        msgspec.structs.replace(card, endpoint=sandbox.endpoint(card.skill_id)) if card.intents else card
        for card in cards
    ]
