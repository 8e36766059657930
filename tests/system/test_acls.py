"""The table of rights, held against a broker with an authorizer: with exactly these a command does its work, and
without any one of them it fails, with a line that names what it may not.

NAMEFREE_TEST_ACLS=all takes every right away in turn, NAMEFREE_TEST_ACLS=route those of that command alone; else a
few of each command are.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from model.bundle import write_bundle
from model.data import Row
from model.sample import SAMPLE_DIR
from tests.fuzz.targets import tiny_bundle
from tests.secured import Secured
from tests.workers.aggregating import T0_MS, Feeder, decision, outcome
from tests.workers.doubles import FlatSelector, flat_bundle, load_flat
from tests.workers.marketplace import ask, link
from topics.acls import COMMANDS, Acl, needed
from topics.codec import encode
from topics.errors import NamefreeError, WorkerError
from topics.events import DeadLetter, LiveStatistics, Redriven, SkillCard, StatisticsFold
from topics.kafka import producer
from topics.registry import (
    DEAD_LETTERS,
    LINKS,
    LIVE_STATISTICS,
    OUTCOMES,
    REDRIVEN,
    SKILLS,
    STATISTICS,
    TOPICS,
    UTTERANCES,
    check_topics,
    create_topics,
    topic_name,
)
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.aggregator_process import run_aggregator
from workers.catalogue import load_catalogue, remove_skills
from workers.crowd import Plan
from workers.customers import simulate
from workers.cycle_options import CycleOptions
from workers.gathering import gather
from workers.live import LiveFollower, LiveOptions
from workers.metrics import RouterMetrics
from workers.promotion import PromotionOptions, promote
from workers.redrive import all_letters, markers, redrive_where
from workers.releases import SHADOW, all_releases, current_release, publish, record, serve
from workers.replay import bundle_of, replay
from workers.router import Commit
from workers.router_process import RouterOptions, run_router
from workers.stretch import stretch_between

ASKED = os.environ.get("NAMEFREE_TEST_ACLS", "")  # read at import: a fixture takes it from the tests
SAMPLED = 1  # right of each command that is taken away in a run of the suite
LATE_S = 60.0
CARD = SkillCard(skill_id="rides:acorn", name="Acorn Rides")
KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


@dataclass(frozen=True)
class Place:
    """Where a command does its work: topics under its own prefix, as a super user has prepared them."""

    folder: Path
    group: str  # of its own for each case, so that each finds the same work
    back_door: Settings  # of the others in the loop, who may do all

    def bundle(self, name: str) -> Path:
        found = self.folder / name
        return found if found.exists() else flat_bundle(self.folder, name)


def route(settings: Settings, place: Place) -> None:
    """A decision, a shadow's decision and a dead letter."""
    stop, dead = threading.Event(), [0]

    def report(commit: Commit) -> None:
        dead[0] += commit.dead
        if dead[0]:
            stop.set()

    threading.Timer(LATE_S, stop.set).start()
    options = RouterOptions(group=place.group, begin="earliest", metrics_port=0)  # decisions are there already
    run_router(settings, options, load_flat, stop, report)
    _need(dead[0], "no dead letter was written")


def follow_live_statistics(settings: Settings, place: Place) -> None:
    """What `--live-statistics` adds to a router: a version read, folds read, a version written."""
    metrics, told = RouterMetrics(CollectorRegistry()), _Told()
    logging.getLogger("namefree.live").addHandler(told)
    try:
        with closing(LiveFollower(settings, LiveOptions(), metrics)) as live:
            ends_s = time.monotonic() + LATE_S  # it tells what it could not write, and goes on without
            while live._live is None and not told.lines and time.monotonic() < ends_s:
                live.update([])
                time.sleep(0.02)
            _need(live._live is not None, "".join(told.lines))
    finally:
        logging.getLogger("namefree.live").removeHandler(told)


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def aggregate(settings: Settings, place: Place) -> None:
    """A fold and a dead letter."""
    stop, wrote = threading.Event(), [0]

    def report(write: object) -> None:
        wrote[0] += write.dead_letters  # type: ignore[attr-defined]  # a Write
        if wrote[0]:
            stop.set()

    threading.Timer(LATE_S, stop.set).start()
    options = AggregatorOptions(group=place.group, metrics_port=0, write_every_s=0.1)
    run_aggregator(settings, options, stop, report)
    _need(wrote[0], "no dead letter was written")


def cycle(settings: Settings, place: Place) -> None:
    """What it reads and what it writes; the training between them asks nobody."""
    gather(settings, CycleOptions(place.folder, data=SAMPLE_DIR, min_outcomes=0))
    record(settings, place.bundle("candidate"), place.folder / "store", "", {}, "")


def publish_release(settings: Settings, place: Place) -> None:
    publish(settings, place.bundle("published"), place.folder / "store", "", {}, "")


def promote_release(settings: Settings, place: Place) -> None:
    """As far as its first stage, which waits for customers."""
    release = next(one for one in all_releases(settings) if one.note == "candidate")
    stages = PromotionOptions(shadow_decisions=0, canary_outcomes=0, watch_outcomes=0, steps=())
    promote(settings, release, stages)


def list_releases(settings: Settings, place: Place) -> None:
    all_releases(settings)
    current_release(settings)


def replay_stretch(settings: Settings, place: Place) -> None:
    bundle_of(settings, "current")
    _need(replay(settings, [FlatSelector()], stretch_between(settings)).utterances, "nothing was replayed")


def act(settings: Settings, place: Place) -> None:
    """Customers who link, ask, and tell what became of the decision that somebody makes."""
    rows = [Row("get me a car", "rides:acorn", "test", ("rides:acorn",))]
    feeder, over = Feeder(place.back_door), threading.Event()

    def decide() -> None:
        while not over.wait(0.2):
            feeder.decide([replace(decision(0), utterance_id="acl-0", customer_id="sim-acl-0")])

    router = threading.Thread(target=decide)
    router.start()
    try:
        simulate(settings, rows, Plan("acl", count=1, patience_s=LATE_S))
    finally:
        over.set()
        router.join()


def remove_skill(settings: Settings, place: Place) -> None:
    """One that only the release has, as it was shipped."""
    remove_skills(settings, ["rides:oak"])


def list_letters(settings: Settings, place: Place) -> None:
    list(all_letters(settings))
    markers(settings)


def redrive_letters(settings: Settings, place: Place) -> None:
    redrive_where(settings, lambda letter: True, again=True)


def check(settings: Settings, place: Place) -> None:
    _need(not (found := check_topics(settings)), "; ".join(found))


WORK: dict[str, Callable[[Settings, Place], object]] = {
    "route": route,
    "route --live-statistics": follow_live_statistics,
    "aggregate": aggregate,
    "cycle": cycle,
    "releases publish": publish_release,
    "releases promote": promote_release,
    "releases list": list_releases,
    "ask": list_releases,
    "replay": replay_stretch,
    "simulate": act,
    "catalogue load": lambda settings, place: load_catalogue(settings, [CARD]),
    "skills remove": remove_skill,
    "dead-letters list": list_letters,
    "dead-letters redrive": redrive_letters,
    "topics create": lambda settings, place: create_topics(settings, partitions=1),
    "topics check": check,
}


def _need(done: object, why: str) -> None:
    if not done:
        raise WorkerError(why or "the work was not done")


@dataclass(frozen=True)
class Case:
    """A command of a user who has all of its rights but one."""

    command: str
    number: int
    settings: Settings
    place: Place
    missing: Acl | None

    def run(self) -> str:
        """What it failed with; "" where it did its work."""
        try:
            WORK[self.command](self.settings, self.place)
        except NamefreeError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 the test tells of all of them together
            return f"an error that nobody made a line of: {error!r}"
        return ""


def prepare(settings: Settings, command: str, folder: Path) -> None:
    """Something on each topic, so that reading it is reading."""
    if command == "topics create":
        return
    create_topics(settings, partitions=1)
    client = producer(settings)

    def send(topic: object, key: bytes | str, value: bytes) -> None:
        client.produce(topic_name(settings, topic), value, key)  # type: ignore[arg-type]

    for topic, (key, value) in ((LINKS, link("c-0", "rides:acorn")), (UTTERANCES, ask(0))):
        send(topic, key, value)
    send(UTTERANCES, "c-0", b"rubbish")
    send(SKILLS, CARD.skill_id, encode(CARD))
    fold = StatisticsFold(event_time_ms=T0_MS, bucket="2026-11-22T19", partition=0, offsets={})
    send(STATISTICS, "2026-11-22T19/0", encode(fold))
    send(LIVE_STATISTICS, "old", encode(LiveStatistics(event_time_ms=1, version="old")))
    send(REDRIVEN, "0:99", encode(Redriven(event_time_ms=1, letter_time_ms=1, topic="t")))
    for source in (topic for topic in TOPICS if topic not in (DEAD_LETTERS, REDRIVEN)):
        letter = DeadLetter(
            event_time_ms=1,
            reason="malformed",
            message="no",
            topic=topic_name(settings, source),
            partition=0,
            offset=0,
            source_key=b"k",
            source_value=b"v",
        )
        send(DEAD_LETTERS, "k", encode(letter))
    client.flush()
    feeder = Feeder(settings)
    feeder.decide([decision(0)])
    feeder.answer([outcome(0)])
    feeder.send(topic_name(settings, OUTCOMES), "c-0", b"rubbish")
    if command == "skills remove":
        write_bundle(tiny_bundle(), folder / "tiny")
        publish(settings, folder / "tiny", folder / "store", "", {}, "")
    elif command == "cycle":
        record(settings, flat_bundle(folder, "first"), folder / "store", "", {}, "first")
    else:
        publish(settings, flat_bundle(folder, "first"), folder / "store", "", {}, "first")
        shadow = record(settings, flat_bundle(folder, "second"), folder / "store", "", {}, "candidate")
        if command == "route":
            serve(settings, shadow, SHADOW)


def all_cases(secured: Secured, folder: Path, run: str) -> Iterator[Case]:
    for at, command in enumerate(COMMANDS):
        if ASKED not in ("", "all", command):
            continue
        prefix = f"{run}{at}."
        place = folder / str(at)
        place.mkdir(parents=True)
        prepare(secured.back_door(prefix), command, place)
        added = _taken_away(command, needed(Settings(prefix=prefix), command))
        for number, missing in enumerate([*added, None]):
            group = f"g-{number}"
            settings = secured.scram(f"{run}{at}-{number}", "x" * 12, prefix, tls=False)
            if command == "topics create":  # of each case its own: what another has created cannot be again
                own = f"{run}{at}.{number}."
                missing = missing and replace(missing, name=missing.name.replace(prefix, own))
                settings = replace(settings, prefix=own)
            back_door = secured.back_door(prefix)
            yield Case(command, number, settings, Place(place, group, back_door), missing)


def _taken_away(command: str, rights: list[Acl]) -> list[Acl]:
    """Every right, or a few: of `--live-statistics` those that it adds, as `route` has shown the others."""
    if command == "route --live-statistics":
        prefix = rights[0].name.removesuffix(UTTERANCES.name)
        rights = [right for right in rights if right not in needed(Settings(prefix=prefix), "route")]
    if ASKED in ("all", command):
        return rights
    start = len(command)  # not the same kind of right of each command
    return [rights[(start + step * 5) % len(rights)] for step in range(min(SAMPLED, len(rights)))]


def bindings(case: Case) -> Iterator[AclBinding]:
    user = f"User:{case.settings.kafka['sasl.username']}"
    group = case.place.group if COMMANDS[case.command].group else ""
    for right in needed(case.settings, case.command, group):
        if right != _of_group(case, case.missing):
            pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
            operation = AclOperation[right.operation.upper().replace("-", "_")]
            yield AclBinding(
                KINDS[right.resource],
                right.name,
                pattern,
                user,
                "*",
                operation,
                AclPermissionType.ALLOW,
            )


def _of_group(case: Case, right: Acl | None) -> Acl | None:
    """The same right, of the group that the case has in place of the command's own."""
    usual = COMMANDS[case.command].group
    if right is None or not usual or right.resource == "topic":
        return right
    return Acl(right.resource, right.name.replace(usual, case.place.group), right.operation, right.prefixed)


@pytest.mark.timeout(900)
def test_each_right_is_needed_and_all_together_are_enough(secured: Secured, tmp_path: Path) -> None:
    cases = list(all_cases(secured, tmp_path, f"acl-{os.getpid()}-"))
    secured.add_users({case.settings.kafka["sasl.username"]: "x" * 12 for case in cases})
    secured.allow([binding for case in cases for binding in bindings(case)])
    by_command = [[case for case in cases if case.command == command] for command in COMMANDS]
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda same: [_timed(case) for case in same], by_command))
    wrong = []
    for same, said in zip(by_command, told, strict=True):
        for case, (line, _) in zip(same, said, strict=True):
            wrong += _wrong(case, line)
    assert not wrong, "\n".join(wrong)


def _timed(case: Case) -> tuple[str, float]:
    start_s = time.monotonic()
    line = case.run()
    seconds = time.monotonic() - start_s
    print(f"{case.command:24} {case.missing!s:60} {seconds:5.1f} s  {line}", flush=True)
    return line, seconds


def _wrong(case: Case, line: str) -> list[str]:
    missing = _of_group(case, case.missing)
    if missing is None:
        return [f"{case.command}: with all rights: {line}"] if line else []
    if not line:
        return [f"{case.command}: did its work without the right to {missing}"]
    named = missing.name in line or "GROUP_AUTHORIZATION_FAILED" in line
    named = named and "namefree topics acls" in line and "\n" not in line
    return [] if named else [f"{case.command}: without {missing} it says only: {line}"]
