"""What exactly-once costs: the router's own loop with transactions, and in turn with at-least-once in their place.

    python -m benchmarks.exactly_once [--bundle BUNDLE] [--turns 12] [--count 20000] [--batch 1024]

One process, one broker, one topic of utterances; two routers in groups of their own take turns at it, so that
whatever else the machine does meets both. At-least-once is an idempotent producer that is flushed before the
positions are committed, without waiting for that commit's answer. Without a bundle the selector takes no time: the
hardest case, as a model's time is the same on both sides. The ratio is of neighbouring turns, its interval holds
95 of 100 means of turns drawn again.
"""

import gc
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import click
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from prometheus_client import CollectorRegistry

from model.selector import Ranking, Request, Selector
from topics.broker import embedded_broker
from topics.codec import encode
from topics.errors import WorkerError
from topics.events import Action, Candidate, LiveStatistics, SkillCard, Utterance
from topics.kafka import producer
from topics.registry import DEAD_LETTERS, DECISIONS, SHADOW_DECISIONS, UTTERANCES, create_topics, topic_name
from topics.settings import Settings
from workers.canary import Lineup
from workers.console import print_json
from workers.dead_letters import Ceiling
from workers.deciding import Selecting
from workers.links import LinksTable
from workers.metrics import RouterMetrics
from workers.router import Commit, Router, Sink
from workers.sender import Sender
from workers.source import UtteranceSource
from workers.transactions import Headers, open_sink

CANDIDATES = 20  # a decision of some 2 KB, as real ones are
FLUSH_S = 60.0
WORDS = ("get", "me", "a", "car", "to", "the", "station", "please", "and", "play", "some", "music")
STAGES = ("decode", "decide", "produce", "commit")


class AtLeastOnce:
    """The router's sink without transactions: what was produced is flushed, then the positions are committed."""

    def __init__(self, client: Producer, source: UtteranceSource) -> None:
        self._client, self._consumer = client, source._consumer
        self._failed: KafkaError | None = None

    def begin(self) -> None:
        """There is nothing to begin."""

    def produce(self, topic: str, key: bytes | None, value: bytes, headers: Headers = None) -> None:
        while True:
            try:
                self._client.produce(topic, value=value, key=key, headers=headers, on_delivery=self._delivered)
                return
            except BufferError:
                self._client.poll(0.05)

    def commit(self, positions: list[TopicPartition], _membership: object) -> None:
        if self._client.flush(FLUSH_S) or self._failed:
            raise WorkerError(f"not all was delivered: {self._failed}")
        self._consumer.commit(offsets=positions, asynchronous=True)

    def abort(self) -> None:
        """What was produced stays."""

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._failed = self._failed or error


class Instant:
    """A selector that takes no time."""

    release = "instant"
    statistics = policy = catalogue = ""
    skills = CANDIDATES

    def __init__(self) -> None:
        listed = tuple(
            Candidate(skill_id=f"skill:{number}", score=-float(number), probability=1 / (number + 2))
            for number in range(CANDIDATES)
        )
        self._ranking = Ranking(
            action=Action.ENABLE,
            skill_id=listed[0].skill_id,
            candidates=listed,
            none_probability=0.1,
            propensity=1.0,
            rule="best",
            shortlist_none_rank=0,
        )

    def decide(self, requests: list[Request]) -> list[Ranking]:
        return [self._ranking] * len(requests)

    def take(self, _cards: Sequence[SkillCard], _gone: Sequence[str]) -> int:
        return 0

    def follow(self, _live: LiveStatistics | None) -> None:
        """None are followed."""

    def warm_up(self, _count: int) -> None:
        """Nothing is made at first use."""


class OneSelector:
    """Serves `selector`, and has no cards."""

    def __init__(self, selector: Selecting) -> None:
        self._lineup = Lineup(selector)

    def lineup(self) -> Lineup:
        return self._lineup

    def update(self, _selectors: Sequence[Selecting]) -> None:
        """No skill changes."""

    def close(self) -> None:
        """Nothing is held."""


class Side:
    """One of the two routers."""

    def __init__(self, settings: Settings, name: str, selector: Selecting, batch: int, stack: ExitStack) -> None:
        metrics = RouterMetrics(CollectorRegistry())
        self._registry = metrics.registry
        source = stack.enter_context(
            closing(UtteranceSource(settings, name, "classic", batch, metrics, "earliest"))
        )
        sink: Sink = open_sink(settings, name) if name == "exactly" else AtLeastOnce(producer(settings), source)
        serving = OneSelector(selector)
        self._stop = threading.Event()
        self._left = 0
        self._router = Router(
            source=source,
            sink=sink,
            links=stack.enter_context(closing(LinksTable(settings, metrics))),
            skills=serving,
            serving=serving,
            metrics=metrics,
            ceiling=Ceiling(0),
            decisions=topic_name(settings, DECISIONS),
            shadow_decisions=topic_name(settings, SHADOW_DECISIONS),
            dead_letters=topic_name(settings, DEAD_LETTERS),
            report=self._count,
        )

    def turn(self, count: int) -> float:
        """Decisions a second while `count` are made, or a few more; the first batch begins the clock."""
        self._stop.clear()
        self._left, self._decided, self._began_s = count, 0, 0.0
        self._router.run(self._stop)
        return self._decided / (self._ended_s - self._began_s)

    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of a batch by stage, the mean of all batches."""
        found = {}
        for stage in STAGES:
            total, count = (
                self._registry.get_sample_value(f"namefree_stage_seconds_{what}", {"stage": stage}) or 0.0
                for what in ("sum", "count")
            )
            found[stage] = round(1000 * total / count, 1)
        return found

    def _count(self, commit: Commit) -> None:
        self._ended_s = time.monotonic()
        if not self._began_s:  # what waited in the client while the other one worked
            self._began_s = self._ended_s
            return
        self._decided += commit.decided
        if self._decided >= self._left:
            self._stop.set()


def ask(settings: Settings, count: int) -> None:
    sender, draw = Sender(settings), np.random.default_rng(7)
    for number in range(count):
        customer = f"c-{number % 5_000}"
        text = " ".join(draw.choice(WORDS, 6))
        utterance = Utterance(
            event_time_ms=int(time.time() * 1000), utterance_id=f"u-{number}", customer_id=customer, text=text
        )
        sender.send(topic_name(settings, UTTERANCES), customer, encode(utterance))
    sender.flush()


def interval(ratios: list[float]) -> list[float]:
    """The middle 95 of 100 means of the turns drawn again, with replacement."""
    drawn = np.random.default_rng(7).choice(np.array(ratios), (10_000, len(ratios))).mean(axis=1)
    return [round(float(edge), 3) for edge in np.percentile(drawn, [2.5, 97.5])]


def measure(settings: Settings, selector: Selecting, turns: int, count: int, batch: int) -> dict[str, object]:
    """Rates of `turns` turns each, and what they are to each other."""
    rates: dict[str, list[float]] = {"exactly": [], "at_least": []}
    with ExitStack() as stack:
        sides = {name: Side(settings, name, selector, batch, stack) for name in rates}
        gc.collect()
        gc.freeze()
        for number in range(turns + 1):
            for name in sorted(sides, reverse=bool(number % 2)):
                rate = sides[name].turn(count)
                if number:  # the first turn warms up
                    rates[name].append(rate)
                    click.echo(f"{number:>3} {name:<9} {rate:9,.0f} decisions/s", err=True)
    ratios = [exactly / at_least for exactly, at_least in zip(*rates.values(), strict=True)]
    return {
        "decisions_per_s": {name: round(float(np.mean(found))) for name, found in rates.items()},
        "stage_ms": {name: side.stage_ms() for name, side in sides.items()},
        "ratio": round(float(np.mean(ratios)), 3),
        "ratio_interval_95": interval(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="Decide with it, not in no time.")
@click.option("--turns", default=12, show_default=True, help="Of each side.")
@click.option("--count", default=20_000, show_default=True, help="Decisions of a turn.")
@click.option("--batch", default=1_024, show_default=True)
@click.option("--partitions", default=6, show_default=True)
def main(bundle: Path | None, turns: int, count: int, batch: int, partitions: int) -> None:
    with embedded_broker() as broker:
        settings = Settings(bootstrap=broker.bootstrap)
        create_topics(settings, partitions)
        try:
            ask(settings, (turns + 1) * (count + 3 * batch))
            found = measure(settings, Selector.load(bundle) if bundle else Instant(), turns, count, batch)
        except KafkaException as error:
            raise click.ClickException(str(error)) from error
    print_json({"bundle": str(bundle or ""), "turns": turns, "count": count, "batch": batch, **found})


if __name__ == "__main__":
    main()
