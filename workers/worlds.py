"""The worlds that simulated customers live in: what the first release learns from, what is asked when, which skill
satisfies whom, and who lies. All of it is drawn by a seed from the training rows of a data folder; no dev row has
a part in it.

steady        What is asked stays what it was.
drift         Before part `parts // 2` begins, three things happen at once. 200 skills join (4 % of a small
              catalogue): until then they are in no catalogue, no link and no request; then their cards come.
              Popularity is reshuffled: the skills' numbers of requests are dealt anew among them, and rows drawn
              accordingly, with replacement. 5 % of the skills that are asked for begin to fail: opening them
              satisfies nobody, and who meant one means its substitute from then on: of the skills that do not fail
              the one with the nearest words, of its own family of rivals if it has one. Links stay as they were.
honest        As steady, but a fifth of the outcomes is noise.
adversarial   As honest, and one skill's owner fakes acceptances from 1 % of the customers
              (`workers.behaviour.Lies`). The cheater is drawn among the skills with 20 requests or more, else it
              is the one with most. Its honest launches are those in the world `honest`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import numpy as np

from model.data import Row
from model.groups import vectors_of
from model.rivals import families
from topics.errors import BadData
from topics.events import SkillCard
from workers.behaviour import Lies

CHECKED = 0.05  # share of the first rows that judges cycles, and that no release learns from
JOINING, JOINING_SHARE = 200, 0.04  # skills that join, and of a small catalogue at most this share
FAILING = 0.05
NOISE, FAKERS = 0.2, 0.01
CHEATER_ASKED = 20  # requests of a cheater: enough for its launches to be counted


@dataclass(frozen=True)
class World:
    """One world, drawn.

    `cards` are there from the beginning, `joining` come before part `changes` begins. `taught` is what the first
    release learns from, `checked` are rows of the same kind that it does not. `rows` are all requests in the order
    of asking, each with the skill that satisfies it when it is asked; part k is rows[bounds[k]:bounds[k + 1]].
    `failing`: skill -> substitute, from part `changes` on.
    """

    name: str
    cards: list[SkillCard]
    taught: list[Row]
    checked: list[Row]
    rows: list[Row]
    bounds: list[int]
    lies: Lies = field(default_factory=Lies)
    joining: list[SkillCard] = field(default_factory=list)
    failing: Mapping[str, str] = field(default_factory=dict)
    changes: int | None = None

    @cached_property
    def _strangers(self) -> frozenset[str]:
        return frozenset(card.skill_id for card in self.joining)

    @property
    def parts(self) -> int:
        return len(self.bounds) - 1

    def has_changed(self, part: int) -> bool:
        """Whether part `part` is asked after the change."""
        return self.changes is not None and part >= self.changes

    def meant(self, row: Row, part: int) -> Row | None:
        """A row of a data folder as it is in part `part`; None where its skill is not there."""
        if self.has_changed(part):
            return _fails(row, self.failing)
        return None if row.skill_id in self._strangers else row


def draw(name: str, cards: Sequence[SkillCard], rows: Sequence[Row], parts: int, first: float, seed: int) -> World:
    """The world `name`. The share `first` of the texts is taught, the others are asked in `parts` parts of equal
    shares; a text is in one of these only. Raises BadData where one of these is empty, KeyError for another name.
    """
    make = WORLDS[name]
    taught, asked = _divided(rows, parts, first, seed)
    checked = [row for row in taught if _place(f"checked:{row.text}", seed) < CHECKED]
    known = [row for row in taught if _place(f"checked:{row.text}", seed) >= CHECKED]
    if not (checked and known and all(asked)):
        counted = [len(known), len(checked), *map(len, asked)]
        raise BadData(f"{len(rows)} rows are too few for a world: taught, checked and parts get {counted} of them")
    world = World(name, list(cards), known, checked, [], [])
    return make(world, asked, seed)


def _steady(world: World, asked: list[list[Row]], seed: int) -> World:
    return _with_rows(world, asked)


def _honest(world: World, asked: list[list[Row]], seed: int) -> World:
    counts = Counter(row.skill_id for part in asked for row in part if row.skill_id is not None)
    often = sorted(skill for skill, count in counts.items() if count >= CHEATER_ASKED)
    often = often or [counts.most_common(1)[0][0]]
    cheater = often[int(np.random.default_rng([seed, 1]).integers(len(often)))]
    return replace(_with_rows(world, asked), lies=Lies(noise=NOISE, cheater=cheater))


def _adversarial(world: World, asked: list[list[Row]], seed: int) -> World:
    honest = _honest(world, asked, seed)
    return replace(honest, lies=replace(honest.lies, fakers=FAKERS))


def _drift(world: World, asked: list[list[Row]], seed: int) -> World:
    generator = np.random.default_rng([seed, 2])
    changes = len(asked) // 2
    joining = _joining(world, asked, generator)
    before = [_without(part, joining) for part in asked[:changes]]
    early = [row for part in asked[:changes] for row in part if row.skill_id in joining]
    sizes = [len(part) for part in asked[changes:]]
    after = _reshuffled([*early, *(row for part in asked[changes:] for row in part)], sum(sizes), generator)
    failing = _failing(world, after, joining, generator)
    after = [_fails(row, failing) for row in after]
    ends = np.cumsum(sizes).tolist()
    late = [after[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    taught, checked = (_without(part, joining) for part in (world.taught, world.checked))
    world = replace(
        world,
        cards=[card for card in world.cards if card.skill_id not in joining],
        joining=[card for card in world.cards if card.skill_id in joining],
        taught=taught,
        checked=checked,
        failing=failing,
        changes=changes,
    )
    return _with_rows(world, [*before, *late])


WORLDS: dict[str, Callable[[World, list[list[Row]], int], World]] = {
    "steady": _steady,
    "drift": _drift,
    "honest": _honest,
    "adversarial": _adversarial,
}


def _with_rows(world: World, asked: Sequence[Sequence[Row]]) -> World:
    bounds = np.cumsum([0, *map(len, asked)]).tolist()
    return replace(world, rows=[row for part in asked for row in part], bounds=bounds)


def _divided(rows: Sequence[Row], parts: int, first: float, seed: int) -> tuple[list[Row], list[list[Row]]]:
    """What is taught, and the parts, each in an order that the seed gives."""
    taught: list[Row] = []
    asked: list[list[Row]] = [[] for _ in range(parts)]
    for at in np.random.default_rng(seed).permutation(len(rows)).tolist():
        place = _place(rows[at].text, seed)
        if place < first:
            taught.append(rows[at])
        else:
            asked[min(int((place - first) / (1 - first) * parts), parts - 1)].append(rows[at])
    return taught, asked


def _place(text: str, seed: int) -> float:
    """Where a text lies in [0, 1), by its hash."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:4], "big") / 2**32


def _joining(world: World, asked: list[list[Row]], generator: np.random.Generator) -> set[str]:
    """Skills that join: of those that are asked for."""
    there = sorted({row.skill_id for part in asked for row in part if row.skill_id is not None})
    count = max(1, min(JOINING, round(JOINING_SHARE * len(world.cards))))
    return set(generator.permutation(there)[:count].tolist())


def _without(rows: Iterable[Row], skills: set[str]) -> list[Row]:
    """The rows that mean none of the skills, with no link to them."""
    found = []
    for row in rows:
        if row.skill_id not in skills:
            kept = tuple(skill for skill in row.linked or () if skill not in skills)
            found.append(row if row.linked is None else msgspec.structs.replace(row, linked=kept))
    return found


def _reshuffled(rows: Sequence[Row], count: int, generator: np.random.Generator) -> list[Row]:
    """`count` rows drawn with replacement, where the skills' numbers of rows are dealt anew among the skills;
    as many as before mean no skill."""
    mine: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        mine[row.skill_id].append(row)
    skills = sorted(skill for skill in mine if skill is not None)
    sizes = generator.permutation([len(mine[skill]) for skill in skills])
    everyone: list[str | None] = [*skills, None]
    weights = np.asarray([*sizes, len(mine[None])], dtype=np.float64)
    drawn = generator.choice(len(everyone), count, p=weights / weights.sum())
    which = generator.random(count)
    found = []
    for at, place in zip(drawn.tolist(), which.tolist(), strict=True):
        own = mine[everyone[at]]
        found.append(own[int(place * len(own))])
    return found


def _failing(
    world: World, rows: Sequence[Row], joining: set[str], generator: np.random.Generator
) -> dict[str, str]:
    """Skills that begin to fail, of those that are asked for and have not just joined, with their substitutes."""
    there = sorted({row.skill_id for row in rows if row.skill_id is not None} - joining)
    failing = set(generator.permutation(there)[: max(1, round(FAILING * len(there)))].tolist())
    return _substitutes(world, failing, joining)


def _substitutes(world: World, failing: set[str], joining: set[str]) -> dict[str, str]:
    """For each failing skill the nearest that does not fail, of its own family if it has one there."""
    taught = [row for row in world.taught if row.skill_id is not None]
    vectors = vectors_of(taught, world.cards)  # (S, W)
    ids = [card.skill_id for card in world.cards]
    at = {skill: row for row, skill in enumerate(ids)}
    sound = [skill for skill in ids if skill not in failing and skill not in joining]
    if not sound:
        raise BadData(f"of {len(ids)} skills none is left that could stand in for one that fails")
    family = {skill: members for members in families(world.cards).values() for skill in members}
    found = {}
    for skill in sorted(failing):
        own = [other for other in family.get(skill, ()) if other not in failing and other not in joining]
        others = own or sound
        nearness = vectors[[at[other] for other in others]] @ vectors[at[skill]]
        found[skill] = others[int(nearness.argmax())]
    return found


def _fails(row: Row, failing: Mapping[str, str]) -> Row:
    if row.skill_id is None or row.skill_id not in failing:
        return row
    return msgspec.structs.replace(row, skill_id=failing[row.skill_id])
