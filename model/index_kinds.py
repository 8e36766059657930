"""The ways an index finds the rows that may score best.

Axes: B batch, S skills (rows of the index), K width of a key, C rows wanted, F rows fetched to be scored exactly.
"""

from collections.abc import Iterator

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.shortlister import NEVER

SPARE = 64  # fetched beyond what is wanted; compressed keys alone put up to 7 of 1,000 best threes below rank 30
GROUP = 8  # rows of which at first only the best is looked at; 16 costs the same, 32 costs more
BLOCK = 1024  # rows that the store grows by: 20 ms of copying at 50,000 rows, once in 1,024 new skills
CODEBOOK_ROWS = 10_000  # that the compressed kind learns from, in
CODEBOOK_STEPS = 10  # steps of k-means; 25 take 0.3 s longer and find no more; 5 with 2,500 rows lose 1 in 1,000
# A key of fewer numbers has 4 bits for each of them: with 2 to a code 1 to 20 of 1,000 best threes are lost.
NARROW = 128
ROUNDED_UP = 1.001  # on lengths found in float32, so that a bound made of them is one
LOW_BITS = 0xFFFFFFFF


class Rows:
    """The keys in float32, with room to grow, and what requests score with given rows.

    The last number of a key is its prior, and of a request 1. A row whose prior is NEVER is absent.
    """

    def __init__(self, keys: Tensor) -> None:
        self.height, width = keys.shape
        self.keys = _absent(-(-self.height // BLOCK) * BLOCK, width)  # (capacity, K)
        self.keys[: self.height] = keys
        self.keys[: self.height][~self.there()] = _absent(1, width)
        self.living = int(self.there().sum())
        self.length = max((_longest(self.keys[at]) for at in self.parts()), default=0.0)  # never shrinks

    def there(self) -> Tensor:
        """Which rows are not absent, (S,)."""
        return self.keys[: self.height, -1] > NEVER

    def parts(self) -> Iterator[Tensor]:
        """The rows that are not absent, some at a time, so that no copy of all is made."""
        yield from torch.split(self.there().nonzero().flatten(), BLOCK)

    def put(self, row: int, key: Tensor) -> None:
        """Sets a row; `row` may be the first one that is not there yet."""
        if row == len(self.keys):
            self.keys = torch.cat([self.keys, _absent(BLOCK, self.keys.shape[1])])
        self.height = max(self.height, row + 1)
        own, there = self.keys[row], float(key[-1]) > NEVER
        self.living += there - (float(own[-1]) > NEVER)
        own.copy_(key if there else _absent(1, len(key))[0])
        if there:
            self.length = max(self.length, _longest(own))

    def best(self, queries: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Of the given rows (B, F) the best, scores (B, C) and rows (B, C); equal scores by the lower row.

        Each score depends on nothing but its request and its key, see `products`.
        """
        scores = products(queries, self.keys, rows).numpy()  # (B, F)
        at = rows.numpy()
        # one number a row that sorts as (score, lower row first): floats sort as integers once negative ones
        # have all bits but the sign flipped
        order = _flipped(scores.view(np.int32)).astype(np.int64) << 32 | (LOW_BITS - at)
        order.sort(axis=1)
        order = order[:, ::-1][:, :count]  # (B, C)
        found = _flipped((order >> 32).astype(np.int32)).view(np.float32)
        return torch.from_numpy(found), torch.from_numpy(LOW_BITS - (order & LOW_BITS))


class Dense:
    """One product of all requests with all keys, then the largest of each. Exact, in bfloat16 too.

    The product only says which rows to score. It is off by no more than a bound; where a row that was not
    fetched could still belong to the best, all rows that could are scored.
    """

    def __init__(self, rows: Rows, dtype: torch.dtype) -> None:
        self.rows = rows
        self._keys = rows.keys.to(dtype)  # (capacity, K), in float32 the very same
        self._rounding = 0.0  # the longest difference of a key and what the product sees of it, never shrinks
        if dtype != torch.float32:
            off = (_longest(rows.keys[at] - self._keys[at].float()) for at in rows.parts())
            self._rounding = max(off, default=0.0)

    def put(self, row: int) -> None:
        """Takes over a row that has been set."""
        key = self.rows.keys[row]
        if len(self._keys) < len(self.rows.keys):
            self._keys = self.rows.keys.to(self._keys.dtype)
        self._keys[row] = key
        if float(key[-1]) > NEVER:
            self._rounding = max(self._rounding, _longest(key - self._keys[row].float()))

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores (B, C) and rows (B, C), best first; C at most the number of rows that are there."""
        height = -(-self.rows.height // GROUP) * GROUP
        rounded = queries.to(self._keys.dtype)
        about = rounded @ self._keys[:height].T  # (B, S)
        fetched, floor = largest(about, min(count + SPARE, height))  # (B, F), (B,)
        scores, rows = self.rows.best(queries, fetched, count)
        # rounding keeps order, so a row as good as the last one has at least this much in `about`
        enough = (scores[:, -1].double() - self._bound(queries, rounded)).to(about.dtype)  # (B,)
        for at in (enough <= floor).nonzero().flatten().tolist() if fetched.shape[1] < height else ():
            able = (about[at] >= enough[at]).nonzero().T  # (1, any)
            one = slice(at, at + 1)
            scores[one], rows[one] = self.rows.best(queries[one], able, count)
        return scores, rows

    def _bound(self, queries: Tensor, rounded: Tensor) -> Tensor:
        """How far a product can be from the row's score before it is rounded itself, (B,).

        |q·k - q'·k'| <= |q| |k - k'| + |q - q'| |k'|, and a sum of K float32 products is off by at most
        K 2^-24 |q| |k|, however it is ordered (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
        """
        q = queries.norm(dim=1).double() * ROUNDED_UP
        error = (queries - rounded.float()).norm(dim=1).double() * ROUNDED_UP
        summed = self.rows.keys.shape[1] * 2.0**-23 * (q + error)  # of both products
        bound: Tensor = q * self._rounding + (error + summed) * (self.rows.length + self._rounding)
        return bound


class Compressed:
    """4 bits for 2 numbers of a key, looked up 32 keys at a time; what is fetched is scored exactly.

    Product quantisation (Jégou et al., 2011) with the lookups in registers (André et al., 2015), as faiss has
    it. A request may miss a row of its best. Keys are turned first, so that all pairs of numbers matter alike:
    in a basis of principal axes 6 of 1,000 best threes are lost without.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self._dense = rows, Dense(rows, torch.float32)
        width = rows.keys.shape[1] - 1
        random = torch.randn(width, width, generator=torch.Generator().manual_seed(7))
        self._turn = torch.linalg.qr(random)[0]  # (K - 1, K - 1)
        each = 1 if width < NARROW else 2  # numbers to a code
        codes = width // each + 1  # of the key; of the prior, and where two make a code and one is over, of both
        self._codes = faiss.IndexPQFastScan(each * codes, codes, 4, faiss.METRIC_INNER_PRODUCT)
        self._codes.pq.cp.niter = CODEBOOK_STEPS
        use_torch_threads()
        learned = rows.there().nonzero().flatten()[:: -(-rows.living // CODEBOOK_ROWS)]
        self._codes.train(self._turned(rows.keys[learned]))
        for keys in torch.split(rows.keys[: rows.height], BLOCK):
            self._codes.add(self._turned(keys))

    def put(self, row: int) -> None:
        """Takes over a row that has been set."""
        self._dense.put(row)
        key = self._turned(self.rows.keys[row : row + 1])
        use_torch_threads()
        if row == self._codes.ntotal:
            self._codes.add(key)
            return
        packer, codes = self._codes.get_CodePacker(), self._codes.codes  # type: ignore[attr-defined]  # no stub
        blocks = faiss.rev_swig_ptr(codes.get(), codes.size()).reshape(-1, packer.block_size)
        block, place = divmod(row, packer.nvec)
        packer.pack_1(self._codes.pq.compute_codes(key)[0], place, blocks[block : block + 1])

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores (B, C) and rows (B, C), best first; C at most the number of rows that are there."""
        use_torch_threads()
        fetch = min(count + SPARE, self.rows.height)
        fetched = torch.from_numpy(self._codes.search(self._turned(queries), fetch)[1])  # (B, F)
        scores, rows = self.rows.best(queries, fetched.clamp(min=0), count)
        # too few: a request of zeros finds nothing (-1), one may find many absent rows
        few = (fetched < 0).any(1) | (scores[:, -1] <= NEVER / 2)  # (B,)
        if few.any():
            scores[few], rows[few] = self._dense.search(queries[few], count)
        return scores, rows

    def _turned(self, keys: Tensor) -> NDArray[np.float32]:
        """Turned, with the prior as it is, and zeros up to whole codes."""
        turned = torch.zeros(len(keys), self._codes.d)
        turned[:, : len(self._turn)] = keys[:, :-1] @ self._turn
        turned[:, len(self._turn)] = keys[:, -1]
        return turned.numpy()


def products(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Dot products of each of the queries (B, K) with the keys (S, K) at its rows (B, F), (B, F).

    Each by itself: what a BLAS makes of the same pair differs with the shape of the matrices around them.
    """
    use_torch_threads()
    x, y, at = (np.ascontiguousarray(part.numpy()) for part in (queries, keys, rows))
    found = np.empty(at.shape, np.float32)
    pointers = (faiss.swig_ptr(array) for array in (found, x, y, at))
    faiss.fvec_inner_products_by_idx(*pointers, y.shape[1], *at.shape)  # type: ignore[attr-defined]  # no stub
    return torch.from_numpy(found)


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places of the largest of each row of (B, S), in any order, (B, F), and the least of these, (B,).

    First the largest of each group, then the groups that hold the best of these: an eighth of the sorting.
    S is a multiple of GROUP.
    """
    height = scores.shape[1]
    if height < 4 * GROUP * count:
        chosen = _largest(scores, count)
        return chosen, scores.gather(1, chosen).amin(1)
    groups = scores.view(len(scores), GROUP, -1)  # (B, GROUP, S / GROUP)
    best = _largest(groups.amax(1), count)  # (B, F)
    inside = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)  # (B, GROUP · F)
    chosen = _largest(inside, count)
    places = best.gather(1, chosen % count) + chosen // count * (height // GROUP)
    return places, inside.gather(1, chosen).amin(1)


def use_torch_threads() -> None:
    """faiss has threads of its own where it was imported before torch, and a number of them a calling thread."""
    faiss.omp_set_num_threads(torch.get_num_threads())


def _largest(scores: Tensor, count: int) -> Tensor:
    # numpy selects in vector registers, torch sorts: 5 times as long
    places = np.argpartition(scores.float().numpy(), scores.shape[1] - count, axis=1)
    return torch.from_numpy(places[:, scores.shape[1] - count :])


def _flipped(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def _longest(keys: Tensor) -> float:
    return float(keys.norm(dim=-1).max()) * ROUNDED_UP if keys.numel() else 0.0


def _absent(rows: int, width: int) -> Tensor:
    keys = torch.zeros(rows, width)
    keys[:, -1] = NEVER
    return keys
