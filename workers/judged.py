"""What a release does on the judged rows: its answers, its attention, how far to believe its probabilities."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from model.data import Row
from model.evaluation import places
from model.selector import Ranking, Request, Selector
from workers.joins import first_choice
from workers.tally import Share, share_of

MOST_ROWS = 4_000  # looked at: enough for every plot, seconds on the largest catalogue
BINS = 10  # of a probability or a weight, between 0 and 1
FEWEST = 10  # rows of a share: of fewer, an interval says nothing
LINK_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 501)  # 501: one more than a customer can have
EXAMPLES = {
    "linked, weighs most, decided": 3,
    "linked, weighs less, yet decided": 1,
    "linked, missed": 1,
    "not linked, decided": 2,
    "not linked, missed": 1,
}
"""How many examples are shown of each kind: where the intended skill stands, and what came of it."""


@dataclass(frozen=True)
class Judged:
    """A row, the release's answer to it, and the attention weight of each linked skill by its id."""

    row: Row
    ranking: Ranking
    weights: dict[str, float]

    @cached_property
    def right(self) -> bool:
        """Whether the intended skill, or `none`, stands first in the decision's list: top-1 of an evaluation."""
        return places(self.row.skill_id, self.ranking)[1] == 1

    @property
    def answer(self) -> str | None:
        """The skill that the customer meets first; None for silence."""
        listed = self.ranking.candidates[0].skill_id if self.ranking.candidates else None
        return first_choice(self.ranking.action, self.ranking.skill_id, listed)

    @property
    def first_probability(self) -> float:
        """The largest probability of the list, `none` among it."""
        return max([self.ranking.none_probability, *(c.probability for c in self.ranking.candidates)])

    @property
    def kind(self) -> str | None:
        """Its kind among EXAMPLES; None where nothing is linked or no skill should answer."""
        intended = self.row.skill_id
        if not self.weights or intended is None:
            return None
        decided = self.answer == intended
        if intended not in self.weights:
            return "not linked, decided" if decided else "not linked, missed"
        if not decided:
            return "linked, missed"
        most = self.weights[intended] == max(self.weights.values()) > 0
        return "linked, weighs most, decided" if most else "linked, weighs less, yet decided"


def spread(rows: Sequence[Row], most: int = MOST_ROWS) -> list[Row]:
    """At most `most` rows, evenly spread over all."""
    if len(rows) <= most:
        return list(rows)
    return [rows[at * len(rows) // most] for at in range(most)]


def judge(selector: Selector, rows: Sequence[Row]) -> list[Judged]:
    """Each row as the release answers it, with the row's own links."""
    requests = [Request(row.text, row.linked or ()) for row in rows]
    answers = zip(rows, selector.decide(requests), selector.attention(requests), strict=True)
    return [Judged(*answer) for answer in answers]


def kinds(judged: Sequence[Judged]) -> Counter[str]:
    """How many rows there are of each kind of EXAMPLES."""
    return Counter(one.kind for one in judged if one.kind)


def examples(judged: Sequence[Judged]) -> list[Judged]:
    """The first rows of each kind in their order, at most EXAMPLES of it, each with another intended skill.

    Nothing else chooses them, so that they are no better than the others.
    """
    found: dict[str, list[Judged]] = {kind: [] for kind in EXAMPLES}
    shown: set[str | None] = set()
    for one in judged:
        kind = one.kind
        if kind and len(found[kind]) < EXAMPLES[kind] and one.row.skill_id not in shown:
            found[kind].append(one)
            shown.add(one.row.skill_id)
    return [one for listed in found.values() for one in listed]


@dataclass(frozen=True)
class Weights:
    """Attention weights of linked skills, by what they are to the request."""

    intended: list[float]
    beside: list[float]  # not intended, the intended one is linked too
    alone: list[float]  # not intended, nor is the intended one linked


def weights_by_meaning(judged: Sequence[Judged]) -> Weights:
    """All weights of all rows, sorted into three."""
    found = Weights([], [], [])
    for one in judged:
        others = found.beside if one.row.skill_id in one.weights else found.alone
        for skill_id, weight in one.weights.items():
            (found.intended if skill_id == one.row.skill_id else others).append(weight)
    return found


@dataclass(frozen=True)
class Bin:
    """Answers whose first probability lies in one tenth: how many, the mean probability, the share right."""

    count: int
    probability: float
    right: float


def reliability(judged: Sequence[Judged]) -> list[Bin]:
    """The filled ones of BINS equal bins of the first probability, lowest first."""
    members: list[list[Judged]] = [[] for _ in range(BINS)]
    for one in judged:
        members[min(int(one.first_probability * BINS), BINS - 1)].append(one)
    return [_bin(part) for part in members if part]


def _bin(part: Sequence[Judged]) -> Bin:
    probability = sum(one.first_probability for one in part) / len(part)
    return Bin(len(part), probability, sum(one.right for one in part) / len(part))


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """ECE = Σ (n_b / N) |right_b − probability_b| (Guo et al., ICML 2017); None of nothing."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.right - part.probability) for part in bins) / total if total else None


def errors_by_links(judged: Sequence[Judged], fewest: int = FEWEST) -> dict[str, Share]:
    """The share whose first answer is wrong, by number of linked skills; ranges of fewer rows are left out."""
    wrong: dict[str, list[bool]] = {}
    for low, high in pairwise(LINK_EDGES):
        part = [not one.right for one in judged if low <= len(set(one.row.linked or ())) < high]
        if len(part) >= fewest:
            wrong[_range(low, high)] = part
    return {label: share_of(sum(part), len(part)) for label, part in wrong.items()}


def _range(low: int, high: int) -> str:
    if high == LINK_EDGES[-1]:
        return f"{low}+"
    return str(low) if high == low + 1 else f"{low}–{high - 1}"
