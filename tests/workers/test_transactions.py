"""What the sink makes of every error that the client knows, and how long it tries."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from topics.errors import WorkerError
from workers import transactions
from workers.transactions import (
    ABORT_CODES,
    EXIT_CODES,
    MAX_ABORTS_IN_A_ROW,
    TransactionalSink,
    TransactionLost,
    Verdict,
    verdict,
)

CODES = sorted(
    {
        value
        for name, value in vars(KafkaError).items()
        if isinstance(value, int) and name.strip("_").isupper() and name != "NO_ERROR"
    }
)


class ScriptedClient:
    """A transactional client whose calls fail as told: name -> errors, the first first."""

    def __init__(self, **failures: Sequence[KafkaError | BufferError]) -> None:
        self.failures = {name: list(errors) for name, errors in failures.items()}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_arguments: Any, **_named: Any) -> None:
            self.calls.append(name)
            if left := self.failures.get(name):
                error = left.pop(0)
                raise error if isinstance(error, BufferError) else KafkaException(error)

        return call


def sink(client: ScriptedClient) -> TransactionalSink:
    return TransactionalSink(client, "r-1")  # type: ignore[arg-type]


def begun(client: ScriptedClient) -> TransactionalSink:
    """A sink with a transaction open."""
    found = sink(client)
    found.begin()
    return found


def retriable(code: int = KafkaError._TIMED_OUT) -> KafkaError:
    return KafkaError(code, "later", False, True, False)


def abortable(code: int = KafkaError._TIMED_OUT) -> KafkaError:
    return KafkaError(code, "lost", False, False, True)


def fatal(code: int = KafkaError._FENCED) -> KafkaError:
    return KafkaError(code, "fenced", True, False, False)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "PAUSE_S", 0.0)


def test_the_client_knows_the_codes_that_are_walked() -> None:
    assert len(CODES) > 150
    assert set(CODES) >= EXIT_CODES | ABORT_CODES


def verdicts(*flags: bool) -> dict[Verdict, set[int]]:
    """The codes by verdict, each with the flags fatal, retriable, abort."""
    found: dict[Verdict, set[int]] = {kind: set() for kind in Verdict}
    for code in CODES:
        found[verdict(KafkaError(code, "x", *flags))].add(code)
    return found


def test_a_fatal_error_always_ends_the_process() -> None:
    assert verdicts(True, True, True)[Verdict.EXIT] == set(CODES)


def test_a_lost_transaction_is_aborted_unless_somebody_took_over() -> None:
    found = verdicts(False, True, True)
    assert found[Verdict.EXIT] == EXIT_CODES
    assert found[Verdict.ABORT] == set(CODES) - EXIT_CODES


def test_a_retriable_error_is_retried_unless_somebody_took_over_or_the_group_went_on() -> None:
    found = verdicts(False, True, False)
    assert found[Verdict.EXIT] == EXIT_CODES
    assert found[Verdict.ABORT] == ABORT_CODES
    assert found[Verdict.RETRY] == set(CODES) - EXIT_CODES - ABORT_CODES


def test_an_error_of_which_nothing_is_known_ends_the_process() -> None:
    found = verdicts(False, False, False)
    assert found[Verdict.ABORT] == ABORT_CODES
    assert found[Verdict.EXIT] == set(CODES) - ABORT_CODES


def test_the_same_call_is_made_again_until_it_passes() -> None:
    client = ScriptedClient(commit_transaction=[retriable(), retriable()])
    sink(client).commit([], None)
    assert client.calls[-4:] == ["send_offsets_to_transaction"] + ["commit_transaction"] * 3


def test_a_call_that_never_passes_ends_with_its_name_and_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "BUDGET_S", -1.0)
    client = ScriptedClient(init_transactions=[retriable()])
    with pytest.raises(WorkerError, match=r"init_transactions of r-1 did not pass within .*: later"):
        sink(client)


def test_a_fenced_router_is_told_who_fenced_it() -> None:
    client = ScriptedClient(commit_transaction=[fatal()])
    with pytest.raises(WorkerError, match="another router runs under the same --instance"):
        sink(client).commit([], None)


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_lost_commit_asks_for_the_batch_again(call: str) -> None:
    client = ScriptedClient(**{call: [abortable()]})
    with pytest.raises(TransactionLost, match=f"{call}: lost"):
        begun(client).commit([], None)


def test_an_abort_waits_until_what_was_produced_is_on_its_way() -> None:
    client = ScriptedClient()
    begun(client).abort()
    assert client.calls[-2:] == ["flush", "abort_transaction"]


def test_an_abort_that_the_client_itself_wants_waits_for_nothing() -> None:
    client = ScriptedClient(commit_transaction=[abortable()])
    lost = begun(client)
    with pytest.raises(TransactionLost):
        lost.commit([], None)
    lost.abort()
    assert client.calls[-2:] == ["commit_transaction", "abort_transaction"]


def test_a_call_that_hangs_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "HUNG_S", 0.05)
    client, forever = ScriptedClient(), threading.Event()
    hanging = begun(client)
    client.__dict__["send_offsets_to_transaction"] = lambda *_: forever.wait()
    try:
        with pytest.raises(WorkerError, match="send_offsets_to_transaction of r-1 hangs"):
            hanging.commit([], None)
    finally:
        forever.set()


def test_an_abort_that_fails_is_made_again() -> None:
    client = ScriptedClient(abort_transaction=[retriable(), abortable()])
    begun(client).abort()
    assert client.calls.count("abort_transaction") == 3


@pytest.mark.parametrize("call", ["init_transactions", "begin_transaction"])
def test_what_is_lost_before_a_transaction_is_open_ends_the_process(call: str) -> None:
    """There is nothing to abort, and what the one before has committed must not be done again."""
    with pytest.raises(WorkerError, match=call):
        begun(ScriptedClient(**{call: [abortable()]}))


def test_a_failed_delivery_that_shows_at_the_next_produce_asks_for_the_batch_again() -> None:
    client = ScriptedClient(produce=[KafkaError(KafkaError._STATE, "in error")])
    with pytest.raises(TransactionLost):
        sink(client).produce("t", b"k", b"v")


def test_a_full_queue_is_waited_for() -> None:
    client = ScriptedClient(produce=[BufferError(), BufferError()])
    sink(client).produce("t", b"k", b"v")
    assert client.calls[1:] == ["produce", "poll", "produce", "poll", "produce"]


@pytest.mark.parametrize(
    "work", [lambda found: found.produce("t", b"k", b"v"), lambda found: found.abort()], ids=["produce", "abort"]
)
def test_a_client_that_is_past_help_says_so_also_while_it_is_waited_for(
    work: Callable[[TransactionalSink], None],
) -> None:
    """Fenced: it tells the next call, which is the one that waits for room, or for what is under way."""
    found = sink(ScriptedClient(produce=[BufferError()], poll=[fatal()], flush=[fatal()]))
    with pytest.raises(WorkerError, match="another router runs under the same --instance"):
        work(found)


def test_a_batch_that_is_lost_over_and_over_ends_the_process() -> None:
    aborting = sink(ScriptedClient())
    for _ in range(MAX_ABORTS_IN_A_ROW - 1):
        aborting.abort()
    with pytest.raises(WorkerError, match="10 transactions in a row"):
        aborting.abort()


def test_a_commit_in_between_starts_the_count_of_aborts_again() -> None:
    aborting = sink(ScriptedClient())
    for _ in range(3 * MAX_ABORTS_IN_A_ROW):
        aborting.abort()
        aborting.commit([], None)
