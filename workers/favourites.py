"""What the statistics tell at a glance: the skills chosen most often, and what customers took in their place."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.statistics import Statistics
from topics.events import SkillStatistics

MOST = 10  # rows of a table
Names = Mapping[str, str]


@dataclass(frozen=True)
class Chosen:
    """One skill as the statistics know it.

    `share` of all decisions; `linked`: the share of its choices that were made with a link. `taken` and `outcomes`
    are counts of what customers did with it. `places`: shares of the times it was offered at the first place, at
    the second or third, and later.
    """

    skill_id: str
    name: str
    chosen: int | float
    share: float
    linked: float
    taken: int | float
    outcomes: int | float
    places: tuple[float, float, float] | None

    @property
    def acceptance(self) -> float | None:
        return self.taken / self.outcomes if self.outcomes else None


def most_chosen(statistics: Statistics, names: Names, most: int = MOST) -> list[Chosen]:
    """The skills chosen most often, most often first; equals by their ids."""
    counted = [(skill_id, both, _sum(both, "chosen")) for skill_id, both in statistics.skills.items()]
    ranked = sorted(counted, key=lambda one: (-one[2], one[0]))
    return [
        Chosen(
            skill_id=skill_id,
            name=names.get(skill_id, skill_id),
            chosen=chosen,
            share=chosen / max(statistics.decisions, 1),
            linked=both.linked.chosen / chosen,
            taken=_sum(both, "accepted", "enabled"),
            outcomes=_sum(both, "accepted", "enabled", "rejected", "abandoned", "corrected"),
            places=_places(both),
        )
        for skill_id, both, chosen in ranked[:most]
        if chosen
    ]


def taken_instead(statistics: Statistics, names: Names, most: int = MOST) -> list[tuple[int | float, str, str]]:
    """The commonest pairs as (times, name of the chosen skill, name of the one taken instead)."""
    pairs = [
        (count, names.get(chosen, chosen), names.get(taken, taken))
        for chosen, others in statistics.taken_instead.items()
        for taken, count in others.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:most]


def _places(both: SkillStatistics) -> tuple[float, float, float] | None:
    offered = [both.linked.offered, both.unlinked.offered]
    total = sum(map(sum, offered))
    if not total:
        return None
    first, to_third = (sum(sum(side[:places]) for side in offered) for places in (1, 3))
    return first / total, (to_third - first) / total, 1 - to_third / total


def _sum(both: SkillStatistics, *names: str) -> int | float:
    found: int | float = sum(getattr(side, name) for side in (both.linked, both.unlinked) for name in names)
    return found
