"""How many outcomes a second aggregators join and fold: `python benchmarks/aggregator.py [--workers 2] [--kill]`.

Runs its own broker, fills both topics with N decisions of 20 candidates and N outcomes, and then aggregates what
is there, each worker in a process of its own. Time counts from where all workers write to where the first has
nothing left, so that starting is left out. With several workers one alone goes first, on topics of its own, to
compare with: by the clock, and by what each does in a second of its own processor time, which other work on the
machine does not touch. With `--kill` a worker is killed hard when it has folded all, and a few more pairs and
another worker come at once: under the same name in its group, and in a second run under a new one.
"""

import multiprocessing
import random
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import NamedTuple

import click

from topics import codec
from topics.broker import embedded_broker
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind
from topics.registry import DECISIONS, OUTCOMES, create_topics, topic_name
from topics.settings import Settings
from workers.aggregator import AggregatorOptions, Write
from workers.aggregator_process import run_aggregator
from workers.console import figures, print_json
from workers.fold_store import read_statistics
from workers.sender import Sender

PATIENCE_S = 300.0
MORE = 600  # pairs that come after a kill: some for every partition
SPAWN = multiprocessing.get_context("spawn")


def pair(rng: random.Random, number: int, skills: int, at_ms: int) -> tuple[Decision, Outcome]:
    """A decision of 20 candidates, and what became of it a millisecond later."""
    customer, utterance = f"c-{rng.randrange(5_000)}", f"u-{number}"
    candidates = tuple(
        Candidate(skill_id=f"skills:{skill}", score=-float(place), probability=0.05, linked=place == 3)
        for place, skill in enumerate(rng.sample(range(skills), 20))
    )
    decision = Decision(
        event_time_ms=at_ms,
        utterance_id=utterance,
        customer_id=customer,
        action=Action.LAUNCH,
        skill_id=candidates[0].skill_id,
        candidates=candidates,
    )
    outcome = Outcome(
        event_time_ms=at_ms + 1,
        utterance_id=utterance,
        customer_id=customer,
        outcome=rng.choice(list(OutcomeKind)),
        skill_id=candidates[1].skill_id,
    )
    return decision, outcome


def fill(settings: Settings, pairs: int, skills: int, first: int = 0) -> None:
    """Sends `pairs` decisions over `skills` skills, numbered from `first`, and an outcome for each."""
    rng, sender = random.Random(7), Sender(settings)  # noqa: S311  # seeded test data, no secret
    start_ms = int(time.time() * 1000)
    for i in range(first, first + pairs):
        decision, outcome = pair(rng, i, skills, start_ms + i)
        sender.send(topic_name(settings, DECISIONS), decision.customer_id, codec.encode(decision))
        sender.send(topic_name(settings, OUTCOMES), outcome.customer_id, codec.encode(outcome))
    sender.flush()


class Mark(NamedTuple):
    """One write: when, by the machine's monotonic clock, after how much processor time of its worker."""

    worker: int
    at_s: float
    cpu_s: float
    partition: int
    outcomes: int


def work(worker: int, settings: Settings, instance: str, write_every_s: float, marks: "Queue[Mark]") -> None:
    """One worker's process: aggregates until it is ended."""

    def mark(write: Write) -> None:
        marks.put(Mark(worker, time.monotonic(), time.process_time(), write.partition, write.folded["outcome"]))

    options = AggregatorOptions(instance=instance, metrics_port=0, write_every_s=write_every_s)
    run_aggregator(settings, options, threading.Event(), mark)


@dataclass
class Crew:
    """The workers of one run, and what they have written."""

    settings: Settings
    write_every_s: float
    queue: "Queue[Mark]" = field(default_factory=SPAWN.Queue)
    processes: list[SpawnProcess] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def hire(self, instance: str = "") -> None:
        number = len(self.processes)
        given = (number, self.settings, instance, self.write_every_s, self.queue)
        process = SPAWN.Process(target=work, args=given)
        process.start()
        self.processes.append(process)

    def until_folded(self, outcomes: int) -> None:
        """Hears what is written until all is. A write that a rebalance cuts short is not told, though it is there:
        so where nothing is told, the topic is asked."""
        ends_s = time.monotonic() + PATIENCE_S
        folded = sum(mark.outcomes for mark in self.marks)
        while folded < outcomes:
            try:
                mark = self.queue.get(timeout=3)
            except Empty:
                folded = int(read_statistics(self.settings).statistics.outcomes)
            else:
                self.marks.append(mark)
                folded += mark.outcomes
            if time.monotonic() > ends_s or not any(process.is_alive() for process in self.processes):
                raise click.ClickException(f"folded {folded:,} of {outcomes:,} outcomes, and no more come")

    def leave(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def rates(marks: list[Mark], workers: int) -> dict[str, float]:
    """Outcomes a second while all work, by the clock and by the processor time of each."""
    own = [[mark for mark in marks if mark.worker == worker] for worker in range(workers)]
    start_s = max(each[0].at_s for each in own)
    end_s = min(each[-1].at_s for each in own)
    done, cpu_s = 0, 0.0
    for each in own:
        inside = [mark for mark in each if start_s <= mark.at_s <= end_s]
        done += sum(mark.outcomes for mark in inside[1:])
        cpu_s += inside[-1].cpu_s - inside[0].cpu_s
    return {"outcomes_per_s": done / (end_s - start_s), "outcomes_per_cpu_s": done / cpu_s}


def measure(settings: Settings, pairs: int, workers: int, write_every_s: float) -> dict[str, float]:
    """Aggregates what is there, with so many workers."""
    crew = Crew(settings, write_every_s)
    try:
        for _ in range(workers):
            crew.hire()
        crew.until_folded(pairs)
    finally:
        crew.leave()
    check(settings, pairs)
    return rates(crew.marks, workers)


def measure_kill(
    settings: Settings, pairs: int, partitions: int, write_every_s: float, instances: tuple[str, str]
) -> float:
    """Seconds from a hard kill until the next worker has restored every partition and written to it, all pairs of
    the join window read again."""
    crew = Crew(settings, write_every_s)
    try:
        crew.hire(instances[0])
        crew.until_folded(pairs)
        crew.processes[0].kill()
        killed_s = time.monotonic()
        crew.hire(instances[1])
        fill(settings, MORE, 100, first=pairs)
        crew.until_folded(pairs + MORE)
    finally:
        crew.leave()
    check(settings, pairs + MORE)
    first: dict[int, float] = {}
    for mark in crew.marks:
        if mark.worker == 1:
            first.setdefault(mark.partition, mark.at_s - killed_s)
    if len(first) != partitions:
        raise click.ClickException(f"only partitions {sorted(first)} were written again")
    return max(first.values())


def check(settings: Settings, pairs: int) -> None:
    known = read_statistics(settings).statistics
    if (known.decisions, known.outcomes) != (pairs, pairs):
        raise click.ClickException(f"folded {known.decisions} decisions and {known.outcomes} outcomes of {pairs}")


@click.command()
@click.option("--pairs", default=60_000, show_default=True)
@click.option("--skills", default=7_000, show_default=True)
@click.option("--partitions", default=6, show_default=True)
@click.option("--workers", default=1, show_default=True, help="More than one are compared with one alone.")
@click.option("--kill", is_flag=True, help="Measure how soon another one goes on after a hard kill.")
@click.option("--write-every", "write_every_s", default=1.0, show_default=True, metavar="SECONDS")
def main(pairs: int, skills: int, partitions: int, workers: int, kill: bool, write_every_s: float) -> None:
    with embedded_broker() as broker:

        def filled(name: str) -> Settings:
            settings = Settings(bootstrap=broker.bootstrap, prefix=f"{name}-")
            create_topics(settings, partitions, 1)
            fill(settings, pairs, skills)
            return settings

        found = measure(filled("one"), pairs, 1, write_every_s)
        click.echo(figures(found, 2), err=True)
        if workers > 1:
            together = measure(filled("together"), pairs, workers, write_every_s)
            found |= {f"{name}_of_{workers}": rate for name, rate in together.items()}
            found["speedup"] = together["outcomes_per_s"] / found["outcomes_per_s"]
            found["speedup_by_cpu_s"] = workers * together["outcomes_per_cpu_s"] / found["outcomes_per_cpu_s"]
            click.echo(figures(found, 2), err=True)
        if kill:
            for name, instances in {"same_name": ("one", "one"), "new_name": ("", "")}.items():
                took_s = measure_kill(filled(name), pairs, partitions, write_every_s, instances)
                found[f"restored_s_under_the_{name}"] = took_s
                click.echo(figures(found, 2), err=True)
    print_json({"pairs": pairs, "partitions": partitions, "write_every_s": write_every_s, **found})


if __name__ == "__main__":
    main()
