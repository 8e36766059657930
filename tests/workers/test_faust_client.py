"""faust's client: librdkafka's security properties said to it, and nothing passed over at a rebalance."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from topics.errors import UsageError
from topics.settings import Settings
from workers.faust_client import BatchConsumer, credentials

SASL = {"sasl.username": "me", "sasl.password": "x"}


def test_without_properties_there_are_no_credentials() -> None:
    assert credentials(Settings()) is None


def test_sasl_over_tls_checks_the_host() -> None:
    kafka = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-256", **SASL}
    found = credentials(Settings(kafka=kafka))
    assert (found.username, found.password, found.mechanism.value) == ("me", "x", "SCRAM-SHA-256")
    assert (found.protocol.value, found.ssl_context.check_hostname) == ("SASL_SSL", True)


def test_sasl_without_tls_and_tls_without_sasl() -> None:
    plain = credentials(Settings(kafka={"security.protocol": "SASL_PLAINTEXT", **SASL}))
    assert (plain.protocol.value, plain.mechanism.value) == ("SASL_PLAINTEXT", "PLAIN")
    assert credentials(Settings(kafka={"security.protocol": "ssl"})).protocol.value == "SSL"


@pytest.mark.parametrize(
    ("kafka", "sentence"),
    [
        ({"ssl.cipher.suites": "x"}, "no counterpart of the Kafka property 'ssl.cipher.suites'"),
        ({"security.protocol": "TLS"}, "security.protocol 'TLS' is none of PLAINTEXT, SSL"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "cannot do sasl.mechanism 'GSSAPI'"),
        ({"security.protocol": "SASL_SSL", "sasl.username": "me"}, "needs the Kafka property 'sasl.password'"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/not/there"}, "ssl files cannot be read"),
    ],
)
def test_a_property_that_cannot_be_said_is_refused_in_one_sentence(kafka: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        credentials(Settings(kafka=kafka))


class Overtaken(BatchConsumer):
    """A consumer whose first fetch comes back after the seek that ends a rebalance, and before the flow."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.app: Any = SimpleNamespace(consumer_generation_id=1)
        self.flow_active = False
        self.can_resume_flow = asyncio.Event()

    @property
    def should_stop(self) -> bool:
        return self.story.count("fetch") == 2

    async def _wait_next_records(self, timeout: float) -> tuple[dict[TP, list[object]], set[TP]]:
        self.story.append("fetch")
        return ({TP("outcomes", 0): [b"late"]} if self.story == ["fetch"] else {}), set()

    async def wait(self, *events: Any, **_: Any) -> Any:
        self.story.append("wait")
        self.flow_active = True

    async def perform_seek(self) -> None:
        assert self.flow_active
        self.story.append("seek")

    async def sleep(self, n: Any, **_: Any) -> None:
        """Nothing else runs here."""


def test_what_was_fetched_before_the_flow_is_sought_back_to_and_not_passed_over() -> None:
    consumer = Overtaken()
    asyncio.run(consumer._drain_messages(SimpleNamespace(should_stop=False)))
    assert consumer.story == ["fetch", "wait", "seek", "fetch"]
