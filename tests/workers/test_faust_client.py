"""librdkafka's security properties, said to faust's client."""

import pytest

from topics.errors import UsageError
from topics.settings import Settings
from workers.faust_client import credentials

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
