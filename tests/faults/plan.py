"""Which faults, where, on whom: drawn from a seed alone, so that a run can be had again."""

import random
from collections.abc import Mapping

from msgspec import Struct

SLOTS = 3  # routers at most
ZOMBIE = "freeze:90"  # until the conductor wakes it: once its work has been done by others

# place of workers.failpoints -> what is done there
POINTS: Mapping[str, tuple[str, ...]] = {
    "router.after_poll": ("kill", ZOMBIE, "raise"),
    "router.after_decode": ("kill", "raise"),
    "router.after_decide": ("kill", ZOMBIE, "delay:2"),
    "router.after_produce": ("kill", ZOMBIE, "freeze:3.5", "raise"),
    "router.before_begin_transaction": ("kill", "retry"),
    "router.after_begin_transaction": ("kill", "abort"),
    "router.before_send_offsets_to_transaction": ("kill", ZOMBIE, "abort", "retry"),
    "router.after_send_offsets_to_transaction": ("kill", ZOMBIE, "abort"),
    "router.before_commit_transaction": ("kill", ZOMBIE, "freeze:3.5", "abort", "retry"),
    "router.after_commit_transaction": ("kill", ZOMBIE, "raise"),
    "router.before_abort_transaction": ("kill", ZOMBIE, "retry"),
    "router.after_abort_transaction": ("kill",),
    "router.assigned": ("kill", "delay:2"),
    "router.revoked": ("kill", ZOMBIE, "delay:2"),
    "router.lost": ("kill",),
    "router.restoring": ("kill", ZOMBIE, "delay:1"),
    "router.reloading": ("kill", "raise"),
    "router.before_init_transactions": ("kill",),
    "router.after_init_transactions": ("kill",),
}
# Passed seldom: at which passing. A release is loaded at the start, and again when another one is published.
SELDOM = {"router.assigned": 1, "router.revoked": 1, "router.lost": 1, "router.restoring": 1,
          "router.reloading": 2, "router.before_init_transactions": 1, "router.after_init_transactions": 1,
          "router.before_abort_transaction": 1, "router.after_abort_transaction": 1}  # fmt: skip
PUBLISHING = (
    "releases.after_store=kill@1",
    "releases.before_event=kill@1",  # of the record
    "releases.after_event=kill@1",
    "releases.before_event=kill@2",  # of what serves
    "releases.after_event=kill@2",
)
REDRIVING = ("redrive.before_commit=kill@1", "redrive.after_commit=kill@1")
AGGREGATING = ("before_write", "after_write", "after_commit")
# Those that look most like what a mutant does wrong: in every plan.
ALWAYS = (
    f"router.after_decide={ZOMBIE}",
    f"router.after_decode={ZOMBIE} router.after_decide=delay:2",  # wakes, and only then learns that it is out
    "router.before_commit_transaction=abort",
    "router.after_send_offsets_to_transaction=abort",
    "router.before_commit_transaction=kill",
)
KINDS = {
    "clean bounce": "SIGTERM, and another router",
    "hard bounce": "SIGKILL, and another router",
    "zombie": "SIGSTOP longer than session and transaction live, meanwhile another router; then SIGCONT",
    "failpoint": "a router that kills, freezes, breaks or delays itself at a place of its loop",
    "broker down": "the broker is killed, and comes back",
    "storm": "strangers join and leave the group, ten times",
    "full queue": "a router whose producer holds 64 messages",
    "slow batch": "a router that takes longer than max.poll.interval.ms",
    "release": "another release is published",
    "damaged release": "a release is published whose bundle is damaged on its way",
    "full disk": "a release is published to a store that cannot be written",
    "publisher": "whoever publishes is killed on the way, and publishes again",
    "rubbish": "malformed utterances, outcomes, links, folds, cards and releases",
    "redrive": "whoever sends dead letters back is killed on the way, and does it again",
    "aggregator": "the aggregator is killed at one of its failpoints",
}
# What each mutant of the router is found by.
MUTANT_FAULTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "offsets": (("clean bounce", ""), ("hard bounce", "")),
    "seek": (
        ("failpoint", "router.before_commit_transaction=abort"),
        ("failpoint", "router.after_send_offsets_to_transaction=abort"),
    ),
    "fencing": (("failpoint", f"router.after_decide={ZOMBIE}"), ("failpoint", f"router.after_decode={ZOMBIE}")),
    "links": (("hard bounce", ""), ("clean bounce", ""), ("hard bounce", "")),
}


class Fault(Struct, frozen=True, kw_only=True):
    """One fault, once `at` utterances are decided."""

    at: int
    kind: str
    slot: int = 0
    points: str = ""
    seconds: float = 0.0


def plan(seed: int, utterances: int, faults: int) -> list[Fault]:
    """1 -> 3 routers after a fifth of the utterances, 3 -> 1 after four fifths; `faults` faults all over.

    Each kind occurs where there are faults enough, and so do those in ALWAYS.
    """
    draw = random.Random(f"plan {seed}")
    wanted = [("failpoint", points) for points in ALWAYS]
    wanted += [(kind, "") for kind in draw.sample(list(KINDS), len(KINDS)) if kind != "failpoint"]
    weights = [6 if kind == "failpoint" else 3 if kind == "aggregator" else 1 for kind in KINDS]
    wanted += [(draw.choices(list(KINDS), weights)[0], "") for _ in range(max(0, faults - len(wanted)))]
    wanted = wanted[: max(faults, len(ALWAYS))]
    draw.shuffle(wanted)
    scaled = [
        Fault(at=utterances // 5, kind="scale", slot=SLOTS),
        Fault(at=utterances * 4 // 5, kind="scale", slot=1),
    ]
    return sorted([*_spread(draw, utterances, wanted), *scaled], key=lambda fault: fault.at)


def mutant_plan(mutant: str, seed: int, utterances: int) -> list[Fault]:
    """The faults that have to find this mutant."""
    return _spread(random.Random(f"plan {seed}"), utterances, list(MUTANT_FAULTS[mutant]))


def _spread(draw: random.Random, utterances: int, wanted: list[tuple[str, str]]) -> list[Fault]:
    step = utterances / (len(wanted) + 1)
    return [_fault(draw, int(step * (number + 1)), kind, points) for number, (kind, points) in enumerate(wanted)]


def _fault(draw: random.Random, at: int, kind: str, points: str) -> Fault:
    slot, seconds = draw.randrange(SLOTS), round(draw.uniform(0, 2), 1)
    if kind == "failpoint":
        points = _passed(draw, points or _point(draw))
    elif kind == "aggregator":
        points = f"aggregator.{draw.choice(AGGREGATING)}=kill@{draw.randint(1, 4)}"
    elif kind == "publisher":
        points = draw.choice(PUBLISHING)
    elif kind == "redrive":
        points = draw.choice(REDRIVING)
    return Fault(at=at, kind=kind, slot=slot, points=points, seconds=seconds)


def _point(draw: random.Random) -> str:
    place = draw.choice(sorted(POINTS))
    point = f"{place}={draw.choice(POINTS[place])}"
    return f"router.before_commit_transaction=abort {point}" if "abort_transaction" in place else point


def _passed(draw: random.Random, points: str) -> str:
    """Says of each point at which passing."""
    passing = draw.randint(1, 5)
    places = [(point, point.partition("=")[0]) for point in points.split()]
    return ",".join(f"{point}@{SELDOM.get(place, passing)}" for point, place in places)


def places_in(points: str) -> list[str]:
    """The places that `points` names."""
    return [point.partition("=")[0] for point in points.split(",") if point]
