"""The model's one face: requests in, rankings out. A notebook, a test and the router call the same line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.bundle import Bundle, read_bundle
from model.encoder import WordBatches, Words
from model.onboarding import Onboarding
from model.policy import choose, set_costs
from model.reranker import LIKELY, NONE, Hypotheses
from model.shortlist import Shortlist, Shortlists
from topics.events import Action, Candidate, SkillCard

DECIMALS = 5  # scores are compared at this precision: what is below depends on the batch's company
CHUNK = 256  # requests scored at once: bounds memory at chunk × skills


@dataclass(frozen=True)
class Request:
    """What a customer said, and the ids of the skills that the customer has linked.

    `key` names the request, the same whenever it is decided again: by it near ties are explored, and without one
    they are not (see `model.policy`).
    """

    text: str
    linked: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Ranking:
    """The answer to one request. `candidates` are the reranked shortlist, best first."""

    action: Action
    skill_id: str | None
    candidates: tuple[Candidate, ...]
    none_probability: float
    propensity: float
    rule: str
    shortlist_none_rank: int  # how many skills the shortlister put before `none`


class Selector:
    """Decides with one bundle, by its costs but for those given in `costs` (names as in `model.policy.Costs`).

    `decide` takes lists of requests and gives rankings in the same order; a request gets the same answer
    alone and in company.
    """

    def __init__(self, bundle: Bundle, costs: Mapping[str, float] | None = None) -> None:
        self.bundle = bundle
        self.costs = set_costs(bundle.manifest.costs, costs)
        self.policy = self.costs.told(bundle.manifest.costs)
        self.release = bundle.manifest.release
        self.statistics = bundle.statistics.version()
        self._words = WordBatches(bundle.vocabulary)
        self._ids = bundle.catalogue.ids()
        self._shortlists = Shortlists(bundle.shortlister)
        self._onboarding = Onboarding(bundle)

    @classmethod
    def load(cls, bundle: Path, costs: Mapping[str, float] | None = None) -> "Selector":
        """Reads a bundle's folder. Raises BadBundle, and ValueError where a cost is none."""
        return cls(read_bundle(bundle), costs)

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
        return len(rows)

    def decide(self, requests: list[Request]) -> list[Ranking]:
        """One ranking a request, in order. Any text is answered; unknown links are left out."""
        # near-equal lengths together: a batch is as long as its longest text
        order = sorted(range(len(requests)), key=lambda at: len(requests[at].text))
        found: dict[int, Ranking] = {}
        for start in range(0, len(order), CHUNK):
            places = order[start : start + CHUNK]
            found |= zip(places, self._decide([requests[at] for at in places]), strict=True)
        return [found[at] for at in range(len(requests))]

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

    @torch.inference_mode()
    def _decide(self, requests: Sequence[Request]) -> list[Ranking]:
        bundle = self.bundle
        (words, linked), made = self._made(requests, bundle.manifest.reranker.candidates)
        texts = [request.text for request in requests]
        listed = bundle.evidence.hypotheses(made, words, texts, linked)
        return self._rankings(requests, listed, bundle.reranker(listed))

    def _made(self, requests: Sequence[Request], count: int) -> tuple[tuple[Words, torch.Tensor], Shortlist]:
        bundle = self.bundle
        linked = torch.from_numpy(bundle.catalogue.linked_rows([request.linked for request in requests]))
        words = self._words.batch(bundle.vocabulary.encode([request.text for request in requests]))
        return (words, linked), self._shortlists.make(words, linked, count)

    def _rankings(self, requests: Sequence[Request], listed: Hypotheses, logits: torch.Tensor) -> list[Ranking]:
        probabilities = torch.softmax(logits.double(), dim=-1).numpy().round(DECIMALS)  # (B, C + 2)
        scores = logits.double().numpy().round(DECIMALS)
        rows, linked, attention = listed.rows.numpy(), listed.linked.numpy(), listed.attention.double().numpy()
        order = np.argsort(-scores[:, :NONE], axis=1, kind="stable")  # (B, C)
        tables = (rows, scores[:, :NONE], probabilities[:, :NONE], linked, attention.round(DECIMALS))
        columns = [np.take_along_axis(table, order, axis=1).ravel().tolist() for table in tables]
        candidates = [
            Candidate(
                skill_id=self._ids[row] if row >= 0 else "",
                score=score,
                probability=probability,
                linked=is_linked,
                attention=weight if is_linked else None,
                shortlist_rank=rank,
            )
            for row, score, probability, is_linked, weight, rank in zip(
                *columns, order.ravel().tolist(), strict=True
            )
        ]
        none_ranks = (listed.own[..., LIKELY] > listed.lists[:, :1]).sum(1).tolist()
        width = order.shape[1]
        return [
            self._ranking(requests[at], candidates[at * width : (at + 1) * width], none, none_ranks[at])
            for at, none in enumerate(probabilities[:, NONE].tolist())
        ]

    def _ranking(self, request: Request, listed: list[Candidate], none: float, none_rank: int) -> Ranking:
        candidates = tuple([candidate for candidate in listed if candidate.skill_id])
        chosen = choose(candidates, none, self.costs, request.key, self.release)
        return Ranking(chosen.action, chosen.skill_id, candidates, none, chosen.propensity, chosen.rule, none_rank)
