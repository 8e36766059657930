"""Text in, shortlist of 30 out: requests a second at the bundle's catalogue and at a far larger one.

    python -m benchmarks.shortlist --bundle BUNDLE --data DIR [--skills 50000] [--processes 2]

DIR is a data folder; its dev rows ask (from `utterances.dev.linked90` where that is there, so with links).
Larger catalogues are the real skills and made-up neighbours of theirs, in two ways, because recall depends on
it. `between`: a point between a real skill and one of its ten nearest, 0.3 to 0.9 of the way, with noise of
length 0.3. `phrases`: the mean of three training requests that are among the twenty nearest of one, with noise
of length 0.1: a skill that three phrases made, and harder, as many are alike. Priors are drawn from real ones.

Rates are those of as many processes as are told, each with one thread and all at once. Kinds of index, and
what was tried and not kept, are compared in turns, batch by batch, in one process with one thread: CPU time a
request for 64 rows, and the share of the exact best three that is among the first 30.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import get_args

import click
import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.bundle import Bundle, read_bundle
from model.data import Row, read_rows, split_path
from model.encoder import WordBatches
from model.index import CHUNK, FEWEST, Index, Kind
from model.shortlist import Shortlists
from model.shortlister import POOL
from workers.console import print_json, start_logging

LISTED, BEST = 30, 3
ASKED = 10 * CHUNK  # requests that kinds are compared on
LISTS, PROBED = 512, 64  # of the inverted file that was not kept; a tenth as many lists as skills at most
Search = Callable[[Tensor], Tensor]  # queries (B, K) -> rows (B, POOL)


@click.command()
@click.option("--bundle", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--skills", default=50_000, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="How long each rate is measured.")
def main(bundle: Path, data: Path, skills: int, processes: int, seconds: float) -> None:
    """Measure shortlists at several sizes of the catalogue."""
    start_logging("info")
    torch.set_num_threads(1)
    asked = asked_rows(data)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        loaded = read_bundle(bundle)
        queries = loaded.shortlister.queries(read(loaded, asked[:ASKED]))
        for name, keys in catalogues(loaded, data, skills):
            path = Path(folder) / f"{name}.pt"
            torch.save(keys, path)
            start = time.perf_counter()
            kind = Index(keys).kind
            found = {
                "catalogue": name,
                "skills": len(keys),
                "kind": kind,
                "chosen_in_s": round(time.perf_counter() - start, 2),
                "requests_per_s": round(rate(bundle, data, path, kind, processes, seconds)),
                "compared": compared(keys, queries),
            }
            print_json(found)


def asked_rows(data: Path) -> list[Row]:
    """The dev rows, with links where the folder has them."""
    linked = sorted(data.glob("utterances.dev.linked90.jsonl*"))
    return read_rows(linked[0] if linked else split_path(data, "dev"))


def read(bundle: Bundle, rows: list[Row]) -> Tensor:
    """Unit vectors of requests, (B, D)."""
    words = WordBatches(bundle.vocabulary)
    parts = [[row.text for row in rows[at : at + CHUNK]] for at in range(0, len(rows), CHUNK)]
    return torch.cat([bundle.shortlister.read(words.batch(bundle.vocabulary.encode(part))).text for part in parts])


def catalogues(bundle: Bundle, data: Path, skills: int) -> Iterator[tuple[str, Tensor]]:
    """Names and keys (S, D + 1): the real one, then the larger ones, their rows in a random order."""
    model = bundle.shortlister
    keys = model.keys(model.skill_vectors())
    yield "real", keys
    random = torch.Generator().manual_seed(7)
    more = skills - len(keys)
    spoken = read(bundle, read_rows(split_path(data, "train")))
    for name, made in (
        ("between", between(keys[:, :-1], more, random)),
        ("phrases", from_phrases(spoken, more, random)),
    ):
        priors = keys[torch.randint(len(keys), (more,), generator=random), -1:]
        every = torch.cat([keys, torch.cat([made, priors], dim=1)])
        # real rows stay where they are: links name them
        order = torch.cat([torch.arange(len(keys)), len(keys) + torch.randperm(more, generator=random)])
        yield name, every[order]


def between(vectors: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Points between rows of (S, D) and their neighbours, (count, D)."""
    near = (vectors @ vectors.T).fill_diagonal_(-1).topk(10, dim=1).indices  # (S, 10)
    first = torch.randint(len(vectors), (count,), generator=random)
    second = near[first, torch.randint(10, (count,), generator=random)]
    share = 0.3 + 0.6 * torch.rand(count, 1, generator=random)
    return noisy(share * vectors[first] + (1 - share) * vectors[second], 0.3, random)


def from_phrases(requests: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Means of three requests of (R, D) that are alike, (count, D)."""
    made = []
    for some in torch.split(torch.randint(len(requests), (count,), generator=random), 1000):
        near = (requests[some] @ requests.T).topk(20, dim=1).indices  # (some, 20)
        three = near.gather(1, torch.randint(20, (len(some), 3), generator=random))
        made.append(requests[three].mean(1))
    return noisy(torch.cat(made), 0.1, random)


def noisy(vectors: Tensor, length: float, random: torch.Generator) -> Tensor:
    """Unit vectors after noise of a length."""
    noise = F.normalize(torch.randn(vectors.shape, generator=random), dim=1)
    return F.normalize(vectors + length * noise, dim=1)


def rate(bundle: Path, data: Path, keys: Path, kind: Kind, processes: int, seconds: float) -> float:
    """Requests a second of all processes together."""
    context = multiprocessing.get_context("spawn")
    together, rates = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=ask, args=(bundle, data, keys, kind, seconds, together, rates))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    total = sum(float(rates.get(timeout=600)) for _ in workers)
    for worker in workers:
        worker.join()
    return total


def ask(
    bundle: Path, data: Path, keys: Path, kind: Kind, seconds: float, together: Barrier, rates: "Queue[float]"
) -> None:
    """One process: waits for the others, asks for so long, and tells its rate."""
    torch.set_num_threads(1)
    loaded = read_bundle(bundle)
    shortlists = Shortlists(loaded.shortlister, Index(torch.load(keys, weights_only=True), kind))
    words, rows = WordBatches(loaded.vocabulary), asked_rows(data)
    parts = cycle([rows[at : at + CHUNK] for at in range(0, len(rows) - CHUNK + 1, CHUNK)])

    def answer(part: list[Row]) -> None:
        linked = torch.from_numpy(loaded.catalogue.linked_rows([row.linked or () for row in part]))
        encoded = loaded.vocabulary.encode([row.text for row in part])
        shortlists.make(words.batch(encoded), linked, LISTED)

    for _ in range(5):
        answer(next(parts))
    together.wait(timeout=600)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        answer(next(parts))
        done += CHUNK
    rates.put(done / (time.perf_counter() - start))


def compared(keys: Tensor, queries: Tensor) -> dict[str, dict[str, float]]:
    """CPU time in µs a request, and recall, of each way to search."""
    exact = torch.cat([(part @ keys.T).topk(BEST, dim=1).indices for part in torch.split(queries, CHUNK)])
    ways = dict(searches(keys))
    spent_s: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[Tensor]] = {name: [] for name in ways}
    for part in torch.split(queries, CHUNK):
        for name, search in ways.items():
            start = time.process_time()
            found[name].append(search(part))
            spent_s[name].append((time.process_time() - start) / len(part))
    return {
        name: {
            "cpu_us_a_request": round(1e6 * sorted(spent_s[name])[len(spent_s[name]) // 2], 1),
            "best_three_in_30": round(kept(torch.cat(found[name])[:, :LISTED], exact), 5),
        }
        for name in ways
    }


def kept(rows: Tensor, exact: Tensor) -> float:
    """The share of `exact` (B, 3) among rows (B, 30)."""
    return float((exact[:, :, None] == rows[:, None]).any(2).double().mean())


def searches(keys: Tensor) -> Iterator[tuple[str, Search]]:
    """Every kind of the index, then what it was compared with."""
    for kind in get_args(Kind)[: 2 if len(keys) < FEWEST else 3]:
        index = Index(keys, kind)
        yield kind, lambda queries, index=index: index.search(queries, POOL)[1]  # type: ignore[misc]
    yield "torch matmul and topk", lambda queries: (queries @ keys.T).topk(POOL, dim=1).indices
    for name, other in others(padded(keys)):
        yield (
            f"faiss {name}",
            lambda queries, other=other: torch.from_numpy(other.search(padded(queries), POOL)[1]),  # type: ignore[misc]
        )


def others(keys: NDArray[np.float32]) -> Iterator[tuple[str, faiss.Index]]:
    """What faiss has for the same, filled: without compression, with 8 bits a number, by inverted lists."""
    faiss.omp_set_num_threads(1)
    width = keys.shape[1]
    made: dict[str, faiss.Index] = {
        "flat": faiss.IndexFlatIP(width),
        "int8": faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
        "ivf": inverted(keys),
    }
    for name, index in made.items():
        index.train(keys)
        index.add(keys)
        yield name, index


def padded(keys: Tensor) -> NDArray[np.float32]:
    """With zeros up to a multiple of 8: faiss computes int8 one by one otherwise."""
    return F.pad(keys, (0, -keys.shape[1] % 8)).numpy()


def inverted(keys: NDArray[np.float32]) -> faiss.IndexIVFFlat:
    """Lists by the nearest direction. The prior, which has the last column that is not 0, plays no part."""
    lists = min(LISTS, len(keys) // 10)
    means = faiss.Kmeans(keys.shape[1], lists, niter=8, spherical=True, seed=7, max_points_per_centroid=40)
    directions = keys.copy()
    directions[:, -8:] = 0
    means.train(directions)
    first = faiss.IndexFlatIP(keys.shape[1])
    first.add(np.asarray(means.centroids))
    index = faiss.IndexIVFFlat(first, keys.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBED
    return index


if __name__ == "__main__":
    main()
