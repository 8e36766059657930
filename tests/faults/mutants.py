"""Routers without one of their guards, made here by patching the process: the product has no switch for it."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from topics.kafka import consumer
from topics.settings import Settings
from workers.links import LinksTable
from workers.router_process import RouterOptions, group_id
from workers.source import UtteranceSource
from workers.transactions import CALL_TIMEOUT_S, TransactionalSink


def _without_offsets(_settings: Settings, _options: object) -> None:
    def commit(self: TransactionalSink, _positions: object, _membership: object) -> None:
        self._call("commit_transaction", CALL_TIMEOUT_S)

    _patch(TransactionalSink, "commit", commit)


def _without_seek(_settings: Settings, _options: object) -> None:
    _patch(UtteranceSource, "rewind", _ignore)


def _without_fencing(settings: Settings, options: object) -> None:
    """Offsets are sent as by somebody who is no member of the group."""
    assert isinstance(options, RouterOptions)
    stranger = consumer(settings, group_id(settings, options))
    _patch(UtteranceSource, "membership", lambda _self: stranger.consumer_group_metadata())


def _without_waiting(_settings: Settings, _options: object) -> None:
    """Links come when they come."""

    def begin(self: LinksTable, partitions: frozenset[int]) -> None:
        self._linked.update((partition, {}) for partition in partitions)
        places = [TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions]
        self._reader.incremental_assign(places)

    _patch(LinksTable, "_begin", begin)
    _patch(LinksTable, "_catch_up", _ignore)


def _patch(owner: type, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)


def _ignore(*_told: object) -> None:
    """What the mutant leaves out."""


MUTANTS: dict[str, Callable[[Settings, object], None]] = {
    "offsets": _without_offsets,
    "seek": _without_seek,
    "fencing": _without_fencing,
    "links": _without_waiting,
}
