"""The demo's last stretch: a router that asks skills, of which some lie, are slow or never answer.

It comes after all that the replay decides again, as answers are no part of what a decision records.
"""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from topics.errors import WorkerError
from topics.events import SkillCard
from topics.kafka_node import free_port
from topics.settings import Settings
from workers.children import HOST, LEAVE_S, Child
from workers.crowd import Summary
from workers.findings import Check
from workers.metrics import ASKED
from workers.sandbox import Fault, address

SHARE = 0.3  # of the skills that declare an intent: their cards name an endpoint in the sandbox
# Of the first of them; the rest are honest.
FAULTS = (Fault.SILENT, Fault.SLOW, Fault.LYING, Fault.LYING, Fault.LYING)
OPEN = "namefree_ask_breakers_open"
BATCHES = "namefree_ask_seconds_count"
IN_TIME = 'namefree_ask_seconds_bucket{le="0.055"}'  # the deadline and a tenth
ASK = ("--ask", "--ask-allow-http", "--ask-allow-private")


@dataclass(frozen=True)
class AskedSkills:
    """Who can be asked, and where."""

    port: int
    faults: dict[str, Fault]

    @classmethod
    def among(cls, cards: Sequence[SkillCard], seed: int) -> "AskedSkills":
        """A seeded share of the skills that declare an intent; none where no card does."""
        able = sorted(card.skill_id for card in cards if card.intents)
        chosen = random.Random(seed).sample(able, round(SHARE * len(able)))
        kinds = [*FAULTS, *[Fault.HONEST] * len(chosen)]
        return cls(free_port(HOST), dict(zip(chosen, kinds, strict=False)))

    def on_cards(self, cards: Sequence[SkillCard]) -> list[SkillCard]:
        """The cards, with an endpoint on those of the chosen."""
        return [
            msgspec.structs.replace(card, endpoint=address(self.port, card.skill_id))
            if card.skill_id in self.faults
            else card
            for card in cards
        ]

    @contextmanager
    def serving(self, out: Path) -> Iterator[None]:
        """Runs `namefree sandbox` for the demo's cards while the body does."""
        faults = [f"--fault={skill}={fault}" for skill, fault in self.faults.items()]
        place = ["--data", str(out / "corpus"), "--port", str(self.port)]
        command = [sys.executable, "-m", "workers", "sandbox", *place, *faults]
        log = out / "sandbox.log"
        with log.open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file) as process:
            try:
                if process.stdout is None or not process.stdout.readline():
                    raise WorkerError(f"`namefree sandbox` did not start: {log.read_text(errors='replace')}")
                yield
            finally:
                process.terminate()
                process.wait(LEAVE_S)


def asked_stretch(
    settings: Settings,
    out: Path,
    skills: AskedSkills,
    customers: Callable[[], Summary],
    wait: Callable[[Child], None],
) -> Check:
    """Lets `customers` meet a router that asks, and tells what came of it. `wait` waits until it is ready."""
    with skills.serving(out), Child.start(settings, out, "route", *ASK) as router:
        wait(router)
        met = customers()
        told = {name: int(router.metric(f'namefree_asked_total{{result="{name}"}}')) for name in ASKED}
        left_alone, batches, in_time = (int(router.metric(line)) for line in (OPEN, BATCHES, IN_TIME))
    counts = ", ".join(f"{count:,} {name}" for name, count in told.items() if count)
    kept = met.decided == met.asked and told["answered"] > 0 and not told["failed"]
    return Check(
        "skills that are asked answer, and every utterance is decided whoever does not",
        kept,
        f"{met.decided:,} of {met.asked:,} decided; {sum(told.values()):,} questions to {len(skills.faults)} "
        f"skills: {counts}; {left_alone} skills left alone; {in_time:,} of {batches:,} times within 55 ms",
    )
