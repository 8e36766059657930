"""The router's sink: one Kafka transaction a batch, and one place that says what each error means.

- retry: the same call again, within one budget. A commit that timed out may have gone through or not: the client
  goes on with the one that is under way, and says in the end what became of it.
- abort: the transaction is lost, the process is not: abort, go back, do the batch again.
- exit: fenced, forbidden or unknown: only a new process can go on. It begins at the committed offsets, so this is
  right as well where a commit may have gone through.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from topics.errors import WorkerError
from topics.kafka import listen, producer, said
from topics.settings import Settings
from workers.failpoints import reach

log = logging.getLogger("namefree.transactions")

CALL_TIMEOUT_S = 10.0
"""One call's wait. Shorter than the budget, so that a broker that comes back is met by a fresh call."""

BUDGET_S = 60.0
"""All tries of one call together. Longer than a broker's restart, shorter than the poll interval (300 s)."""

SETTLE_S = 5.0
"""How long an abort waits for what was produced to be on its way. The client tells the coordinator of each
partition first, again and again while the commit before is being written out; an abort that overtakes that ends
what the coordinator knows nothing of, which is fatal to the client (INVALID_TXN_STATE)."""

HUNG_S = 30.0
"""A call that has not come back by then never will. librdkafka 2.16 may forget the timeout of the one that sends
offsets, where the group's coordinator was away (its issues 5456 and 5511)."""

PAUSE_S = 0.1  # between tries: the client backs off by itself, this only keeps an instant error from spinning
MAX_ABORTS_IN_A_ROW = 10  # the same batch lost this often will not pass: better stop than loop in silence

Headers = list[tuple[str, str | bytes | None]] | None


class Verdict(StrEnum):
    """What to do about an error."""

    RETRY = "retry"
    ABORT = "abort"
    EXIT = "exit"


# Codes that end the process even where the client sets no flag: somebody else took over, or we are not allowed.
EXIT_CODES = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)

# The group went on without us: the work in hand belongs to somebody else, a next poll joins again.
ABORT_CODES = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.TRANSACTION_ABORTABLE,
        KafkaError._ASSIGNMENT_LOST,
    }
)


def patiently(client: Producer, method: str, why: Callable[[str], str], *args: Any, **kwargs: Any) -> None:
    """Calls a producer's method, again while that may help, for writers who cannot go back to where they began.

    Raises WorkerError with what `why` makes of the cause where only a new process can go on: fenced, forbidden, or
    no answer for a minute.
    """
    ends_s = time.monotonic() + BUDGET_S
    while True:
        try:
            try:
                getattr(client, method)(*args, **kwargs)
                return
            except BufferError:
                listen(client.poll, PAUSE_S)
        except KafkaException as error:
            cause = error.args[0]
            if verdict(cause) is not Verdict.RETRY or time.monotonic() > ends_s:
                raise WorkerError(why(f"{method}: {said(cause)}")) from error
            log.info("%s again: %s", method, said(cause))
            time.sleep(PAUSE_S)


def verdict(error: KafkaError) -> Verdict:
    """Sorts an error of a transactional call. What nothing is known about ends the process."""
    if error.fatal() or error.code() in EXIT_CODES:
        return Verdict.EXIT
    if error.txn_requires_abort() or error.code() in ABORT_CODES:
        return Verdict.ABORT
    return Verdict.RETRY if error.retriable() else Verdict.EXIT


class TransactionLost(Exception):
    """The transaction has to be aborted and its batch done again."""


class TransactionalSink:
    """Begin, produce, commit or abort. Every method raises WorkerError where only a new process can go on.

    `produce` and `commit` raise TransactionLost where the batch has to be done again after `abort`.
    """

    def __init__(self, client: Producer, identity: str) -> None:
        self._client = client
        self._identity = identity
        self._aborts_in_a_row = 0
        self._passed = ""  # the last call that passed
        self._in_error = False  # the client itself wants an abort, and sends nothing until then
        self._call("init_transactions", CALL_TIMEOUT_S)

    def begin(self) -> None:
        self._call("begin_transaction")

    def produce(self, topic: str, key: bytes | None, value: bytes, headers: Headers = None) -> None:
        """Hands one message to the client; whether it arrived shows at `commit`."""
        while True:
            try:
                self._client.produce(topic, value=value, key=key, headers=headers)
                return
            except BufferError:
                self._listen("poll", 0.05)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._STATE:  # an earlier message failed: the client says so here
                    self._in_error = True
                    raise TransactionLost(f"produce: {error.args[0].str()}") from error
                self._give_up("produce", error.args[0])

    def commit(self, positions: list[TopicPartition], membership: object) -> None:
        """Commits what was produced and `positions`, for the consumer group that `membership` stands for."""
        self._call("send_offsets_to_transaction", positions, membership, CALL_TIMEOUT_S)
        self._call("commit_transaction", CALL_TIMEOUT_S)
        self._aborts_in_a_row = 0

    def abort(self) -> None:
        """Drops the transaction. Raises WorkerError after too many in a row."""
        self._aborts_in_a_row += 1
        if self._aborts_in_a_row >= MAX_ABORTS_IN_A_ROW:
            raise WorkerError(f"{self._aborts_in_a_row} transactions in a row were lost, see the log for why")
        if not self._in_error:
            self._listen("flush", SETTLE_S)
        self._call("abort_transaction", CALL_TIMEOUT_S)
        self._in_error = False

    def _listen(self, name: str, seconds: float) -> None:
        try:
            listen(getattr(self._client, name), seconds)
        except KafkaException as error:
            self._give_up(name, error.args[0])

    def _call(self, name: str, *arguments: Any) -> None:
        """The same call again while its error may pass, until the budget is spent."""
        call: Callable[..., Any] = getattr(self._client, name)
        deadline = time.monotonic() + BUDGET_S
        while True:
            try:
                reach(f"router.before_{name}")
                self._come_back(name, call, *arguments)
                self._passed = name
                reach(f"router.after_{name}")
                return
            except KafkaException as error:
                if not self._may_call_again(name, error.args[0]):
                    self._give_up(name, error.args[0])
                if time.monotonic() > deadline:
                    raise WorkerError(
                        f"{name} of {self._identity} did not pass within {BUDGET_S:.0f} s: {error.args[0].str()}"
                    ) from error
                log.info("%s again: %s", name, error.args[0].str())
                time.sleep(PAUSE_S)

    def _come_back(self, name: str, call: Callable[..., Any], *arguments: Any) -> None:
        """Makes the call. Raises WorkerError where it hangs, instead of hanging with it."""
        if name != "send_offsets_to_transaction":
            call(*arguments)
            return
        outcome: list[BaseException | None] = []

        def make() -> None:
            try:
                call(*arguments)
                outcome.append(None)
            except BaseException as error:  # noqa: BLE001 raised by who waits
                outcome.append(error)

        thread = threading.Thread(target=make, name=name, daemon=True)  # one that hangs keeps no process alive
        thread.start()
        thread.join(HUNG_S)
        if not outcome:
            raise WorkerError(f"{name} of {self._identity} hangs: the client has lost the group's coordinator")
        if outcome[0] is not None:
            raise outcome[0]

    def _may_call_again(self, name: str, error: KafkaError) -> bool:
        """A retriable error, or one that asks an abort to abort."""
        found = verdict(error)
        return found is Verdict.RETRY or (
            found is Verdict.ABORT and name == "abort_transaction" and self._is_open()
        )

    def _is_open(self) -> bool:
        """Whether there is a transaction to lose."""
        return self._passed in ("begin_transaction", "send_offsets_to_transaction")

    def _give_up(self, name: str, error: KafkaError) -> None:
        if verdict(error) is Verdict.ABORT and self._is_open():
            self._in_error = error.txn_requires_abort()
            raise TransactionLost(f"{name}: {error.str()}")
        raise WorkerError(f"{name} of {self._identity} failed: {said(error)}{_hint(error)}")


def _hint(error: KafkaError) -> str:
    if error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
        return ": another router runs under the same --instance, or this one paused for too long"
    return ""


def open_sink(settings: Settings, identity: str) -> TransactionalSink:
    """A sink whose transactional id is `identity`. Fences an elder one of that name and drops what it left."""
    return TransactionalSink(producer(settings, identity), identity)
