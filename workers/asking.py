"""Skills asked whether they can: the answers of many by one deadline, from a thread of its own.

`ask` is called by the router while it decides, so it keeps three promises: it returns by its deadline, it never
raises, and an endpoint can neither slow it down nor fill its memory, whatever it does. What is not known by then
is None.
"""

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from model.fulfilment import Question
from topics.errors import WorkerError
from topics.events import Ability
from workers.answers import Answers
from workers.asking_http import Post
from workers.asking_loop import AskingLoop, Batch, Told
from workers.asking_options import AskOptions
from workers.breakers import Breakers
from workers.endpoints import Endpoint, Refused, read_endpoint
from workers.lookups import Lookup
from workers.metrics import RouterMetrics
from workers.signing import Signer

log = logging.getLogger("namefree.asking")
# Whoever waits gets the interpreter back only when the loop's thread lets go of it, and that may take 5 ms
# (Python's switch interval): so waiting ends that much before the deadline and 1 ms for what is left to do, but no
# short deadline loses more than this share.
SWITCH_S = 0.006
SWITCH_SHARE = 0.12
START_S = 30.0  # for the thread's loop to turn, on a machine that is busy
CLOSE_S = 10.0  # for it to end: cuts connections, waits for nobody
SILENCE_S = 60.0  # between two errors about a thread that has died: it is asked for with every batch


@contextmanager
def opened(options: AskOptions | None, metrics: RouterMetrics) -> Iterator["SkillAsks | None"]:
    """Somebody to ask by, for as long as the body runs; None where nothing is to be asked."""
    if options is None:
        yield None
        return
    with SkillAsks(options, metrics) as asks:
        log.info("skills are asked, by %g ms%s", options.deadline_ms, ", signed" if options.key else "")
        yield asks


class SkillAsks:
    """`model.fulfilment.Asks` over HTTP. Any thread may call `ask`; close it, or use it as a context manager.

    `answers`, `breakers`, `lookup` (as `socket.getaddrinfo`) and `tls` are for tests. Raises UsageError where the
    key cannot be used, WorkerError where the thread does not start.
    """

    def __init__(
        self,
        options: AskOptions,
        metrics: RouterMetrics,
        *,
        answers: Answers | None = None,
        breakers: Breakers | None = None,
        lookup: Lookup = socket.getaddrinfo,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._metrics = metrics
        self._deadline_s = options.deadline_ms / 1000
        self._wait_s = self._deadline_s - min(SWITCH_S, SWITCH_SHARE * self._deadline_s)
        self._answers = Answers(options.cache_s) if answers is None else answers
        self._breakers = Breakers() if breakers is None else breakers
        self._signer = Signer(options.key, options.certificate_url) if options.key else None
        self._lookup = lookup
        self._tls = tls or ssl.create_default_context()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # None before the start and after the end
        self._asking: AskingLoop | None = None
        self._silent_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_S) or self._loop is None:
            raise WorkerError(f"the thread that asks skills did not start within {START_S:.0f} s: see the log")
        metrics.ask_breakers_open.set_function(self._breakers.open_count)

    def __enter__(self) -> "SkillAsks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, questions: Sequence[Question]) -> list[Ability | None]:
        """An answer each, in order; None where it is not known by the deadline. Never raises."""
        if not questions:
            return []
        began_s = time.monotonic()
        try:
            told = self._told(questions, began_s + self._wait_s)
        except Exception:
            log.exception("%d questions could not be asked", len(questions))
            told = {}
            late = Told("failed")
        else:
            late = Told("late")
        found = [told.get(question, late) for question in questions]
        for result, count in Counter(one.result for one in found).items():
            self._metrics.asked.labels(result).inc(count)
        self._metrics.ask_s.observe(time.monotonic() - began_s)
        return [one.ability for one in found]

    def close(self) -> None:
        """Cuts what is under way and ends the thread. Asked after that, nothing is known."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:  # it has just ended by itself
                log.debug("the thread that asks skills has ended already")
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            log.error("the thread that asks skills did not end within %.0f s", CLOSE_S)

    def _told(self, questions: Sequence[Question], ends_s: float) -> dict[Question, Told]:
        """By question, what is known by `ends_s`: at once, or from the skills."""
        told: dict[Question, Told] = {}
        asked: dict[Question, Endpoint] = {}
        for question in dict.fromkeys(questions):
            known = self._known(question)
            if isinstance(known, Endpoint):
                asked[question] = known
            else:
                told[question] = known
        return told | self._asked(asked, ends_s) if asked else told

    def _known(self, question: Question) -> Told | Endpoint:
        """What can be said without asking; else where to ask."""
        if ability := self._answers.get(question):
            return Told("cached", ability)
        try:
            endpoint = read_endpoint(question.endpoint, self._options.allow_http)
        except Refused as error:
            log.debug("%s must not be asked: %s", question.skill_id, error)
            return Told("refused")
        return Told("open") if self._breakers.is_open(question.skill_id) else endpoint

    def _asked(self, asked: dict[Question, Endpoint], ends_s: float) -> dict[Question, Told]:
        batch = Batch.of(asked, ends_s)
        loop, asking = self._loop, self._asking
        if loop is None or asking is None or not self._thread.is_alive():
            return self._dead(asked)
        loop.call_soon_threadsafe(asking.take, batch)
        batch.done.wait(max(0.0, ends_s - time.monotonic()))
        found = batch.results.copy()  # one step of the interpreter: the loop may go on writing
        return found if self._loop is not None else self._dead(asked) | found

    def _dead(self, asked: dict[Question, Endpoint]) -> dict[Question, Told]:
        now_s = time.monotonic()
        if now_s >= self._silent_until_s:
            self._silent_until_s = now_s + SILENCE_S
            log.error("no skill can be asked: the thread for it has ended; decisions go on without")
        return dict.fromkeys(asked, Told("failed"))

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException:  # the thread is at its end: told here, and by every `ask` after
            log.exception("the thread that asks skills has died")
        finally:
            self._loop = None
            if self._asking is not None:
                self._asking.release()
            self._ready.set()

    async def _serve(self) -> None:
        async with Post.open(self._options, self._signer, self._lookup, self._tls) as post:
            asking = AskingLoop(
                post,
                self._answers,
                self._breakers,
                self._deadline_s,
                self._options.concurrency,
                self._options.per_host,
            )
            self._asking, self._stop = asking, asyncio.Event()
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()
            self._loop = None
            asking.release()
            await asking.close()
