"""Sends many messages and knows that every one arrived."""

from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message

from topics.errors import BrokerError
from topics.kafka import RIGHTS_REMEDY, listen, producer, said
from topics.settings import Settings

FLUSH_TIMEOUT_S = 60.0  # longer than a broker's restart, shorter than an operator's patience


class Sender:
    """An idempotent producer; a message that was not acknowledged is an error at the next call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = producer(settings)
        self._failed: str | None = None
        self._topic = ""  # of the last message

    def send(self, topic: str, key: str, value: bytes | None) -> None:
        """Hands one message over; waits while the client's queue is full. A value of None removes what stands
        under the key of a compacted topic. Raises BrokerError."""
        self._topic = topic
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=partial(self._delivered, topic))
                break
            except BufferError:
                self.poll(0.1)
            except KafkaException as error:  # an earlier message has failed, and for good
                self.poll()
                raise BrokerError(
                    f"a message could not be sent to {self._settings.bootstrap}: {topic}: {said(error.args[0])}"
                ) from error
        self.poll()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Takes acknowledgements in. Raises BrokerError where a message was refused."""
        self._turn(self._producer.poll, timeout_s)
        if self._failed:
            raise BrokerError(f"a message could not be sent to {self._settings.bootstrap}: {self._failed}")

    def flush(self) -> None:
        """Returns when every message is acknowledged. Raises BrokerError where one was not within a minute."""
        left = self._turn(self._producer.flush, FLUSH_TIMEOUT_S)
        self.poll()
        if left:
            raise BrokerError(
                f"{left} messages were not acknowledged by {self._settings.bootstrap} "
                f"within {FLUSH_TIMEOUT_S:.0f} s"
            )

    def _turn(self, call: Callable[[float], int], timeout_s: float) -> int:
        """A call that hands out acknowledgements. A producer that is past help says so within it."""
        try:
            return listen(call, timeout_s)
        except (KafkaException, SystemError) as error:
            why = said(error.args[0]) if isinstance(error, KafkaException) else f"{error}{RIGHTS_REMEDY}"
            self._failed = self._failed or f"{self._topic}: {why}"
            return 0

    def _delivered(self, topic: str, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._failed is None:  # the first one tells why, and the others that it failed
            self._failed = f"{topic}: {said(error)}"
