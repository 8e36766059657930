"""Distribution statistics: what was chosen, offered, taken and sent away, as sums that merge.

`Statistics` is a commutative monoid: the identity is `Statistics()`, `fold` takes one event in, `merge` joins
two. What the aggregator gathers from customers and what one epoch of training gathers from its examples are
the same type. Only counts are stored: ratios are made on reading, so that no merge can lose a side. They are
whole until a reader lets them `decay` with their age, which commutes with `merge`.
"""

import hashlib
from collections.abc import Container, Iterable, Sequence
from itertools import repeat

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.counts import Pairs, add, add_pairs, log_lift, spread
from topics.errors import BadBundle
from topics.events import Action, Decision, Outcome, OutcomeKind, SkillCounts, SkillStatistics, StatisticsFold

MILLION = 1_000_000
NOTHING = SkillStatistics()
FEATURES = (
    "log_lift_chosen",
    "log_lift_accepted",
    "log_lift_instead",
    "acceptance",
    "log_lift_passed",
    "linked",
)
"""Columns of `Statistics.features`; each is 0 where nothing is known of a skill.

log_lift_chosen     ln((first + 1) / (mean + 1)), mean over all skills; first: chosen, or first of a question
log_lift_accepted   the same of accepted and enabled
log_lift_instead    the same of the times it was taken in place of another
acceptance          (accepted + enabled + 1) / (outcomes + 2), spread from 0…1 to −1…1
log_lift_passed     as the first, of the times it was linked and not first: how often it is linked at all
linked              (first with a link + 1) / (first + 2), spread likewise
"""

OF_SKILLS = slice(0, 4)  # what they say of a skill whoever has linked it
OF_LINKS = slice(3, 6)  # what they say of a link to it

_FIRST = ("chosen", "asked")
_TOOK = (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED)
_TOOK_ANOTHER = (*_TOOK, OutcomeKind.CORRECTED)


class Statistics(Struct, kw_only=True, omit_defaults=True):
    """Counts of each skill on either side of the link, of pairs chosen → taken instead, and totals."""

    decisions: int | float = 0
    outcomes: int | float = 0
    none_chosen: int | float = 0
    skills: dict[str, SkillStatistics] = {}
    taken_instead: Pairs = {}

    def fold(self, decision: Decision, outcome: Outcome | None = None) -> "Statistics":
        """Takes in a decision, or the outcome joined to `decision` (folded before, on its own); returns self.

        Accepted and enabled count for the skill taken; rejected, abandoned and corrected for the skill chosen.
        A taken skill that is not the chosen one counts as a pair too. Where no skill was chosen, a rejected,
        abandoned or corrected outcome shows in the totals only.

        >>> chosen = Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.LAUNCH,
        ...                   skill_id="rides:acme", linked=("rides:acme",))
        >>> outcome = Outcome(event_time_ms=9, utterance_id="u", customer_id="c",
        ...                   outcome=OutcomeKind.CORRECTED, skill_id="rides:bolt")
        >>> statistics = Statistics().fold(chosen).fold(chosen, outcome)
        >>> statistics.skills["rides:acme"].linked.chosen, statistics.skills["rides:acme"].linked.corrected
        (1, 1)
        >>> statistics.taken_instead
        {'rides:acme': {'rides:bolt': 1}}
        """
        if outcome is not None:
            chosen, linked, expected = decision.skill_id, linked_skills(decision), expected_millionths(decision)
            return self.fold_outcome(chosen, linked, outcome.outcome, outcome.skill_id, expected)
        self._fold_decision(decision)
        return self

    def fold_outcome(
        self,
        chosen: str | None,
        linked: Container[str],
        kind: OutcomeKind,
        taken: str | None,
        expected: int = 0,
    ) -> "Statistics":
        """Takes in an outcome of a decision of which only the choice, the links, and the probability of the choice
        (`expected`, in millionths) were kept; returns self."""
        self.outcomes += 1
        if chosen is not None:
            own = self._side(chosen, chosen in linked)
            own.answered += 1
            own.kept += kind in _TOOK and taken in (None, chosen)
            own.expected_millionths += expected
        subject = (taken or chosen) if kind in _TOOK else chosen
        if subject is not None:
            counts = self._side(subject, subject in linked)
            setattr(counts, kind.value, getattr(counts, kind.value) + 1)
        if chosen and taken and taken != chosen and kind in _TOOK_ANOTHER:
            pairs = self.taken_instead.setdefault(chosen, {})
            pairs[taken] = pairs.get(taken, 0) + 1
        return self

    def fold_classifications(
        self,
        skill_ids: Sequence[str],
        chosen: NDArray[np.integer],
        linked: NDArray[np.integer] | None = None,
        passed: NDArray[np.integer] | None = None,
        none: int = 0,
    ) -> "Statistics":
        """Takes in a training epoch's own classifications; returns self.

        `chosen` (skills,) counts how often each skill came first, `linked` (skills,) how many of these times
        it was among the linked ones, `passed` (skills,) how often it was linked and did not come first (default
        never), `none` how often no skill came first. Each classification counts as a decision.
        """
        with_link = np.zeros_like(chosen) if linked is None else linked
        passed_by = np.zeros_like(chosen) if passed is None else passed
        if np.any(with_link > chosen) or np.any(with_link < 0):
            raise ValueError("linked counts are a part of the chosen ones: between 0 and chosen for each skill")
        self.decisions += int(chosen.sum()) + none
        self.none_chosen += none
        for row in np.flatnonzero(chosen + passed_by).tolist():
            counts = self._of(skill_ids[row])
            counts.linked.chosen += int(with_link[row])
            counts.linked.passed += int(passed_by[row])
            counts.unlinked.chosen += int(chosen[row] - with_link[row])
        return self

    def merge(self, other: "Statistics") -> "Statistics":
        """Both together, as a new value; the order never matters."""
        return merge_all((self, other))

    def share_chosen(self, skill_ids: Sequence[str]) -> NDArray[np.float32]:
        """(skills,): each skill's share of all choices; zeros where nothing was chosen."""
        total = sum(both.linked.chosen + both.unlinked.chosen for both in self.skills.values())
        return (self._column(skill_ids, "chosen") / max(total, 1)).astype(np.float32)

    def kept(self, skill_ids: Sequence[str]) -> NDArray[np.float64]:
        """(skills,): how often each was kept where it was opened."""
        return self._column(skill_ids, "kept")

    def expected(self, skill_ids: Sequence[str]) -> NDArray[np.float64]:
        """(skills,): how often each was to be kept there, by the probabilities that decisions gave it."""
        return self._column(skill_ids, "expected_millionths") / MILLION

    def link_counts(self, skill_ids: Sequence[str]) -> NDArray[np.float64]:
        """(skills, 3): times put first, launched or asked about; first with a link; linked but passed by."""
        columns = (
            self._column(skill_ids, *_FIRST),
            self._column(skill_ids, *_FIRST, sides=("linked",)),
            self._column(skill_ids, "passed"),
        )
        return np.stack(columns, axis=1)

    def features(self, skill_ids: Sequence[str]) -> NDArray[np.float32]:
        """(skills, F): the columns of `FEATURES`. Lifts compare with the mean of `skill_ids`, so pass all."""
        taken = self._column(skill_ids, "accepted", "enabled")
        refused = self._column(skill_ids, "rejected", "abandoned", "corrected")
        first = self._column(skill_ids, *_FIRST)
        linked = self._column(skill_ids, *_FIRST, sides=("linked",))
        columns = (
            log_lift(first),
            log_lift(taken),
            log_lift(self._instead(skill_ids)),
            spread(taken, taken + refused),
            log_lift(self._column(skill_ids, "passed")),
            spread(linked, first),
        )
        return np.stack(columns, axis=1).astype(np.float32)  # (S, F)

    def version(self) -> str:
        """The first 12 hex digits of the content's SHA-256; equal counts, equal version. "" for nothing."""
        canonical = merge_all((self,))
        if canonical == Statistics():
            return ""
        return hashlib.sha256(msgspec.json.encode(canonical, order="deterministic")).hexdigest()[:12]

    def to_json(self) -> bytes:
        """The counts as JSON, the same bytes for the same counts."""
        return msgspec.json.encode(merge_all((self,)), order="deterministic")

    @staticmethod
    def from_json(data: bytes) -> "Statistics":
        """Reads `to_json`'s bytes. Raises BadBundle."""
        try:
            return msgspec.json.decode(data, type=Statistics)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadBundle(f"the statistics cannot be read: {error}") from error

    def to_fold(
        self, bucket: str, partition: int, offsets: dict[str, int], event_time_ms: int, minutes: int = 60
    ) -> StatisticsFold:
        """The event that carries these counts; it shares them, so encode it before the next fold."""
        return StatisticsFold(
            event_time_ms=event_time_ms,
            bucket=bucket,
            partition=partition,
            offsets=offsets,
            decisions=self.decisions,
            outcomes=self.outcomes,
            none_chosen=self.none_chosen,
            skills=self.skills,
            taken_instead=self.taken_instead,
            minutes=minutes,
        )

    @staticmethod
    def from_fold(fold: StatisticsFold) -> "Statistics":
        """The counts that an event carries."""
        return merge_all((_shared(fold),))

    def _fold_decision(self, decision: Decision) -> None:
        linked = linked_skills(decision)
        self.decisions += 1
        self.none_chosen += decision.action is Action.NONE
        for place, candidate in enumerate(decision.candidates):
            both = self.skills.get(candidate.skill_id) or self._of(candidate.skill_id)
            counts = both.linked if candidate.skill_id in linked else both.unlinked
            if len(counts.offered) <= place:
                counts.offered += [0] * (place + 1 - len(counts.offered))
            counts.offered[place] += 1
            counts.mass_millionths += round(candidate.probability * MILLION)
        asked = decision.candidates[0].skill_id if _asks(decision) else None
        for skill_id in linked:
            if skill_id not in (decision.skill_id, asked):
                self._of(skill_id).linked.passed += 1
        if decision.skill_id is not None:
            self._side(decision.skill_id, decision.skill_id in linked).chosen += 1
        if asked is not None:
            self._side(asked, asked in linked).asked += 1

    def _of(self, skill_id: str) -> SkillStatistics:
        found = self.skills.get(skill_id)
        if found is None:
            found = self.skills[skill_id] = SkillStatistics()
        return found

    def _side(self, skill_id: str, linked: bool) -> SkillCounts:
        both = self._of(skill_id)
        return both.linked if linked else both.unlinked

    def _column(
        self, skill_ids: Sequence[str], *names: str, sides: tuple[str, ...] = ("linked", "unlinked")
    ) -> NDArray[np.float64]:
        """(skills,): the sum of the named counts; exact up to 2**53."""
        sums = {
            skill_id: sum(getattr(getattr(both, side), name) for side in sides for name in names)
            for skill_id, both in self.skills.items()
        }
        return np.array([sums.get(skill_id, 0) for skill_id in skill_ids], dtype=np.float64)

    def _instead(self, skill_ids: Sequence[str]) -> NDArray[np.float64]:
        sums: dict[str, int | float] = {}
        for taken in self.taken_instead.values():
            for skill_id, count in taken.items():
                sums[skill_id] = sums.get(skill_id, 0) + count
        return np.array([sums.get(skill_id, 0) for skill_id in skill_ids], dtype=np.float64)


def _asks(decision: Decision) -> bool:
    return decision.action is Action.DISCOVER and decision.skill_id is None and bool(decision.candidates)


def linked_skills(decision: Decision) -> frozenset[str]:
    """What the customer had linked as far as the decision knows: its `linked`, and candidates marked so."""
    return frozenset(decision.linked).union(c.skill_id for c in decision.candidates if c.linked)


def expected_millionths(decision: Decision) -> int:
    """The probability that a decision gave to what it chose, in millionths; 0 where it chose none."""
    found = (one.probability for one in decision.candidates if one.skill_id == decision.skill_id)
    return round(next(found, 0.0) * MILLION)


def merge_all(parts: Iterable[Statistics]) -> Statistics:
    """All of `parts` together, as a new value without empty cells. Of nothing: the identity."""
    return merge_weighed(zip(parts, repeat(1)))


def merge_weighed(parts: Iterable[tuple[Statistics, float]]) -> Statistics:
    """`merge_all` in which each part's counts count `weight` times, as pairs of both."""
    whole = Statistics()
    for part, weight in parts:
        whole.decisions += part.decisions * weight
        whole.outcomes += part.outcomes * weight
        whole.none_chosen += part.none_chosen * weight
        for skill_id, both in part.skills.items():
            if both != NOTHING:
                sums = whole._of(skill_id)
                add(sums.linked, both.linked, weight)
                add(sums.unlinked, both.unlinked, weight)
        add_pairs(whole.taken_instead, part.taken_instead, weight)
    return whole


def decay(statistics: Statistics, half_lives: float) -> Statistics:
    """The counts after so many half-lives (from 0), as a new value.

    >>> decay(Statistics(decisions=8), 2).decisions
    2.0
    """
    return merge_weighed([(statistics, weight_after(half_lives))])


def weight_after(half_lives: float) -> float:
    """What is left of 1 after so many half-lives; a whole 1 after none, so that counts stay whole.

    >>> weight_after(0), weight_after(1)
    (1, 0.5)
    """
    return 0.5**half_lives if half_lives else 1


def _shared(fold: StatisticsFold) -> Statistics:
    return Statistics(
        decisions=fold.decisions,
        outcomes=fold.outcomes,
        none_chosen=fold.none_chosen,
        skills=fold.skills,
        taken_instead=fold.taken_instead,
    )
