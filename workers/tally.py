"""What a replay finds: equal decisions, changed ones, and measures where outcomes tell what was meant."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.selector import Ranking
from topics.events import Action, Utterance
from workers.deciding import Selecting
from workers.joins import Recorded, Verdict, first_choice
from workers.stretch import Stretch

RESAMPLES = 2_000  # of the bootstrap: the ends of its 95 % interval are steady to a few thousandths from here
Choice = tuple[Action, str | None]


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with the bootstrap's 95 % interval; share and interval are None where `of` is 0."""

    hits: int
    of: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gain:
    """A difference of two shares with the bootstrap's 95 % interval."""

    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """An utterance that is decided otherwise: `launch rides:acorn` before, `none` after. `meant`, if known."""

    utterance_id: str
    text: str
    before: str
    after: str
    meant: str


@dataclass(frozen=True)
class ReleaseReport:
    """One release over the stretch, among the skills of `catalogue` by the costs of `policy` (see
    `topics.events.Decision`).

    `equal`: same action and skill as recorded. `equal_own`: the same among those that this very release had
    decided among the same skills by the same costs; anything under 1 there is a fault. `elsewhere`: how many it
    had decided among other skills, which have joined, changed or left since or before, by other costs, or with
    live statistics that are gone. `top1`: the first skill is the meant one, among the judged.
    """

    release: str
    equal: Share
    equal_own: Share
    top1: Share
    catalogue: str = ""
    policy: str = ""
    elsewhere: int = 0


@dataclass(frozen=True)
class Report:
    """What a replay found. `gain` is top-1 of the first release minus that of the second, paired. `live_missing`:
    decisions whose live statistics are gone from their topic, so that they could not be repeated."""

    stretch: Stretch
    utterances: int
    malformed: int
    decided_by: dict[str, int]
    judged: Share
    releases: list[ReleaseReport]
    between: Share | None
    gain: Gain | None
    changed: int
    changes: list[Change]
    seconds: float
    utterances_per_s: float
    live_missing: int = 0


@dataclass
class Counted:
    """Of one release: hits so far."""

    equal: int = 0
    elsewhere: int = 0
    own: int = 0
    equal_own: int = 0
    right: int = 0


class Tally:
    """Counts, utterance by utterance; keeps no more than the first changes."""

    def __init__(self, selectors: Sequence[Selecting], show: int) -> None:
        self.names = [(selector.release, selector.catalogue, selector.policy) for selector in selectors]
        self.counted = [Counted() for _ in selectors]
        self.utterances = self.recorded = self.judged = self.changed = self.compared = self.live_missing = 0
        self.decided_by: Counter[str] = Counter()
        self.pairs: Counter[tuple[bool, ...]] = Counter()  # (first right, second right) -> judged utterances
        self.changes: list[Change] = []
        self._show = show

    def take(
        self,
        utterance: Utterance,
        ranked: Sequence[Ranking],
        recorded: Recorded | None,
        verdict: Verdict | None,
        lacks_live: bool = False,
    ) -> None:
        """Counts one utterance, as each release ranked it, beside what was recorded and what was meant.

        `lacks_live`: it was decided without the live statistics that it was recorded with.
        """
        self.utterances += 1
        self.live_missing += lacks_live
        if recorded is not None:
            self._compare_with(recorded, ranked, lacks_live)
        if verdict is not None:
            self._judge(verdict, ranked)
        self._note_change(utterance, recorded, ranked, verdict)

    def _compare_with(self, recorded: Recorded, ranked: Sequence[Ranking], lacks_live: bool) -> None:
        self.recorded += 1
        self.decided_by[recorded.release] += 1
        for name, counted, ranking in zip(self.names, self.counted, ranked, strict=True):
            equal = _choice(ranking) == (recorded.action, recorded.skill_id)
            own = name == (recorded.release, recorded.catalogue, recorded.policy) and not lacks_live
            counted.equal += equal
            counted.own += own
            counted.equal_own += equal and own
            counted.elsewhere += name[0] == recorded.release and not own

    def _judge(self, verdict: Verdict, ranked: Sequence[Ranking]) -> None:
        self.judged += 1
        right = tuple(_first(ranking) == verdict.skill_id for ranking in ranked)
        self.pairs[right] += 1
        for counted, hit in zip(self.counted, right, strict=True):
            counted.right += hit

    def _note_change(
        self,
        utterance: Utterance,
        recorded: Recorded | None,
        ranked: Sequence[Ranking],
        verdict: Verdict | None,
    ) -> None:
        if len(ranked) > 1:
            before = _choice(ranked[1])
        elif recorded is not None:
            before = recorded.action, recorded.skill_id
        else:
            return
        self.compared += 1
        after = _choice(ranked[0])
        if before == after:
            return
        self.changed += 1
        if len(self.changes) < self._show:
            meant = "" if verdict is None else verdict.skill_id or "nobody"
            self.changes.append(Change(utterance.utterance_id, utterance.text, _told(before), _told(after), meant))

    def report(self, stretch: Stretch, malformed: int, seconds: float) -> Report:
        two = len(self.names) > 1
        return Report(
            stretch=stretch,
            utterances=self.utterances,
            malformed=malformed,
            decided_by=dict(self.decided_by),
            judged=share_of(self.judged, self.utterances),
            releases=[self._release(*pair) for pair in zip(self.names, self.counted, strict=True)],
            between=share_of(self.compared - self.changed, self.compared) if two else None,
            gain=gain_of(self.pairs) if two and self.judged else None,
            changed=self.changed,
            changes=self.changes,
            seconds=round(seconds, 3),
            utterances_per_s=round(self.utterances / max(seconds, 1e-9), 1),
            live_missing=self.live_missing,
        )

    def _release(self, name: tuple[str, str, str], counted: Counted) -> ReleaseReport:
        release, catalogue, policy = name
        return ReleaseReport(
            release=release,
            equal=share_of(counted.equal, self.recorded),
            equal_own=share_of(counted.equal_own, counted.own),
            top1=share_of(counted.right, self.judged),
            catalogue=catalogue,
            policy=policy,
            elsewhere=counted.elsewhere,
        )


def share_of(hits: int, of: int) -> Share:
    """The share with its bootstrap interval.

    To draw `of` answers with replacement from `hits` ones and else zeros, and to count the ones, is to draw
    from a binomial distribution: so that is what is drawn, and memory does not grow with `of`.

    >>> share_of(0, 0)
    Share(hits=0, of=0, share=None, low=None, high=None)
    """
    if not of:
        return Share(0, 0, None, None, None)
    drawn = np.random.default_rng(0).binomial(of, hits / of, RESAMPLES) / of
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Share(hits, of, hits / of, float(low), float(high))


def gain_of(pairs: Counter[tuple[bool, ...]]) -> Gain:
    """The paired bootstrap of top-1's difference over (first right, second right) -> count; not of nothing."""
    of = pairs.total()
    better, worse = pairs[True, False], pairs[False, True]
    drawn = np.random.default_rng(0).multinomial(
        of, [better / of, worse / of, 1 - (better + worse) / of], RESAMPLES
    )
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / of, (0.025, 0.975))
    return Gain((better - worse) / of, float(low), float(high))


def _choice(ranking: Ranking) -> Choice:
    return ranking.action, ranking.skill_id


def _first(ranking: Ranking) -> str | None:
    listed = ranking.candidates[0].skill_id if ranking.candidates else None
    return first_choice(ranking.action, ranking.skill_id, listed)


def _told(choice: Choice) -> str:
    action, skill_id = choice
    return action.value if skill_id is None else f"{action.value} {skill_id}"
