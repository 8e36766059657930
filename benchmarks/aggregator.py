"""How many outcomes a second one aggregator joins and folds: `python benchmarks/aggregator.py [--pairs N]`.

Runs its own broker, fills both topics with N decisions of 20 candidates and N outcomes, and then aggregates what
is there. Time counts from the first write to the last, so that starting is left out.
"""

import random
import threading
import time

import click

from topics import codec
from topics.broker import embedded_broker
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind
from topics.registry import DECISIONS, OUTCOMES, create_topics, topic_name
from topics.settings import Settings
from workers.aggregator import AggregatorOptions, Write, run_aggregator
from workers.console import figures, print_json
from workers.fold_store import read_statistics
from workers.sender import Sender


def fill(settings: Settings, pairs: int, skills: int) -> None:
    """Sends `pairs` decisions over `skills` skills, and an outcome for each."""
    rng, sender = random.Random(7), Sender(settings)  # noqa: S311  # seeded test data, no secret
    start_ms = int(time.time() * 1000)
    for i in range(pairs):
        customer, utterance = f"c-{rng.randrange(5_000)}", f"u-{i}"
        listed = rng.sample(range(skills), 20)
        candidates = tuple(
            Candidate(skill_id=f"skills:{skill}", score=-float(place), probability=0.05, linked=place == 3)
            for place, skill in enumerate(listed)
        )
        decision = Decision(
            event_time_ms=start_ms + i,
            utterance_id=utterance,
            customer_id=customer,
            action=Action.LAUNCH,
            skill_id=candidates[0].skill_id,
            candidates=candidates,
        )
        outcome = Outcome(
            event_time_ms=start_ms + i + 1,
            utterance_id=utterance,
            customer_id=customer,
            outcome=rng.choice(list(OutcomeKind)),
            skill_id=candidates[1].skill_id,
        )
        sender.send(topic_name(settings, DECISIONS), customer, codec.encode(decision))
        sender.send(topic_name(settings, OUTCOMES), customer, codec.encode(outcome))
    sender.flush()


def measure(settings: Settings, write_every_s: float) -> dict[str, float]:
    """Aggregates what is there; outcomes a second by the clock and by the processor time of this process."""
    marks: list[tuple[float, float, int]] = []

    def mark(write: Write) -> None:
        marks.append((time.perf_counter(), time.process_time(), write.folded["outcome"]))

    options = AggregatorOptions(metrics_port=0, until_idle_s=3, write_every_s=write_every_s)
    run_aggregator(settings, options, threading.Event(), mark)
    (start_s, start_cpu_s, _), (end_s, end_cpu_s, _) = marks[0], marks[-1]
    outcomes = sum(folded for _, _, folded in marks[1:])
    return {
        "outcomes_per_s": outcomes / (end_s - start_s),
        "outcomes_per_cpu_s": outcomes / (end_cpu_s - start_cpu_s),
    }


@click.command()
@click.option("--pairs", default=60_000, show_default=True)
@click.option("--skills", default=7_000, show_default=True)
@click.option("--partitions", default=6, show_default=True)
@click.option("--write-every", "write_every_s", default=1.0, show_default=True, metavar="SECONDS")
def main(pairs: int, skills: int, partitions: int, write_every_s: float) -> None:
    with embedded_broker() as broker:
        settings = Settings(bootstrap=broker.bootstrap)
        create_topics(settings, partitions, 1)
        fill(settings, pairs, skills)
        found = measure(settings, write_every_s)
        known = read_statistics(settings).statistics
        if (known.decisions, known.outcomes) != (pairs, pairs):
            raise click.ClickException(
                f"folded {known.decisions} decisions and {known.outcomes} outcomes of {pairs}"
            )
        click.echo(figures(found, 0), err=True)
        print_json({"pairs": pairs, "partitions": partitions, "write_every_s": write_every_s, **found})


if __name__ == "__main__":
    main()
