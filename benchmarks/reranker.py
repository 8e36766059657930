"""The second network: requests a second over shortlists that were made before, and what its parts take.

    python -m benchmarks.reranker --bundle BUNDLE --utterances FILE [--processes 2]

Counted is all between a shortlist and its scores: reading what requests say, what that is to each candidate by
what it declares, all other evidence, the network. Twice: over requests as they come, and over those of which most
candidates declare what they can do. Rates are those of as many processes as are told, each with one thread and
all at once; the parts are CPU time in one process with one thread.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor

from model.bundle import Bundle, read_bundle
from model.data import Row, read_rows
from model.encoder import WordBatches, Words
from model.evidence import Evidence
from model.selector import CHUNK
from model.shortlist import Shortlist, Shortlists
from model.wording import worded
from workers.console import print_json, start_logging

MOST_ASKED = 40 * CHUNK  # requests: enough that no cache holds what they touch
DECLARING = (
    0.5  # share of a list's candidates that declare intents, from which a request is one of the second kind
)
KINDS = ("all", "declaring")


@dataclass(frozen=True)
class Part:
    """Some requests with their shortlists."""

    texts: list[str]
    words: Words
    linked: Tensor  # (B, L)
    made: Shortlist


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--utterances", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--processes", default=2, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="How long each rate is measured.")
def main(bundle: Path, utterances: Path, processes: int, seconds: float) -> None:
    """Measure the second network on its own."""
    start_logging("info")
    torch.set_num_threads(1)
    loaded = read_bundle(bundle)
    for kind in KINDS:
        parts = shortlisted(loaded, utterances, kind)
        if not parts:
            continue
        found = {
            "requests": kind,
            "skills": len(loaded.catalogue),
            "candidates": parts[0].made.rows.shape[1],
            "declaring": round(sum(float(declares(loaded, part).mean()) for part in parts) / len(parts), 3),
            "requests_per_s": round(rate(bundle, utterances, kind, processes, seconds)),
            "cpu_us_a_request": timed(loaded, parts),
        }
        print_json(found)


def shortlisted(bundle: Bundle, utterances: Path, kind: str) -> list[Part]:
    """The requests of a kind with their shortlists, as many at once as a router scores."""
    rows, shortlists = read_rows(utterances)[:MOST_ASKED], Shortlists(bundle.shortlister)
    if kind == "declaring":
        every = [made(bundle, shortlists, rows[at : at + CHUNK]) for at in range(0, len(rows), CHUNK)]
        enough = torch.cat([declares(bundle, part).mean(1) >= DECLARING for part in every]).tolist()
        rows = [row for row, kept in zip(rows, enough, strict=True) if kept]
    return [made(bundle, shortlists, rows[at : at + CHUNK]) for at in range(0, len(rows) - CHUNK + 1, CHUNK)]


def made(bundle: Bundle, shortlists: Shortlists, rows: list[Row]) -> Part:
    texts = [row.text for row in rows]
    words = WordBatches(bundle.vocabulary).batch(bundle.vocabulary.encode(texts))
    linked = torch.from_numpy(bundle.catalogue.linked_rows([row.linked or () for row in rows]))
    return Part(texts, words, linked, shortlists.make(words, linked, bundle.manifest.reranker.candidates))


def declares(bundle: Bundle, part: Part) -> Tensor:
    """Which candidates declare intents, (B, C)."""
    readings = bundle.evidence.readings
    understood = readings.understand(readings.tag(part.texts), part.made.rows, part.made.bag)
    return torch.from_numpy(understood.intents >= 0).float()


def rate(bundle: Path, utterances: Path, kind: str, processes: int, seconds: float) -> float:
    """Requests a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    together, rates = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=score, args=(bundle, utterances, kind, seconds, together, rates))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    total = sum(float(rates.get(timeout=600)) for _ in workers)
    for worker in workers:
        worker.join()
    return total


@torch.inference_mode()
def score(
    bundle: Path, utterances: Path, kind: str, seconds: float, together: Barrier, rates: "Queue[float]"
) -> None:
    """One process: waits for the others, scores for so long, and tells its rate."""
    torch.set_num_threads(1)
    loaded = read_bundle(bundle)
    parts = cycle(shortlisted(loaded, utterances, kind))
    for _ in range(5):
        scored(loaded, next(parts))
    together.wait(timeout=600)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        scored(loaded, next(parts))
        done += CHUNK
    rates.put(done / (time.perf_counter() - start))


def scored(bundle: Bundle, part: Part) -> Tensor:
    """Probabilities, (B, C + 2)."""
    found = bundle.evidence.hypotheses(part.made, part.words, part.texts, part.linked)
    return torch.softmax(bundle.reranker(found), dim=-1)


@torch.inference_mode()
def timed(bundle: Bundle, parts: list[Part]) -> dict[str, float]:
    """CPU time in µs a request of all, and of each part of it."""
    spent_s: dict[str, list[float]] = {}
    for part in parts:
        for name, work in works(bundle, part):
            start = time.process_time()
            work()
            spent_s.setdefault(name, []).append((time.process_time() - start) / len(part.texts))
    return {name: round(1e6 * median(spent), 1) for name, spent in spent_s.items()}


def works(bundle: Bundle, part: Part) -> Iterator[tuple[str, Callable[[], object]]]:
    """All there is to do for a part, then each piece of it."""
    yield "all", lambda: scored(bundle, part)
    evidence, made, rows = bundle.evidence, part.made, part.made.rows.clamp(min=0)
    tagged = evidence.readings.tag(part.texts)
    found = evidence.hypotheses(made, part.words, part.texts, part.linked)
    yield "tag", lambda: evidence.readings.tag(part.texts)
    yield "understand", lambda: evidence.readings.understand(tagged, made.rows, made.bag, made.scores)
    yield "wording", lambda: wording(evidence, part, rows)
    yield "phrases", lambda: evidence.learned.exemplars.nearest(made.request, rows)
    yield "card words", lambda: evidence.card_words.match(part.words, rows)
    yield "network", lambda: torch.softmax(bundle.reranker(found), dim=-1)


def wording(evidence: Evidence, part: Part, rows: Tensor) -> Tensor:
    return evidence.learned.wording.scores(worded(part.texts), evidence.sources[rows])


if __name__ == "__main__":
    main()
