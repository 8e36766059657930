"""Dev rows as customers of three kinds ask them: the intended skill linked in 90, 70 or 0 % of the rows.

A data folder brings them as `utterances.dev.linked90.jsonl[.gz]` and so on; for one that does not, they are made
here. Either way links are simulated: no source says who has linked what.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from model.data import Row, read_rows, split_path
from topics.errors import BadData

SHARES = (90, 70, 0)  # percent of the rows in which the intended skill is linked
ALONE = "alone"  # the condition in which nobody has linked anything
SEED = 20180  # of the made sets; the same for every run, so that runs compare


class Conditions(Struct, frozen=True):
    """The same rows in the same order with different linked sets, by the percentage linked."""

    rows: dict[int, list[Row]]
    given: bool  # by the data folder; else made here from the dev rows' own sets

    @property
    def texts(self) -> list[Row]:
        """The rows, for their texts and skills."""
        return self.rows[SHARES[0]]


def read_conditions(folder: Path) -> Conditions:
    """The dev rows of a data folder in each condition.

    Raises BadData where the given files do not have the same rows, or where none is to be made from.
    """
    found = {share: _given(folder, share) for share in SHARES}
    given = {share: read_rows(path) for share, path in found.items() if path}
    if len(given) == len(SHARES):
        _check_equal_rows(folder, given)
        return Conditions(given, given=True)
    return Conditions(simulated(read_rows(split_path(folder, "dev"))), given=False)


def _given(folder: Path, share: int) -> Path | None:
    names = (f"utterances.dev.linked{share}.jsonl", f"utterances.dev.linked{share}.jsonl.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _check_equal_rows(folder: Path, given: dict[int, list[Row]]) -> None:
    first, *others = ([(row.text, row.skill_id) for row in rows] for rows in given.values())
    if any(other != first for other in others):
        raise BadData(
            f"the files utterances.dev.linked*.jsonl of {folder} have different rows: they have to be the same "
            "rows in the same order, with different links"
        )


def simulated(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """The rows in each condition, with as few changes to their own linked sets as the condition needs.

    Rows are put in an order, those whose intended skill is linked first, else at random; of the rows that mean
    a skill the first 90 (70, 0) % have it linked, the others do not. So what people do through links stays what
    it is, as far as it can, and who has a link at 70 % has it at 90 %. A row that does not say who is linked
    borrows the set of another that does. Raises BadData where no row says so.
    """
    generator = np.random.default_rng(SEED)
    sets = _own_or_borrowed(rows, generator)
    meaning = np.asarray([at for at, row in enumerate(rows) if row.skill_id is not None], dtype=np.int64)
    linked = np.asarray([rows[at].skill_id in sets[at] for at in meaning], dtype=np.bool_)
    order = meaning[np.lexsort((generator.random(len(meaning)), ~linked))]
    return {share: _with_share(rows, sets, order, share) for share in SHARES}


def _own_or_borrowed(rows: Sequence[Row], generator: np.random.Generator) -> list[tuple[str, ...]]:
    givers = [row.linked for row in rows if row.linked is not None]
    if not givers:
        raise BadData("no dev row says who is linked: the experiment compares what links are worth, and has none")
    chosen = generator.integers(0, len(givers), len(rows)).tolist()
    return [givers[at] if row.linked is None else row.linked for row, at in zip(rows, chosen, strict=True)]


def _with_share(
    rows: Sequence[Row], sets: Sequence[tuple[str, ...]], order: NDArray[np.int64], share: int
) -> list[Row]:
    has_it = set(order[: round(len(order) * share / 100)].tolist())
    found = []
    for at, (row, linked) in enumerate(zip(rows, sets, strict=True)):
        others = tuple(skill for skill in linked if skill != row.skill_id)
        own = (row.skill_id,) if row.skill_id is not None and at in has_it else ()
        found.append(replace(row, linked=(*others, *own)))
    return found
