"""What became of a run, counted from the topics themselves."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition

from tests.faults.conductor import Conductor
from tests.faults.fleet import Fleet
from tests.faults.folds import cells_that_differ
from tests.faults.reading import Book, Reader
from tests.faults.traffic import Traffic
from tests.workers.aggregating import settled
from topics.errors import BadBundle
from topics.kafka import admin_client, consumer, partitions_of, read_all
from topics.registry import DECISIONS, UTTERANCES, topic_name
from topics.settings import Settings
from workers.release_store import read_whole
from workers.releases import current_release
from workers.router_process import RouterOptions, group_id

CRASHED = "Process ForkServerProcess-"  # how the log of a process begins that an exception ended
TRACEBACK = "Traceback (most recent call last)"


def verdict(
    settings: Settings,
    workers: Fleet,
    conductor: Conductor,
    traffic: Traffic,
    reader: Reader,
    last: str,
    tail: int,
    say: Callable[[str], None],
) -> dict[str, int]:
    """What is wrong, by name; every count is named, also where it is zero. `last`: the release that was
    there before utterance `tail`."""
    say("a fresh reader reads all")
    live, fresh = reader.book, Book(traffic)
    fresh.take(read_all(settled(settings, DECISIONS), topic_name(settings, DECISIONS)))
    for line in [] if workers.mutant else fresh.again:
        say(line)
    found = {
        "never sent": traffic.total - traffic.sent,
        "lost": fresh.lost(),
        "decided twice": fresh.duplicated(),
        "decided for the wrong customer": fresh.foreign,
        "out of order within a customer": fresh.disordered,
        "decided by older links": len(fresh.stale_ms()),
        "decided by a release that was not whole": fresh.by_others(conductor.whole),
        "decided by another release than the last": fresh.by_others({last}, tail),
        "serves and is not whole": _is_damaged(settings),
        "read otherwise by the reader of all the while": int((live.first_at != fresh.first_at).sum())
        + abs(live.duplicated() - fresh.duplicated()),
        "utterances not committed": not_committed(settings),
        "workers that an exception ended": workers.said(CRASHED),
        "tracebacks in the logs": workers.said(TRACEBACK),
        "workers that did not leave": workers.exits["did not leave"],
    }
    if not workers.mutant:
        say("the statistics are held against a plain fold, and the dead letters against the rubbish")
        found["cells of the statistics that differ"] = cells_that_differ(settings)
        found |= conductor.rubbish.wrong()
    return found | dict(conductor.wrong)


def group_now(settings: Settings) -> str:
    """The routers' group as the broker sees it: what a run that is stuck waits for."""
    group = group_id(settings, RouterOptions())
    admin = admin_client(settings)  # has to live as long as its answer is waited for
    try:
        found = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    except KafkaException as error:
        return f"{group} cannot be described: {error.args[0].str()}"
    held = [
        f"{member.member_id[-8:]} {sorted(place.partition for place in member.assignment.topic_partitions)}"
        for member in found.members
    ]
    return f"{group}: {found.state.name}, {', '.join(held) or 'no member'}"


def _is_damaged(settings: Settings) -> int:
    """1 where the release that routers serve is not whole, or there is none."""
    release = current_release(settings)
    try:
        return int(release is None or read_whole(Path(release.bundle)).digest != release.digest)
    except BadBundle:
        return 1


def not_committed(settings: Settings) -> int:
    """How far the routers' group is from the end of the utterances, in offsets."""
    name = topic_name(settings, UTTERANCES)
    with closing(consumer(settings, group_id(settings, RouterOptions()))) as member:
        places = [TopicPartition(name, partition) for partition in partitions_of(settings, name)]
        at = {place.partition: max(place.offset, 0) for place in member.committed(places, 30)}
        return sum(abs(member.get_watermark_offsets(place, 30)[1] - at[place.partition]) for place in places)
