"""Stand-ins for the parts that a worker's test is not about: a selector without a model, and bundles for it."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from model.bundle import Manifest, read_manifest
from model.fulfilment import Asks, Question
from model.selector import Ranking, Request
from topics.events import Action, Candidate, SkillCard

POISON = "poison"  # a text with this word makes the flat selector raise
SLOW = "slow"  # and this one makes it take a tenth of a second


class FlatSelector:
    """Ranks what is linked, in order, with equal scores; says `none` where nothing is linked.

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

    def take(self, cards: Sequence[SkillCard], gone: Sequence[str]) -> int:
        self._endpoints |= {card.skill_id: card.endpoint for card in cards if card.endpoint}
        return 0

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
        return [_ranking(request) for request in requests]


def _ranking(request: Request) -> Ranking:
    if POISON in request.text:
        raise ValueError(f"cannot rank {request.text!r}")
    if SLOW in request.text:
        time.sleep(0.02)
    share = 1 / (len(request.linked) + 1)
    return Ranking(
        action=Action.LAUNCH if request.linked else Action.NONE,
        skill_id=request.linked[0] if request.linked else None,
        candidates=tuple(
            Candidate(skill_id=skill, score=0.0, probability=share, linked=True) for skill in request.linked
        ),
        none_probability=share,
        propensity=1.0,
        rule="best",
        shortlist_none_rank=0,
    )


def load_flat(bundle: Path, asks: Asks | None = None) -> FlatSelector:
    """A flat selector under the release id of `bundle`, which `flat_bundle` made."""
    return FlatSelector(read_manifest(bundle).release, asks)


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
