"""The rights that each command needs on the cluster, no more and no less: one table, from which the manual's is
written, `namefree topics acls` prints, and whose every line a test takes away to see the command fail.

Reading and writing imply describing. An idempotent producer needs no right of its own since Kafka 2.8.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from topics.errors import UsageError
from topics.kafka import READERS
from topics.registry import (
    DEAD_LETTERS,
    DECISIONS,
    LINKS,
    LIVE_STATISTICS,
    OUTCOMES,
    REDRIVEN,
    RELEASES,
    SHADOW_DECISIONS,
    SKILLS,
    STATISTICS,
    TOPICS,
    UTTERANCES,
    Topic,
)
from topics.settings import Settings

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["read", "write", "describe", "create", "describe-configs"]


class Acl(Struct, frozen=True):
    """One right: an operation on a resource, or on all whose names begin with `name` where it is `prefixed`."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False

    def __str__(self) -> str:
        return f"{self.operation} {self.resource} {self.name}{'*' if self.prefixed else ''}"

    def line(self, principal: str, bootstrap: str) -> str:
        """The call of Kafka's own tool that gives it to `principal`."""
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        operation = "".join(part.capitalize() for part in self.operation.split("-"))
        return (
            f"kafka-acls --bootstrap-server {bootstrap} --add --allow-principal '{principal}' "
            f"--operation {operation} --{self.resource} '{self.name}'{pattern}"
        )


class Rights(Struct, frozen=True, kw_only=True):
    """What one command does on the cluster. `group`: the consumer group that it is a member of; `identity`: what
    its transactional ids begin with. Both carry the prefix; `group` can be chosen, and names the transactions too.
    Whoever reads in another way than as a member looks a group up for want of another way to begin: READERS.
    """

    reads: Sequence[Topic] = ()
    writes: Sequence[Topic] = ()
    group: str = ""
    identity: str = ""
    joins: bool = False  # it reads as a member of its group alone
    topics: Sequence[Operation] = ()  # on every topic


ROUTE = Rights(
    reads=(UTTERANCES, LINKS, SKILLS, RELEASES),
    writes=(DECISIONS, SHADOW_DECISIONS, DEAD_LETTERS),
    group="namefree-router",
)
SOURCES = tuple(topic for topic in TOPICS if topic not in (DEAD_LETTERS, REDRIVEN))
COMMANDS: dict[str, Rights] = {
    "route": ROUTE,
    "route --live-statistics": Rights(
        reads=(*ROUTE.reads, STATISTICS, LIVE_STATISTICS),
        writes=(*ROUTE.writes, LIVE_STATISTICS),
        group=ROUTE.group,
    ),
    "aggregate": Rights(
        reads=(DECISIONS, OUTCOMES, STATISTICS),
        writes=(STATISTICS, DEAD_LETTERS),
        group="namefree-aggregator",
        joins=True,
    ),
    "cycle": Rights(reads=(UTTERANCES, DECISIONS, OUTCOMES, SKILLS, STATISTICS, RELEASES), writes=(RELEASES,)),
    "releases publish": Rights(writes=(RELEASES,)),
    "releases promote": Rights(reads=(RELEASES, DECISIONS, SHADOW_DECISIONS, OUTCOMES), writes=(RELEASES,)),
    "releases list": Rights(reads=(RELEASES,)),
    "ask": Rights(reads=(RELEASES,)),
    "replay": Rights(reads=(UTTERANCES, LINKS, DECISIONS, OUTCOMES, RELEASES, SKILLS)),
    "simulate": Rights(reads=(DECISIONS,), writes=(UTTERANCES, LINKS, OUTCOMES)),
    "catalogue load": Rights(writes=(SKILLS,)),
    "skills remove": Rights(reads=(SKILLS, RELEASES), writes=(SKILLS,)),
    "dead-letters list": Rights(reads=(DEAD_LETTERS, REDRIVEN)),
    "dead-letters redrive": Rights(
        reads=(DEAD_LETTERS, REDRIVEN), writes=(REDRIVEN, *SOURCES), identity="namefree-redrive"
    ),
    "topics create": Rights(topics=("create", "describe")),
    "topics check": Rights(topics=("describe", "describe-configs")),
}


def needed(settings: Settings, command: str, group: str = "") -> list[Acl]:
    """What a user needs to run `command`, with the settings' prefix. `group`: another than the command's own.

    Raises UsageError where there is no such command.
    """
    if command not in COMMANDS:
        raise UsageError(f"no rights are known for {command!r}: it is one of {', '.join(COMMANDS)}")
    return list(dict.fromkeys(_rights(settings.prefix, COMMANDS[command], group)))


def _rights(prefix: str, rights: Rights, group: str) -> Iterator[Acl]:
    for topic in rights.reads:
        yield Acl("topic", f"{prefix}{topic.name}", "read")
    for topic in rights.writes:
        yield Acl("topic", f"{prefix}{topic.name}", "write")
    for operation in rights.topics:
        yield from (Acl("topic", f"{prefix}{topic.name}", operation) for topic in TOPICS)
    if rights.reads and not rights.joins:
        yield Acl("group", f"{prefix}{READERS}", "describe")
    if rights.group:
        name = f"{prefix}{group or rights.group}"
        yield Acl("group", name, "read")
        yield Acl("transactional-id", f"{name}-", "write", prefixed=True)
    if rights.identity:
        yield Acl("transactional-id", f"{prefix}{rights.identity}", "write")
