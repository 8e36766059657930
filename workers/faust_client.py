"""faust, set up for the aggregator: read-committed, a fetched batch an event, credentials from the settings."""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from tempfile import gettempdir
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.transport.consumer import RecordMap
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from topics.errors import UsageError
from topics.settings import SESSION_TIMEOUT_MS, Settings

HEARTBEAT_S = 3.0  # a third of the session, as Kafka advises: two may be lost
BUFFERED_BATCHES = 8  # a batch is up to MAX_BATCH records: deep enough to never run dry, a few megabytes
MAX_BATCH = 2_000  # about a tenth of a second of folding, so that writes and rebalances stay punctual
FETCH_BYTES = 1024 * 1024  # a partition's fetch

# what changes nothing of what is promised, and has no counterpart in faust's client
IGNORED = ("client.id", "log_level", "socket.keepalive.enable", "message.max.bytes", "statistics.interval.ms")
TRANSLATED = (
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
)


class _CommittedThread(driver.AIOKafkaConsumerThread):
    """faust reads uncommitted unless it runs its own exactly-once mode; aborted decisions must not be folded."""

    mundane_level = "debug"

    def _create_worker_consumer(self, transport: Any) -> Any:
        # in_transaction also means faust's own transactional producers, so it is true for this one line
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False

    async def on_thread_stop(self) -> None:
        """Leaves without a cry where aiokafka was just waiting for a broker that is away: closing its fetcher it
        awaits a task that it has cancelled, and lets the cancellation out."""
        with suppress(asyncio.CancelledError):
            await super().on_thread_stop()

    def set_shutdown(self) -> None:
        """Tells the main loop, unless that has been closed meanwhile: a start that was given up does not wait."""
        if not self.parent_loop.is_closed():
            super().set_shutdown()


class BatchConsumer(driver.Consumer):
    """Hands on what one fetch brought of a partition as one event: `message.value` is a list of records.

    faust makes two tasks for each message, 200 µs of a core, which is more than folding it takes. Acknowledging
    is by position (`commit_positions`), so faust's own bookkeeping of gaps between offsets is not needed.
    """

    mundane_level = "debug"  # else a service logs its comings and goings under this module's name

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: set[TP] = set()  # partitions not to fetch now

    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        """Commits the next offset of each partition; what was revoked meanwhile is left to its new owner."""
        await self._commit(positions)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        wanted = (active_partitions or set()) - self.held
        if not wanted:  # to aiokafka, nothing would mean everything
            await self.sleep(timeout)
            return {}
        return await super()._getmany(wanted, timeout)

    async def _drain_messages(self, fetcher: Any) -> None:
        """The fetcher's loop. What was fetched across a rebalance is dropped and sought back to."""
        while not (self.should_stop or fetcher.should_stop):
            generation = self.app.consumer_generation_id
            records, _ = await self._wait_next_records(timeout=1.0)
            if generation != self.app.consumer_generation_id or not self.flow_active:
                await self._seek_back()
                continue
            for tp, batch in (records or {}).items():
                event = self._to_event(tp, batch, generation)
                await self.wait_first(self.callback(event), self.suspend_flow.wait())
            await self.sleep(0)

    async def _seek_back(self) -> None:
        """To the committed offsets, once partitions flow again.

        A fetch that was under way over a whole rebalance may return what stands behind the seek that ended it, and
        before the flow: nobody takes that, so without a seek after it, it would be passed over.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as faust does: any event will do
        try:
            await self.perform_seek()
        except KafkaError as error:  # revoked once more: the rebalance under way ends with a seek of its own
            self.log.warning("could not seek back after a rebalance: %s", error)

    def _to_event(self, tp: TP, batch: list[Any], generation: int) -> ConsumerMessage:
        """The batch as the message of its last record; `generation` is the one that it was fetched in."""
        event = self._to_message(tp, batch[-1])
        event.value = batch  # type: ignore[assignment]  # faust has bytes here; our schema passes it on
        event.generation_id = generation
        return event


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer


class BatchSchema(faust.Schema[Any, Any]):
    """Passes a batch on as it is: decoding is the aggregator's, which knows what to do with a malformed one."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, {}, message)

        return decode


def make_app(settings: Settings, group: str, instance: str = "") -> faust.App:
    """A faust app without web server, tables and files of its own. `instance`: its name in the group, under which
    it takes its place again at once after a kill. Raises UsageError."""
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap.split(",")],
        broker_credentials=credentials(settings),
        broker_session_timeout=SESSION_TIMEOUT_MS / 1000,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_max_poll_records=MAX_BATCH,
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance or None,
        stream_buffer_maxsize=BUFFERED_BATCHES,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=gettempdir(),  # named because faust wants one; nothing is ever written there
        web_enabled=False,
    )
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    return app


def credentials(settings: Settings) -> Any:
    """faust's credentials for librdkafka's security properties; None for PLAINTEXT.

    Raises UsageError for a property that cannot be said to faust's client.
    """
    kafka = settings.kafka
    for name in kafka:
        if name not in IGNORED and name not in TRANSLATED:
            raise UsageError(
                f"the aggregator's client has no counterpart of the Kafka property {name!r}: leave it out for "
                "`namefree aggregate`"
            )
    protocol = kafka.get("security.protocol", "PLAINTEXT").upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return faust.SSLCredentials(context=_ssl_context(kafka))
    if protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        return _sasl(kafka, _ssl_context(kafka) if protocol == "SASL_SSL" else None)
    raise UsageError(f"security.protocol {protocol!r} is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")


def _sasl(kafka: Mapping[str, str], context: ssl.SSLContext | None) -> Any:
    mechanism = kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise UsageError(
            f"the aggregator's client cannot do sasl.mechanism {mechanism!r}: it can do PLAIN, SCRAM-SHA-256 and "
            "SCRAM-SHA-512"
        )
    missing = [name for name in ("sasl.username", "sasl.password") if name not in kafka]
    if missing:
        raise UsageError(f"sasl.mechanism {mechanism} needs the Kafka property {missing[0]!r}")
    return faust.SASLCredentials(
        username=kafka["sasl.username"],
        password=kafka["sasl.password"],
        mechanism=mechanism,
        ssl_context=context,
    )


def _ssl_context(kafka: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=kafka.get("ssl.ca.location"))
        if "ssl.certificate.location" in kafka:
            context.load_cert_chain(
                kafka["ssl.certificate.location"], kafka.get("ssl.key.location"), kafka.get("ssl.key.password")
            )
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the ssl files cannot be read (ssl.ca.location and so on): {error}") from error
    if kafka.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if kafka.get("enable.ssl.certificate.verification", "true") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
