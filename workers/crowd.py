"""Who the simulated customers are: what each asks, what was decided, what they did, and the sums of it.

Each distinct linked set is one customer, each row without links a customer of its own. Their links are what the
data says throughout: enabling a skill does not change them, so that a row asked twice is the same question twice.
"""

import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from sys import intern

import numpy as np
from msgspec.structs import replace

from model.data import Row
from topics.errors import UsageError
from topics.events import Action, Outcome, OutcomeKind, Utterance
from workers.behaviour import ABANDONED, Acted, Behaviour, Devices, Habit, Lies, mood, react
from workers.console import Advance
from workers.joins import DecisionHead

CHUNK = 500  # asked between two looks at the decisions: small beside a second's work, large beside a call's cost


@dataclass(frozen=True)
class Plan:
    """What the simulated customers of one run do.

    `run` makes ids unique: utterance n is `{run}-{n}`, a customer `sim-{run}-{row}`. Rows are asked in order
    from `start`, again from the top after the last. `rate` is utterances a second; None: as fast as decisions
    come, with at most `in_flight` undecided. Ends after `count` utterances or `duration_s`, whichever is first;
    with neither, after the last row.
    """

    run: str
    seed: int = 0
    start: int = 0
    count: int | None = None
    duration_s: float | None = None
    rate: float | None = None
    act: bool = True
    wait: bool = True
    inline_links: bool = False
    in_flight: int = 2_000
    patience_s: float = 60.0
    behaviour: Behaviour = field(default_factory=Behaviour)
    devices: Devices = field(default_factory=Devices)
    lies: Lies = field(default_factory=Lies)


@dataclass(frozen=True)
class Summary:
    """What became of a run. Shares are of decided utterances, None where there were none.

    `right_first`: the first skill (or the silence) was what the customer had in mind. `outcomes`: as they were
    told, one an utterance. `friction`: what happened, whatever was told of it, was another thing than accepted.
    `habits`: utterances whose device told twice, late, early, or of one more that never was. `duplicates`:
    decisions beyond the first of an utterance. `latency_ms`: from the utterance's event time to the decision's.
    """

    run: str
    seed: int
    customers: int
    asked: int
    decided: int
    duplicates: int
    acted: int
    seconds: float
    decisions_per_s: float
    actions: dict[str, int]
    outcomes: dict[str, int]
    right_first: float | None
    friction: float | None
    latency_ms: dict[str, float]
    habits: dict[str, int] = field(default_factory=dict)


@dataclass
class Met:
    """What customers met, by order of asking: the action, the skill opened (launched or suggested) if one was,
    and what happened, whatever was told of it; None where no decision came yet."""

    actions: list[Action | None] = field(default_factory=list)
    opened: list[str | None] = field(default_factory=list)
    happened: list[OutcomeKind | None] = field(default_factory=list)

    def expect(self, count: int = 1) -> None:
        """`count` more are asked."""
        for column in (self.actions, self.opened, self.happened):
            column.extend([None] * count)

    def note(self, place: int, action: Action, opened: str | None, happened: OutcomeKind) -> None:
        """What came of the utterance at `place`."""
        self.actions[place], self.happened[place] = action, happened
        self.opened[place] = intern(opened) if opened else None


def reaction(
    plan: Plan,
    number: int,
    customer: int,
    intended: str | None,
    decided: tuple[Action, str | None, Sequence[str]],
) -> tuple[Acted, Acted]:
    """What happens when the decision (action, skill, skills offered) of utterance `number` meets its customer,
    and what is told of it. The same whoever decided, in whatever process: so releases can be compared."""
    action, skill_id, offered = decided
    happened = ABANDONED
    if plan.devices.habit(plan.seed, number) is not Habit.EARLY:
        happened = react(action, skill_id, offered, intended, mood(plan.seed, number), plan.behaviour)
    return happened, plan.lies.told(plan.seed, number, customer, offered, happened)


def steps(rows: Sequence[Row], plan: Plan) -> int:
    """How far `advance` counts: utterances where their number is known beforehand, else seconds."""
    if plan.count is None and plan.duration_s is not None:
        return max(1, round(plan.duration_s))
    return plan.count if plan.count is not None else len(rows) - plan.start


class Crowd:
    """The customers of one run: what each asks, what was decided, what they did."""

    def __init__(self, rows: Sequence[Row], plan: Plan) -> None:
        if not 0 <= plan.start < len(rows):
            raise UsageError(f"there is no row {plan.start} to start at: there are {len(rows)}")
        self.rows, self.plan = rows, plan
        self.total = None if plan.count is None and plan.duration_s is not None else steps(rows, plan)
        self.customer_of = customers_of(rows)
        self.asked_ms = array("q")  # by order of asking
        self.seen = bytearray()  # by order of asking: 1 where its decision came
        self.latencies_ms = array("d")
        self.actions: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.met = Met()
        self.decided = self.duplicates = self.right = 0
        self._late: deque[tuple[float, Outcome]] = deque()  # when each is due, the next one first
        self.began_s = self.last_s = self.quiet_since_s = time.monotonic()

    @property
    def asked(self) -> int:
        return len(self.asked_ms)

    def row(self, number: int) -> int:
        """The index of the row that utterance `number` asks."""
        return number % len(self.rows)

    def customer_id(self, row: int) -> str:
        return f"sim-{self.plan.run}-{self.customer_of[row]}"

    def asked_rows(self) -> range:
        """The rows that may be asked."""
        if self.total is None or self.plan.start + self.total >= len(self.rows):
            return range(len(self.rows))
        return range(self.plan.start, self.plan.start + self.total)

    def due(self) -> int:
        """How many to ask now, at most CHUNK."""
        elapsed_s = time.monotonic() - self.began_s
        if self.plan.duration_s is not None and elapsed_s >= self.plan.duration_s:
            return 0
        most = CHUNK if self.total is None else min(CHUNK, self.total - self.asked)
        if self.plan.rate is not None:
            return max(0, min(most, int(elapsed_s * self.plan.rate) + 1 - self.asked))
        return min(most, self.plan.in_flight - (self.asked - self.decided)) if self.plan.wait else most

    def finished_asking(self) -> bool:
        if self.plan.duration_s is not None and time.monotonic() - self.began_s >= self.plan.duration_s:
            return True
        return self.total is not None and self.asked >= self.total

    def next_utterance(self) -> Utterance:
        """The next request; from now on its decision is awaited."""
        number = self.plan.start + self.asked
        index = self.row(number)
        row = self.rows[index]
        now_ms = time.time_ns() // 1_000_000
        if self.asked == self.decided:
            self.quiet_since_s = time.monotonic()  # nobody was waiting: patience begins here
        self.asked_ms.append(now_ms)
        self.seen.append(0)
        self.met.expect()
        return Utterance(
            event_time_ms=now_ms,
            utterance_id=f"{self.plan.run}-{number}",
            customer_id=self.customer_id(index),
            text=row.text,
            linked=row.linked if self.plan.inline_links else None,
        )

    def told_early(self, utterance: Utterance) -> Outcome | None:
        """The outcome of one who hangs up as soon as it is asked, or None."""
        number = self.plan.start + self.asked - 1
        if not (self.plan.act and self.plan.wait) or self._habit(number) is not Habit.EARLY:
            return None
        told = self.plan.lies.told(self.plan.seed, number, self.customer_of[self.row(number)], (), ABANDONED)
        return self._outcome(utterance.utterance_id, utterance.customer_id, told)

    def hear(self, head: DecisionHead) -> list[Outcome]:
        """Notes a decision; what the device tells now. Nothing where it is another's or came before."""
        run, _, digits = head.utterance_id.rpartition("-")
        if run != self.plan.run or not digits.isdigit():
            return []
        number = int(digits)
        place = number - self.plan.start
        if not 0 <= place < self.asked:
            return []
        if self.seen[place]:
            self.duplicates += 1
            return []
        told = self._note(place, head)
        return self._tell(number, head, told) if self.plan.act else []

    def is_telling(self) -> bool:
        """Whether outcomes are still to be told."""
        return bool(self._late)

    def told_late(self) -> list[Outcome]:
        """The late outcomes that are due now."""
        now_s, due = time.monotonic(), []
        while self._late and self._late[0][0] <= now_s:
            due.append(self._late.popleft()[1])
        return due

    def _note(self, place: int, head: DecisionHead) -> Acted:
        """Keeps what came of the utterance; returns what is to be told."""
        self.seen[place] = 1
        self.decided += 1
        self.last_s = self.quiet_since_s = time.monotonic()
        self.latencies_ms.append(head.event_time_ms - self.asked_ms[place])
        self.actions[head.action.value] += 1
        index = self.row(self.plan.start + place)
        intended = self.rows[index].skill_id
        self.right += head.first() == intended
        decided = (head.action, head.skill_id, [candidate.skill_id for candidate in head.candidates])
        happened, told = reaction(self.plan, self.plan.start + place, self.customer_of[index], intended, decided)
        self.met.note(place, head.action, head.skill_id, happened[0])
        return told

    def _tell(self, number: int, head: DecisionHead, told: Acted) -> list[Outcome]:
        """What the device tells now; a late outcome is put aside."""
        habit = self._habit(number)
        if habit is Habit.EARLY:
            return []  # told already
        outcome = self._outcome(head.utterance_id, head.customer_id, told)
        if habit is Habit.LATE:
            self._late.append((time.monotonic() + self.plan.devices.late_s, outcome))
            return []
        if habit is Habit.TWICE:
            return [outcome, outcome]
        if habit is Habit.UNKNOWN:
            return [outcome, replace(outcome, utterance_id=f"{outcome.utterance_id}-never-asked")]
        return [outcome]

    def _habit(self, number: int) -> Habit | None:
        return self.plan.devices.habit(self.plan.seed, number)

    def _outcome(self, utterance_id: str, customer_id: str, told: Acted) -> Outcome:
        self.outcomes[told[0].value] += 1
        return Outcome(
            event_time_ms=time.time_ns() // 1_000_000,
            utterance_id=utterance_id,
            customer_id=customer_id,
            outcome=told[0],
            skill_id=told[1],
        )

    def progress(self, advance: Advance) -> None:
        elapsed_s = time.monotonic() - self.began_s
        done = self.decided if self.plan.wait else self.asked
        note = f"{self.asked:,} asked, {done / max(elapsed_s, 1e-9):,.0f}/s"
        if self.total is None:
            over = self.finished_asking() and done >= self.asked
            last = steps(self.rows, self.plan)
            done = last if over else min(int(elapsed_s), last - 1)
        advance(done, note)

    def summary(self) -> Summary:
        seconds = max(self.last_s - self.began_s, 1e-9)
        acted = self.outcomes.total()
        accepted = sum(kind is OutcomeKind.ACCEPTED for kind in self.met.happened)
        habits = Counter(filter(None, map(self._habit, range(self.plan.start, self.plan.start + self.asked))))
        return Summary(
            run=self.plan.run,
            seed=self.plan.seed,
            customers=len({self.customer_of[row] for row in self.asked_rows()}),
            asked=self.asked,
            decided=self.decided,
            duplicates=self.duplicates,
            acted=acted,
            seconds=round(seconds, 3),
            decisions_per_s=round(self.decided / seconds, 1),
            actions={action.value: self.actions[action.value] for action in Action},
            outcomes={kind.value: self.outcomes[kind.value] for kind in OutcomeKind},
            right_first=self.right / self.decided if self.decided else None,
            friction=1 - accepted / self.decided if acted else None,
            latency_ms=_percentiles(self.latencies_ms),
            habits={habit.value: habits[habit] for habit in Habit} if acted else {},
        )


def customers_of(rows: Sequence[Row]) -> list[int]:
    """For each row the first row of its customer: rows with equal links share one, others stand alone."""
    first: dict[tuple[str, ...], int] = {}
    return [first.setdefault(row.linked, index) if row.linked else index for index, row in enumerate(rows)]


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 95, 99)}
