"""Stand-ins for the parts that a worker's test is not about: a selector without a model, and bundles for it."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from model.bundle import Manifest, read_manifest
from model.fulfilment import Asks, Question
from model.live import joined_version
from model.selector import Ranking, Request
from topics.events import Action, Candidate, LiveStatistics, SkillCard

POISON = "poison"  # a text with this word makes the flat selector raise
WRONG = "wrong:skill"  # a bundle whose name begins with `wrong` always chooses this one
SLOW = "slow"  # and this one makes it take a tenth of a second


class FlatSelector:
    """Ranks what is linked, in order, with equal scores but for live statistics; says `none` where nothing is.

    Where it is given `asks`, it asks each linked skill that has an endpoint, and makes nothing of the answers.
    """

    statistics = ""
    policy = ""
    catalogue = ""
    skills = 0

    def __init__(self, release: str = "flat", asks: Asks | None = None) -> None:
        self.release = release
        self._asks = asks
        self._endpoints: dict[str, str] = {}
        self._factors: Mapping[str, float] = {}

    def take(self, cards: Sequence[SkillCard], gone: Sequence[str]) -> int:
        self._endpoints |= {card.skill_id: card.endpoint for card in cards if card.endpoint}
        return 0

    def follow(self, live: LiveStatistics | None) -> None:
        self._factors = live.factors if live else {}
        self.statistics = joined_version("", live)

    def warm_up(self, _count: int) -> None:
        """Nothing is made at first use."""

    def decide(self, requests: list[Request]) -> list[Ranking]:
        if self._asks is not None:
            pairs = [(skill, request.text) for request in requests for skill in request.linked]
            self._asks.ask(
                [
                    Question(skill, self._endpoints[skill], "go", (("where", text),))
                    for skill, text in pairs
                    if skill in self._endpoints
                ]
            )
        return [_ranking(request, self._factors) for request in requests]


class WrongSelector(FlatSelector):
    """Opens a skill that nobody means, whatever is asked."""

    def decide(self, requests: list[Request]) -> list[Ranking]:
        wrong = (Candidate(skill_id=WRONG, score=1.0, probability=1.0),)
        return [
            replace(ranking, action=Action.LAUNCH, skill_id=WRONG, candidates=wrong)
            for ranking in super().decide(requests)
        ]


def _ranking(request: Request, factors: Mapping[str, float]) -> Ranking:
    if POISON in request.text:
        raise ValueError(f"cannot rank {request.text!r}")
    if SLOW in request.text:
        time.sleep(0.02)
    share = 1 / (len(request.linked) + 1)
    linked = sorted(request.linked, key=lambda skill: -factors.get(skill, 0.0))
    return Ranking(
        action=Action.LAUNCH if request.linked else Action.NONE,
        skill_id=linked[0] if linked else None,
        candidates=tuple(
            Candidate(skill_id=skill, score=factors.get(skill, 0.0), probability=share, linked=True)
            for skill in linked
        ),
        none_probability=share,
        propensity=1.0,
        rule="best",
        shortlist_none_rank=0,
    )


def load_flat(bundle: Path, asks: Asks | None = None) -> FlatSelector:
    """A flat selector under the release id of `bundle`, which `flat_bundle` made; a wrong one by its name."""
    kind = WrongSelector if (bundle / "flat.txt").read_text().startswith("wrong") else FlatSelector
    return kind(read_manifest(bundle).release, asks)


def flat_bundle(folder: Path, name: str) -> Path:
    """A folder whose manifest and digests hold, but with a word for a model; `name` makes the digest."""
    bundle = folder / name
    bundle.mkdir(parents=True)
    (bundle / "flat.txt").write_text(name)
    manifest = Manifest(files={"flat.txt": hashlib.sha256(name.encode()).hexdigest()})
    digest = hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()
    signed = msgspec.structs.replace(manifest, digest=digest)
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(signed))
    return bundle
