"""Which faults, where, on whom: drawn from a seed alone, so that a run can be had again."""

import random

from msgspec import Struct

SLOTS = 3  # routers at most

# place of workers.failpoints -> what is done there, and at which passings
POINTS = {
    "router.after_poll": ("kill", "freeze:8", "raise"),
    "router.after_decode": ("kill", "raise"),
    "router.after_decide": ("kill", "freeze:8", "delay:2"),
    "router.after_produce": ("kill", "freeze:8", "freeze:3.5", "raise"),
    "router.before_begin_transaction": ("kill", "retry"),
    "router.before_send_offsets_to_transaction": ("kill", "freeze:8", "abort", "retry"),
    "router.after_send_offsets_to_transaction": ("kill", "freeze:8", "abort"),
    "router.before_commit_transaction": ("kill", "freeze:8", "freeze:3.5", "abort", "retry"),
    "router.after_commit_transaction": ("kill", "freeze:8", "raise"),
    "router.assigned": ("kill", "delay:2"),
    "router.revoked": ("kill", "freeze:8", "delay:2"),
    "router.lost": ("kill",),
    "router.restoring": ("kill", "freeze:8", "delay:1"),
    "router.reloading": ("kill", "raise"),
    "router.after_init_transactions": ("kill",),
}
ONCE = {"router.assigned", "router.revoked", "router.lost", "router.restoring", "router.reloading",
        "router.after_init_transactions"}  # fmt: skip
# What a mutant of the harness's own test is found by: these are in every plan.
ALWAYS = (
    "router.after_decide=freeze:8",
    "router.after_decode=freeze:8 router.after_decide=delay:2",  # wakes, and only then learns that it is out
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
    "aggregator": "the aggregator is killed at one of its failpoints",
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
    weights = [4 if kind in ("failpoint", "aggregator") else 1 for kind in KINDS]
    wanted += [(draw.choices(list(KINDS), weights)[0], "") for _ in range(max(0, faults - len(wanted)))]
    wanted = wanted[: max(faults, len(ALWAYS))]
    draw.shuffle(wanted)
    step = utterances / (len(wanted) + 1)
    found = [_fault(draw, int(step * (number + 1)), kind, points) for number, (kind, points) in enumerate(wanted)]
    scaled = [
        Fault(at=utterances // 5, kind="scale", slot=SLOTS),
        Fault(at=utterances * 4 // 5, kind="scale", slot=1),
    ]
    return sorted([*found, *scaled], key=lambda fault: fault.at)


def _fault(draw: random.Random, at: int, kind: str, points: str) -> Fault:
    slot, seconds = draw.randrange(SLOTS), round(draw.uniform(0, 2), 1)
    if kind == "failpoint":
        points = points or _point(draw)
        passing = 1 if points.partition("=")[0] in ONCE else draw.randint(1, 5)
        points = ",".join(f"{point}@{passing}" for point in points.split())
    elif kind == "aggregator":
        place = draw.choice(["before_write", "after_write", "after_commit"])
        points = f"aggregator.{place}=kill@{draw.randint(1, 4)}"
    return Fault(at=at, kind=kind, slot=slot, points=points, seconds=seconds)


def _point(draw: random.Random) -> str:
    place = draw.choice(sorted(POINTS))
    return f"{place}={draw.choice(POINTS[place])}"
