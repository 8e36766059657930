"""The model's one face: requests in, rankings out. A notebook, a test and the router call the same line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import Bundle, read_bundle
from model.encoder import WordBatches, Words
from model.fulfilment import Asks
from model.live import joined_version
from model.onboarding import Onboarding
from model.policy import Choice, Option, choices, choose, near_ties, options, set_costs
from model.questions import Askable, Lists, ask
from model.rankings import (
    DECIMALS,
    Scored,
    candidates,
    firsts_without_links,
    none_ranks,
    parts_of,
    reasons,
    score,
    weighed,
)
from model.reranker import NONE
from model.shortlist import Shortlist, Shortlists
from topics.events import Action, Candidate, LiveStatistics, SkillCard

CHUNK = 256  # requests scored at once: bounds memory at chunk × skills
MANY_LINKS = 16  # twice what a customer has; how many a request of the warm-up has


@dataclass(frozen=True)
class Request:
    """What a customer said, and the ids of the skills that the customer has linked.

    `key` names the request, the same whenever it is decided again: by it near ties are explored, and without one
    they are not (see `model.policy`). `locale` is told to skills that are asked.
    """

    text: str
    linked: tuple[str, ...] = ()
    key: str = ""
    locale: str = "en-US"


@dataclass(frozen=True)
class Ranking:
    """The answer to one request. `candidates` are the reranked shortlist, best first; `reasons` and
    `without_links` are those of `topics.events.Decision`."""

    action: Action
    skill_id: str | None
    candidates: tuple[Candidate, ...]
    none_probability: float
    propensity: float
    rule: str
    shortlist_none_rank: int  # how many skills the shortlister put before `none`
    reasons: dict[str, float] = field(default_factory=dict)
    without_links: str | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a request is decided so.

    `ranking`: its candidates with the slots of each. `parts`: for each candidate what each group of features adds
    to its score. `options`: all that could be done, with its expected cost. `choices`: what can come of it with a
    key, each with its probability.
    """

    ranking: Ranking
    parts: tuple[dict[str, float], ...]
    options: tuple[Option, ...]
    choices: tuple[Choice, ...]


class Selector:
    """Decides with one bundle, by its costs but for those given in `costs` (names as in `model.policy.Costs`), and
    with what skills say that are asked through `asks`, if given.

    `decide` takes lists of requests and gives rankings in the same order; a request gets the same answer
    alone and in company.
    """

    def __init__(self, bundle: Bundle, asks: Asks | None = None, costs: Mapping[str, float] | None = None) -> None:
        self.bundle = bundle
        self.costs = set_costs(bundle.manifest.costs, costs)
        self.policy = self.costs.told(bundle.manifest.costs)
        self.release = bundle.manifest.release
        self.statistics = bundle.statistics.version()
        self._words = WordBatches(bundle.vocabulary)
        self._ids = bundle.catalogue.ids()
        self._live: LiveStatistics | None = None
        self._factors: torch.Tensor | None = None
        self._asks = asks
        self._endpoints = _endpoints(bundle)
        self._shortlists = Shortlists(bundle.shortlister)
        self._onboarding = Onboarding(bundle)

    @classmethod
    def load(cls, bundle: Path, asks: Asks | None = None, costs: Mapping[str, float] | None = None) -> "Selector":
        """Reads a bundle's folder. Raises BadBundle, and ValueError where a cost is none."""
        return cls(read_bundle(bundle), asks, costs)

    @property
    def catalogue(self) -> str:
        """Names the skills that are chosen among: "" for those that the bundle came with."""
        return self._onboarding.version

    @property
    def skills(self) -> int:
        """How many skills are chosen among."""
        return int(self.bundle.catalogue.present().sum())

    def take(self, cards: Iterable[SkillCard], gone: Iterable[str] = (), fine_tune: bool = False) -> int:
        """Skills join, change or leave between two calls of `decide`; returns how many did.

        No other skill's score changes by a bit. See `model.onboarding.Onboarding.take`.
        """
        rows = self._onboarding.take(cards, gone, fine_tune)
        if rows:
            self._shortlists.put(rows)
            self._ids = self.bundle.catalogue.ids()
            self._endpoints = _endpoints(self.bundle)
            self._factors = self._factors_by_row()
        return len(rows)

    def follow(self, live: LiveStatistics | None) -> None:
        """From now on these live statistics are added to what is decided, or none; a skill that is not here is
        left out. `statistics` names them."""
        if live is not self._live:
            self._live = live
            self._factors = self._factors_by_row()
            self.statistics = joined_version(self.bundle.statistics.version(), live)

    @torch.inference_mode()
    def decide(self, requests: list[Request]) -> list[Ranking]:
        """One ranking a request, in order. Any text is answered; unknown links are left out.

        Skills are asked once for all requests, so this takes one deadline longer at most.
        """
        return self._decided(requests, self._asks)

    @torch.inference_mode()
    def warm_up(self, count: int) -> None:
        """Decides `count` requests, as long as any is read, for nobody: the first customers do not wait for what
        is made at first use, and the heap has room for the largest batch before it holds anything that stays.

        The room is the calling thread's, so call it where `decide` will be called. No skill is asked.
        """
        vocabulary, linked = self.bundle.vocabulary, tuple(self._ids[:MANY_LINKS])
        words = cycle(vocabulary.words[1:])  # the first is padding
        texts = (" ".join(islice(words, vocabulary.settings.max_words)) for _ in range(count))
        self._decided([Request(text, linked, f"{at}") for at, text in enumerate(texts)], None)

    def _decided(self, requests: list[Request], asks: Asks | None) -> list[Ranking]:
        # near-equal lengths together: a batch is as long as its longest text
        order = sorted(range(len(requests)), key=lambda at: len(requests[at].text))
        chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        parts = [[requests[at] for at in places] for places in chunks]
        found: dict[int, Ranking] = {}
        for places, part, lists in zip(chunks, parts, self._lists(parts, asks), strict=True):
            scored = score(self.bundle.reranker, lists, self._factors)
            found |= zip(places, self._rankings(part, scored), strict=True)
        return [found[at] for at in range(len(requests))]

    @torch.inference_mode()
    def explain(self, request: Request) -> Explanation:
        """The request's ranking, and all that led to it."""
        [lists] = self._lists([[request]], self._asks)
        scored = score(self.bundle.reranker, lists, self._factors)
        [ranking] = self._rankings([request], scored, filled=scored.order.shape[1])
        listed, none = weighed(scored, 0, list(ranking.candidates))
        found = options(listed, none, self.costs)
        tried = near_ties(listed, found, self.costs) if listed else []
        return Explanation(
            ranking=ranking,
            parts=tuple(parts_of(scored, 0)[: len(listed)]),
            options=(*found, *[option for option in tried if option not in found]),
            choices=tuple(choices(listed, none, self.costs)),
        )

    def shortlist(self, requests: Sequence[Request], count: int) -> list[list[str]]:
        """The first network alone: the ids of each request's first `count` skills, best first."""
        found = []
        for at in range(0, len(requests), CHUNK):
            _, made = self._made(requests[at : at + CHUNK], count)
            found += [[self._ids[row] for row in rows if row >= 0] for rows in made.rows.tolist()]
        return found

    def attention(self, requests: Sequence[Request]) -> list[dict[str, float]]:
        """For each request the attention weight of every linked skill by its id, on the shortlist or not.

        Links to skills that are not in the catalogue are left out, as in `decide`.
        """
        found = []
        for at in range(0, len(requests), CHUNK):
            (_, linked), made = self._made(requests[at : at + CHUNK], 1)
            weights = made.weights.double().numpy().round(DECIMALS)  # (B, L)
            for rows, row_weights in zip(linked.tolist(), weights.tolist(), strict=True):
                pairs = zip(rows, row_weights, strict=True)
                found.append({self._ids[row]: weight for row, weight in pairs if row >= 0})
        return found

    def _factors_by_row(self) -> torch.Tensor | None:
        """What live statistics add to each skill's score, (S,); None where nothing is added."""
        factors = self._live.factors if self._live else {}
        return torch.tensor([factors.get(skill_id, 0.0) for skill_id in self._ids]) if factors else None

    def _lists(self, parts: Sequence[Sequence[Request]], asks: Asks | None) -> Iterable[Lists]:
        """The candidates of each part; one after another where nobody is asked, so that memory is bounded."""
        lists = (self._listed(part) for part in parts)
        if asks is None:
            return lists
        skills = Askable(self._ids, self._endpoints)
        return ask(asks, skills, self.bundle.evidence.readings, list(lists))

    def _listed(self, requests: Sequence[Request]) -> Lists:
        (words, linked), made = self._made(requests, self.bundle.manifest.reranker.candidates)
        texts = [request.text for request in requests]
        found = self.bundle.evidence.hypotheses(made, words, texts, linked)
        return Lists(found, [request.locale for request in requests])

    def _made(self, requests: Sequence[Request], count: int) -> tuple[tuple[Words, torch.Tensor], Shortlist]:
        bundle = self.bundle
        linked = torch.from_numpy(bundle.catalogue.linked_rows([request.linked for request in requests]))
        words = self._words.batch(bundle.vocabulary.encode([request.text for request in requests]))
        return (words, linked), self._shortlists.make(words, linked, count)

    def _rankings(self, requests: Sequence[Request], scored: Scored, filled: int = 1) -> list[Ranking]:
        """`filled`: of how many candidates the slots are told."""
        reranker, readings = self.bundle.reranker, self.bundle.evidence.readings
        bare = firsts_without_links(reranker, scored, [bool(request.linked) for request in requests])
        listed = candidates(scored, self._ids, readings, filled)
        columns = zip(
            requests,
            listed,
            [weighed(scored, b, one) for b, one in enumerate(listed)],
            scored.probabilities[:, NONE].tolist(),
            none_ranks(scored),
            reasons(scored),
            bare,
            strict=True,
        )
        return [self._ranking(*column) for column in columns]

    def _ranking(
        self,
        request: Request,
        listed: list[Candidate],
        seen: tuple[list[Candidate], float],
        none: float,
        none_rank: int,
        reasons: dict[str, float],
        bare: int,
    ) -> Ranking:
        chosen = choose(*seen, self.costs, request.key, self.release)
        same = not listed or self._ids[bare] == listed[0].skill_id
        return Ranking(
            action=chosen.action,
            skill_id=chosen.skill_id,
            candidates=tuple(listed),
            none_probability=none,
            propensity=chosen.propensity,
            rule=chosen.rule,
            shortlist_none_rank=none_rank,
            reasons=reasons,
            without_links=None if same else self._ids[bare],
        )


def _endpoints(bundle: Bundle) -> NDArray[np.object_]:
    """Where each skill can be asked, by row; "" where it cannot."""
    cards = bundle.catalogue.rows()
    return np.array([card.endpoint if card else "" for card in cards], dtype=object)
