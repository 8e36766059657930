"""The index, beside a plain sort of all products."""

import logging
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.index import EXACT_BELOW, FEWEST, KEPT, Index, Kind
from model.index_kinds import BLOCK, SPARE
from model.shortlister import NEVER
from topics.errors import UsageError

KINDS: tuple[Kind, ...] = ("float32", "bfloat16", "pq")
EXACT: tuple[Kind, ...] = ("float32", "bfloat16")
WIDTH = 32


def clustered(skills: int, seed: int = 1, width: int = WIDTH) -> Tensor:
    """Unit vectors around two hundred directions, with priors, (S, K)."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(200, width, generator=torch.Generator().manual_seed(0))
    around = centres[torch.randint(200, (skills,), generator=random)]
    around += torch.randn(skills, width, generator=random)
    return torch.cat([F.normalize(around, dim=1), 0.5 * torch.randn(skills, 1, generator=random)], dim=1)


def requests(count: int, width: int = WIDTH) -> Tensor:
    """Unit vectors of the same kind times 25, and the 1 that meets the prior, (B, K)."""
    return F.pad(25 * clustered(count, 2, width)[:, :-1], (0, 1), value=1.0)


def by_row(index: Index, queries: Tensor, skills: int) -> Tensor:
    """The scores of all rows in the order of rows, NEVER where a row was not found, (B, S)."""
    scores, rows = index.search(queries, skills)
    return torch.full((len(queries), skills), NEVER).scatter(1, rows, scores)


def kept(rows: Tensor, queries: Tensor, keys: Tensor) -> float:
    best = (queries @ keys.T).topk(3, dim=1).indices
    return float((best[:, :, None] == rows[:, None]).any(2).double().mean())


@settings(deadline=timedelta(seconds=5))  # building thousands of rows on a busy machine is no finding
@given(
    kind=st.sampled_from(EXACT),
    skills=st.sampled_from([0, 1, 2, 7, 8, 9, 70, 300, 1024, 1025, 2500, 3001]),
    count=st.integers(1, 80),
    values=st.integers(0, 3),
    gone=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    seed=st.integers(0, 2**20),
)
def test_exact_kinds_are_a_sort_of_all_rows_that_are_there(
    kind: Kind, skills: int, count: int, values: int, gone: float, seed: int
) -> None:
    """Whole numbers, so that products are exact and ties many: the lower row stands first."""
    random = np.random.default_rng(seed)
    keys, changed = (random.integers(-values, values + 1, (skills, 4)) for _ in range(2))
    queries = np.pad(random.integers(-3, 4, (5, 3)), ((0, 0), (0, 1)), constant_values=1)
    index = Index(torch.from_numpy(keys).float(), kind)
    for row in random.permutation(skills)[:5]:
        keys[row] = changed[row]
        index.put(int(row), torch.from_numpy(keys[row]).float())
    removed = set(np.flatnonzero(random.random(skills) < gone).tolist())
    for row in removed:
        index.remove(row)

    scores, rows = index.search(torch.from_numpy(queries).float(), count)

    there = [row for row in range(skills) if row not in removed]
    for at, products in enumerate((queries @ keys.T).tolist()):
        expected = sorted(there, key=lambda row: (-products[row], row))[:count]
        assert rows[at].tolist() == expected
        assert scores[at].tolist() == [products[row] for row in expected]


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("rounded", ["keys", "request"])
@pytest.mark.parametrize("seed", range(5))
def test_bfloat16_tells_apart_what_it_cannot_hold(count: int, rounded: str, seed: int) -> None:
    """Two thousand rivals, closer than bfloat16 sees, come back in the right order."""
    random = torch.Generator().manual_seed(seed)
    query, keys = requests(1), torch.randn(2000, WIDTH + 1, generator=random)
    along = F.normalize(query, dim=1)
    keys += (1 - keys @ along.T) * along  # all products are the same
    if rounded == "keys":  # so that only the request loses something, or the other way round
        keys = keys.bfloat16().float()
    else:
        query = query.bfloat16().float()
    half, full = (Index(keys, kind).search(query, count) for kind in EXACT)
    assert torch.equal(half[1], full[1])
    assert torch.equal(half[0], full[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skills", [FEWEST, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 3000])
def test_no_score_moves_by_a_bit_when_others_join_change_and_leave(kind: Kind, skills: int) -> None:
    keys, queries = clustered(skills), requests(9)
    index = Index(keys, kind)
    before = by_row(index, queries, skills)
    index.put(5, -keys[5])
    for row in (17, skills - 1):
        index.remove(row)
    for row in range(skills, skills + 20):
        index.put(row, clustered(1, seed=row)[0])
    after = by_row(index, queries, skills + 20)
    others = [row for row in range(skills) if row not in {5, 17, skills - 1}]
    assert torch.equal(after[:, others], before[:, others])
    assert bool((after[:, [17, skills - 1]] == NEVER).all())
    grown = torch.cat([keys, *(clustered(1, seed=row) for row in range(skills, skills + 20))])
    assert torch.equal(by_row(Index(grown, kind), queries, skills + 20)[:, others], before[:, others])


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("skills", [0, 1, 7, 8, 9, 15, 16, 127, 128, BLOCK - 1])
def test_no_score_moves_by_a_bit_in_small_catalogues(kind: Kind, skills: int) -> None:
    keys, queries = clustered(skills + 20), requests(9)
    index = Index(keys[:skills], kind)
    before = by_row(index, queries, skills)
    for row in range(skills, skills + 20):
        index.put(row, keys[row])
        assert torch.equal(by_row(index, queries, row + 1)[:, :skills], before)
    for row in range(skills, skills + 20):
        index.remove(row)
    assert torch.equal(by_row(index, queries, skills), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_answered_alone_as_in_company(kind: Kind) -> None:
    index, queries = Index(clustered(3000), kind), requests(300)
    scores, rows = index.search(queries, 30)
    for start, end in [(0, 1), (7, 8), (299, 300), (3, 20), (250, 300)]:
        alone = index.search(queries[start:end], 30)
        assert torch.equal(alone[1], rows[start:end])
        assert torch.equal(alone[0], scores[start:end])


@pytest.mark.parametrize("width", [31, 127, 128, 129, 256])
def test_pq_keeps_the_best_three_of_twenty_thousand_rows(width: int) -> None:
    keys, queries = clustered(20_000, width=width), requests(1000, width=width)
    scores, rows = Index(keys, "pq").search(queries, 30)
    assert kept(rows, queries, keys) >= 0.99
    assert torch.allclose(scores, (queries @ keys.T).gather(1, rows), atol=1e-4)
    assert bool((scores.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_skill_is_found_once_it_is_there_and_never_once_it_is_gone(kind: Kind) -> None:
    keys, queries = clustered(2000), requests(4)
    index = Index(keys, kind)
    new = F.pad(F.normalize(queries[:, :-1], dim=1), (0, 1))  # what each request asks for
    for place, row in enumerate([0, 31, 1999, 2000]):
        index.put(row, new[place])
    assert index.search(queries, 1)[1].flatten().tolist() == [0, 31, 1999, 2000]
    for row in (0, 31, 1999, 2000):
        index.remove(row)
    assert not bool(torch.isin(index.search(queries, 1990)[1], torch.tensor([0, 31, 1999, 2000])).any())


@pytest.mark.parametrize("kind", KINDS)
def test_removed_rows_do_not_crowd_out_the_others(kind: Kind) -> None:
    """A request finds its full list though all that it would have found have left."""
    keys, queries = clustered(2000), requests(3)
    index = Index(keys, kind)
    gone = index.search(queries[:1], 2 * SPARE)[1][0]
    for row in gone.tolist():
        index.remove(row)
    found = index.search(queries, 2000 - 2 * SPARE)[1]
    there = torch.ones(2000, dtype=torch.bool)
    there[gone] = False
    assert torch.equal(found.sort(1).values, there.nonzero().T.expand(3, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_without_direction_gets_a_full_list(kind: Kind) -> None:
    keys = clustered(2000)
    scores, rows = Index(keys, kind).search(torch.zeros(2, WIDTH + 1), 5)
    assert rows.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert not bool(scores.any())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_absent_from_the_start_are_never_found(kind: Kind) -> None:
    keys = clustered(3000)
    keys[::2, -1] = NEVER
    before = keys.clone()
    _, rows = Index(keys, kind).search(requests(5), 5000)
    assert rows.shape == (5, 1500)
    assert bool((rows % 2 == 1).all())
    assert torch.equal(keys, before)


def test_what_cannot_be_is_refused() -> None:
    index = Index(clustered(10), "float32")
    with pytest.raises(UsageError, match="row 11 is not in the index of 10 rows"):
        index.put(11, clustered(1)[0])
    with pytest.raises(UsageError, match="row 10 is not in the index of 10 rows"):
        index.remove(10)
    with pytest.raises(UsageError, match=f"needs {FEWEST} skills and got 10"):
        Index(clustered(10), "pq")


def test_nothing_is_found_where_nothing_is() -> None:
    index = Index(torch.zeros(0, WIDTH + 1))
    assert index.search(requests(3), 5)[1].shape == (3, 0)
    index.put(0, clustered(1)[0])
    assert index.search(requests(3), 5)[1].tolist() == [[0]] * 3
    assert index.search(requests(0), 5)[1].shape == (0, 1)


@pytest.mark.parametrize(("skills", "kinds"), [(EXACT_BELOW - 1, EXACT), (EXACT_BELOW, KINDS)])
def test_the_kind_is_measured_and_said(
    skills: int, kinds: tuple[Kind, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A small catalogue has exact kinds to choose from, a large one all."""
    keys, queries = clustered(skills), requests(100)
    with caplog.at_level(logging.INFO, logger="model.index"):
        index = Index(keys)
    (line,) = caplog.messages
    assert f"index of {skills} skills: {index.kind} (" in line
    assert [kind for kind in KINDS if f"{kind} " in line.partition("(")[2]] == list(kinds)
    assert kept(index.search(queries, 64)[1], queries, keys) >= KEPT


def test_a_kind_that_is_given_is_not_measured(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="model.index"):
        assert Index(clustered(50), "bfloat16").kind == "bfloat16"
    assert not caplog.messages


@pytest.mark.parametrize("imports", ["import faiss, torch", "import torch, faiss"])
def test_faiss_uses_as_many_threads_as_torch(imports: str) -> None:
    """Whichever comes first: the second shares the threads of the first, or brings its own."""
    program = f"""{imports}
from model.index import Index
index = Index(torch.randn(2000, 9), "pq")
for threads in (1, 2):
    torch.set_num_threads(threads)
    index.search(torch.ones(3, 9), 5)
    print(threads, torch.get_num_threads(), faiss.omp_get_max_threads())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 1 1", "2 2 2"]
