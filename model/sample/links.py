"""Simulates which skills the customer behind each row has linked.

A customer links 1 + Poisson(3) skills, at most 12, popular ones more often. Whether the intended one is among
them depends on its family's share. In 30 % of the rows one of the others is a rival of the intended skill; all
the rest are of other families, so that the 30 % is exact.
"""

import math
from collections.abc import Mapping
from random import Random

from msgspec import Struct

from model.sample.phrases import pick

MAX_LINKS = 12
MEAN_OTHER_LINKS = 3.0
RIVAL_SHARE = 0.3


class Market(Struct, frozen=True):
    """Who can be linked: a weight for each skill (how popular it is) and a link share for each family."""

    popularity: Mapping[str, float]
    link_share: Mapping[str, float]

    def weigh(self, *, family: str, same: bool) -> dict[str, float]:
        """The weights of the family's skills, or of all others."""
        return {skill: w for skill, w in self.popularity.items() if (family_of(skill) == family) is same}


def family_of(skill_id: str) -> str:
    """`rides:acorn` is of the family `rides`."""
    return skill_id.partition(":")[0]


def draw_links(market: Market, intended: str | None, rng: Random) -> list[str]:
    """The linked skills of one row, sorted so that their order tells nothing."""
    count = min(MAX_LINKS, 1 + _poisson(rng, MEAN_OTHER_LINKS))
    linked = _near(market, intended, rng) if intended else []
    others = market.weigh(family=family_of(intended or ""), same=False)
    while others and len(linked) < count:
        linked.append(pick(rng, list(others), list(others.values())))
        del others[linked[-1]]
    return sorted(linked)


def _near(market: Market, intended: str, rng: Random) -> list[str]:
    """The intended skill, a rival, both or neither."""
    family = family_of(intended)
    linked = [intended] if rng.random() < market.link_share[family] else []
    rivals = market.weigh(family=family, same=True)
    del rivals[intended]
    if rng.random() < RIVAL_SHARE:
        linked.append(pick(rng, list(rivals), list(rivals.values())))
    return linked


def _poisson(rng: Random, mean: float) -> int:
    """Knuth's product of uniforms (The Art of Computer Programming, volume 2, section 3.4.1)."""
    count, product, bound = 0, rng.random(), math.exp(-mean)
    while product > bound:
        count, product = count + 1, product * rng.random()
    return count
