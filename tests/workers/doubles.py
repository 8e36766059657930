"""Stand-ins for the parts that a worker's test is not about: a selector without a model, and bundles for it."""

import hashlib
import json
import time
from pathlib import Path

from model.selector import Ranking, Request
from topics.events import Action, Candidate

POISON = "poison"  # a text with this word makes the flat selector raise
SLOW = "slow"  # and this one makes it take a tenth of a second


class FlatSelector:
    """Ranks what is linked, in order, with equal scores; says `none` where nothing is linked."""

    statistics = ""

    def __init__(self, release: str = "flat") -> None:
        self.release = release

    def decide(self, requests: list[Request]) -> list[Ranking]:
        return [_ranking(request) for request in requests]


def _ranking(request: Request) -> Ranking:
    if POISON in request.text:
        raise ValueError(f"cannot rank {request.text!r}")
    if SLOW in request.text:
        time.sleep(0.1)
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
    )


def load_flat(bundle: Path) -> FlatSelector:
    """A flat selector under the release id of `bundle`, which `flat_bundle` made."""
    return FlatSelector(json.loads((bundle / "manifest.json").read_text())["digest"][:12])


def flat_bundle(folder: Path, name: str) -> Path:
    """A folder with a manifest whose digest depends on `name` alone."""
    bundle = folder / name
    bundle.mkdir(parents=True)
    digest = hashlib.sha256(name.encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps({"digest": digest}))
    return bundle
