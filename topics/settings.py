"""How to reach the cluster: one struct, safe to print, from which every client's configuration is made.

Any librdkafka property passes through in `kafka`, so PLAINTEXT, SSL, SASL_SSL and whatever comes next need no
code here. Properties that would break a promise of delivery are refused.
"""

from typing import Any

from msgspec import Struct

from topics.errors import UsageError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"

SESSION_TIMEOUT_MS = 10_000
"""A dead worker's partitions move after this. Shorter than a demo's patience, longer than a garbage pause."""

MAX_POLL_INTERVAL_MS = 300_000
"""A batch slower than this costs the membership. Longer than restoring the links of every partition."""

TRANSACTION_TIMEOUT_MS = 15_000
"""A killed router's open transaction holds readers back this long. Longer than any batch, or batches abort."""

SECRET_WORDS = ("password", "passphrase", "secret", "token", "key.pem", "jaas", "credential", "oauthbearer.config")

# what the workers set themselves; another value would lose or double decisions
PROTECTED = {
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "partition.assignment.strategy",
    "partitioner",
    "transactional.id",
}


class Settings(Struct, frozen=True, kw_only=True):
    """Where the cluster is and how to speak to it. Printing it shows no secret."""

    bootstrap: str = DEFAULT_BOOTSTRAP
    prefix: str = ""
    kafka: dict[str, str] = {}

    def __post_init__(self) -> None:
        refused = sorted(PROTECTED & self.kafka.keys())
        if refused:
            raise UsageError(f"the Kafka property {refused[0]!r} is set by the workers themselves: leave it out")

    def __repr__(self) -> str:
        shown = {name: _shown(name, value) for name, value in sorted(self.kafka.items())}
        return f"Settings(bootstrap={self.bootstrap!r}, prefix={self.prefix!r}, kafka={shown})"


def _shown(name: str, value: str) -> str:
    return "***" if _is_secret(name) else value


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def without_secrets(settings: Settings, text: str) -> str:
    """`text`, in which a client may have repeated what it was given, with stars in place of the secrets."""
    for name, value in settings.kafka.items():
        if _is_secret(name) and value:
            text = text.replace(value, "***")
    return text


def client_config(settings: Settings) -> dict[str, Any]:
    """What every client shares: the cluster and the properties that pass through."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "namefree",
        "socket.keepalive.enable": True,
        "log_level": 2,  # a broker that is away is said once, by the call; at level 3 it is 20 lines a second
        **settings.kafka,
    }


def producer_config(settings: Settings, transactional_id: str | None = None) -> dict[str, Any]:
    """An idempotent producer with the Java clients' partitioning; transactional if given an id."""
    config = {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # as Java and faust: equal keys meet in equal partitions
        "linger.ms": 5,  # a batch of decisions is produced at once; waiting longer only adds latency
        "compression.type": "lz4",
        "queue.buffering.max.messages": 200_000,
        **client_config(settings),
    }
    if transactional_id:
        config["transactional.id"] = transactional_id
        config["transaction.timeout.ms"] = TRANSACTION_TIMEOUT_MS
    return config


def consumer_config(settings: Settings, group: str, **overrides: Any) -> dict[str, Any]:
    """A read-committed consumer that commits nothing by itself and starts at the beginning."""
    return {
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": False,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "partition.assignment.strategy": "cooperative-sticky",
        "fetch.wait.max.ms": 50,  # bounds the latency that an idle topic adds
        "queued.max.messages.kbytes": 32_768,  # bounds memory a consumer, whatever the lag
        **client_config(settings),
        **overrides,
    }
