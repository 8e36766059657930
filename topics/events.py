"""The events on the wire, as msgspec structs. Imports msgspec and the standard library only.

Every event carries `schema` (an integer) and `event_time_ms` (epoch milliseconds). A schema grows only by
fields with defaults, so that old and new read each other; unknown fields are skipped, missing or wrong ones
are an error (see `topics.codec`). Bounds stand here, beside the field that they bound.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

SCHEMA = 1
MAX_EVENT_BYTES = 256 * 1024  # above the largest honest event (500 links of 200 characters), far below 1 MB
MAX_FOLD_BYTES = 8 * 1024 * 1024  # a fold of one hour in which 50,000 skills were active
MAX_DEAD_LETTER_BYTES = 2 * 1024 * 1024  # a bad value of 1 MB grows by a third in base64
MAX_TEXT_CHARS = 4_000
MAX_LINKS = 500
MAX_CANDIDATES = 100
MAX_PHRASES = 2_000
MAX_TIME_MS = 253_402_300_799_999  # the last millisecond of the year 9999

Schema = Annotated[int, Meta(ge=1)]
TimeMs = Annotated[int, Meta(ge=0, le=MAX_TIME_MS)]
Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
SkillId = Id
Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS, pattern=r"\S")]
Line = Annotated[str, Meta(max_length=1_000)]
Score = Annotated[float, Meta(ge=-1e30, le=1e30)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Weight = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
"""A count that is whole where it travels, and may be a fraction where a model has let it decay with age."""

SkillIds = Annotated[tuple[SkillId, ...], Meta(max_length=MAX_LINKS)]


def _refuse_nan(event: Struct, *names: str) -> None:
    """JSON has no NaN: a score that is none would travel as null and break its reader."""
    for name in names:
        if not math.isfinite(number := getattr(event, name)):
            raise ValueError(f"{name} {number} is not a finite number")


def _refuse_nan_in(numbers: Mapping[str, float], kind: str) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{kind} {name} {number} is not a finite number")


class Action(StrEnum):
    """What the device does with a decision."""

    LAUNCH = "launch"  # open a linked skill
    ENABLE = "enable"  # suggest one good skill that is not linked
    DISCOVER = "discover"  # ask which of several near-equals
    NONE = "none"  # no skill should answer


class OutcomeKind(StrEnum):
    """What the customer then did."""

    ACCEPTED = "accepted"  # launched and used
    REJECTED = "rejected"  # sent away
    ABANDONED = "abandoned"  # let go without a word
    ENABLED = "enabled"  # linked after a suggestion
    CORRECTED = "corrected"  # named another skill: `skill_id`


class Utterance(Struct, frozen=True, kw_only=True):
    """A request that names no skill. Key: customer_id. `linked`, if given, overrides the `links` topic."""

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    utterance_id: Id
    customer_id: Id
    text: Text
    locale: Annotated[str, Meta(max_length=35)] = "en-US"
    linked: SkillIds | None = None


class Link(Struct, frozen=True):
    """One skill that a customer has linked, and since when."""

    skill_id: SkillId
    since_ms: TimeMs = 0


class Links(Struct, frozen=True, kw_only=True):
    """All that a customer has linked now. Key: customer_id. A null value forgets the customer."""

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    customer_id: Id
    linked: Annotated[tuple[Link, ...], Meta(max_length=MAX_LINKS)]


class Slot(Struct, frozen=True, kw_only=True):
    """One value that an intent takes."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    type: Line = ""
    required: bool = False
    description: Line = ""
    values: Annotated[tuple[Line, ...], Meta(max_length=2_000)] = ()


class Intent(Struct, frozen=True, kw_only=True):
    """One thing that a skill can be asked to do."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    description: Line = ""
    slots: Annotated[tuple[Slot, ...], Meta(max_length=100)] = ()


Answer = Literal["YES", "MAYBE", "NO"]
FulfillSource = Literal["", "declared", "asked"]


class SlotAbility(Struct, frozen=True):
    """CanFulfillIntentRequest's answer for a slot."""

    can_understand: Answer = "MAYBE"
    can_fulfill: Answer = "MAYBE"


class Ability(Struct, frozen=True):
    """CanFulfillIntentRequest's answer for an intent, slot by slot."""

    answer: Answer
    slots: dict[str, SlotAbility] = {}


class SkillCard(Struct, frozen=True, kw_only=True):
    """What a skill says about itself. Key: skill_id. A null value removes the skill.

    `endpoint`: where the skill answers a CanFulfillIntentRequest, if it does.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs = 0
    skill_id: SkillId
    name: Annotated[str, Meta(min_length=1, max_length=500)]
    description: Annotated[str, Meta(max_length=20_000)] = ""
    category: Line = ""
    source: Line = ""
    reviews: Count = 0
    invocation: Line = ""
    phrases: Annotated[tuple[Text, ...], Meta(max_length=MAX_PHRASES)] = ()
    intents: Annotated[tuple[Intent, ...], Meta(max_length=500)] = ()
    can_fulfill: dict[str, Ability] = {}
    endpoint: Annotated[str, Meta(max_length=2_000)] = ""


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One skill of a decision's list, best first.

    What has its default is left out. `probability`: that it is meant; what live statistics hold against a skill is
    in its `score` alone. `intent`: what the request would be to this skill, "" where it declares none.
    `fulfill`: whether it can do that, null where nobody knows, and `fulfill_source` who says so: the skill's card
    (`declared`) or the skill itself (`asked`). `slots`: what the request fills there, name to words as said; told
    of the first candidate only.
    """

    skill_id: SkillId
    score: Score
    probability: Share
    linked: bool = False
    attention: Share | None = None
    shortlist_rank: Count = 0
    intent: Annotated[str, Meta(max_length=200)] = ""
    fulfill: Answer | None = None
    fulfill_source: FulfillSource = ""
    slots: dict[str, str] = {}


class Decision(Struct, frozen=True, kw_only=True):
    """What the router answered to one utterance. Key: customer_id.

    `linked` is what was known of the customer's links; `propensity` is the probability with which this choice
    was made and `rule` what made it; `release`, `statistics` and `catalogue` name the versions that decided, so
    that a replay can repeat it; behind a plus in `statistics` stands the version of the live ones, if any. A
    catalogue of "" is that of the release as it was published. `policy`: the costs that an operator had set in
    place of the release's, as `question=0.5,explore=0.0`; "" where none were.

    `reasons`: what each group of features adds to the first candidate's score beyond the second's; they sum to the
    difference of the two scores. `without_links`: the skill that would have come first had the customer linked
    nothing; null where that is the same.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    utterance_id: Id
    customer_id: Id
    action: Action
    skill_id: SkillId | None = None
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=MAX_CANDIDATES)] = ()
    none_probability: Share = 0.0
    linked: SkillIds = ()
    propensity: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    rule: Line = "best"
    release: Line = ""
    statistics: Line = ""
    catalogue: Line = ""
    latency_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    policy: Line = ""
    reasons: dict[str, Score] = {}
    without_links: SkillId | None = None

    def __post_init__(self) -> None:
        total = self.none_probability + self.propensity + self.latency_ms + sum(self.reasons.values())
        for candidate in self.candidates:  # one sum, as this stands on the router's hot path
            total += candidate.score + candidate.probability
        if not math.isfinite(total):
            _refuse_nan(self, "none_probability", "propensity", "latency_ms")
            _refuse_nan_in(self.reasons, "reason")
            for candidate in self.candidates:
                _refuse_nan(candidate, "score", "probability")


class Outcome(Struct, frozen=True, kw_only=True):
    """What the customer did with a decision. Key: customer_id. `skill_id` is the skill taken in the end."""

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    utterance_id: Id
    customer_id: Id
    outcome: OutcomeKind
    skill_id: SkillId | None = None

    def __post_init__(self) -> None:
        if self.outcome is OutcomeKind.CORRECTED and self.skill_id is None:
            raise ValueError("a corrected outcome names the skill that was taken, in `skill_id`")


class SkillCounts(Struct, kw_only=True, omit_defaults=True):
    """Counts of one skill, on one side of the link. `asked`: decisions that asked which of several was meant, and
    put it first; `offered[k]`: times at place k of the list; `passed`: decisions that found it linked and neither
    chose it nor put it first of a question, always 0 on the unlinked side.

    `accepted` and `enabled` are of the skill taken, whichever was chosen. Where it was chosen itself: `answered`,
    how many of these decisions had an outcome; `kept`, how many of those were accepted or enabled and no other
    skill taken; `expected_millionths`, how many were to be, by the probabilities that they gave.
    """

    chosen: Weight = 0
    passed: Weight = 0
    offered: list[Weight] = []
    accepted: Weight = 0
    rejected: Weight = 0
    abandoned: Weight = 0
    enabled: Weight = 0
    corrected: Weight = 0
    mass_millionths: Weight = 0  # probability that the model gave, in millionths, so that sums stay exact
    answered: Weight = 0
    kept: Weight = 0
    expected_millionths: Weight = 0
    asked: Weight = 0


class SkillStatistics(Struct, kw_only=True, omit_defaults=True):
    """One skill's counts, split by whether the customer had linked it."""

    linked: SkillCounts = field(default_factory=SkillCounts)
    unlinked: SkillCounts = field(default_factory=SkillCounts)


class StatisticsFold(Struct, kw_only=True):
    """One source partition's fold of one bucket of event time, `minutes` long. Key: `bucket/partition`. A null
    value says that the fold of a day or a month, written with it, has taken this one up.

    `offsets` says what the fold contains: for each source topic (without prefix) the offset after the last
    event folded. `taken_instead` counts pairs: chosen skill -> skill taken in its place. `newest_ms`: the newest
    event time among the partition's decisions so far, none counted as later than its record; buckets age by it.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    bucket: Line
    partition: Count
    offsets: dict[str, Count]
    decisions: Weight = 0
    outcomes: Weight = 0
    none_chosen: Weight = 0
    skills: dict[SkillId, SkillStatistics] = {}
    taken_instead: dict[SkillId, dict[SkillId, Weight]] = {}
    minutes: Annotated[int, Meta(ge=1)] = 60
    newest_ms: TimeMs = 0


class LiveStatistics(Struct, frozen=True, kw_only=True):
    """What the statistics say of skills between two cycles, as routers apply it. Key: `version`.

    `factors`: what is added to a skill's score, 0 for all that are not named. `offsets`: the cut that it was made
    from, as `topic/partition` -> the offset after the last event folded. `version` is made from the factors alone,
    so that routers that see the same write the same.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    version: Id
    factors: dict[SkillId, Score] = {}
    offsets: dict[str, Count] = {}

    def __post_init__(self) -> None:
        _refuse_nan_in(self.factors, "factor")


class Release(Struct, frozen=True, kw_only=True):
    """A bundle that routers may serve. Key: its release id; `current` for the one that serves, `canary` for one
    that serves a share of the customers, `shadow` for one that decides beside, unseen by customers.

    `share`: of the customers, under `canary`. `until_ms`: when a canary or a shadow ends by itself, 0 for never.
    `provenance`: what made it, as name to line.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    release: Id
    bundle: Annotated[str, Meta(min_length=1, max_length=4_000)]
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    parent: Line = ""
    measures: dict[str, float] = {}
    note: Line = ""
    share: Share = 1.0
    until_ms: TimeMs = 0
    provenance: dict[str, Line] = {}

    def __post_init__(self) -> None:
        _refuse_nan_in(self.measures, "measure")


class DeadLetter(Struct, frozen=True, kw_only=True):
    """An event that could not be taken, with its bytes (base64), where it stood, and why."""

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    reason: Line
    message: str
    topic: str
    partition: Count
    offset: Count
    source_key: bytes | None = None
    source_value: bytes | None = None


class Redriven(Struct, frozen=True, kw_only=True):
    """A dead letter that was sent back to its source topic, in the same transaction. Key: the letter's id,
    `partition:offset`.

    `letter_time_ms`: the letter's own time, as its id says nothing once the topic is made anew. `mended`: whether
    another value than the letter's was sent.
    """

    schema: Schema = SCHEMA
    event_time_ms: TimeMs
    letter_time_ms: TimeMs
    topic: str
    mended: bool = False


Event = (
    Utterance
    | Links
    | SkillCard
    | Decision
    | Outcome
    | StatisticsFold
    | LiveStatistics
    | Release
    | DeadLetter
    | Redriven
)
