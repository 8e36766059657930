"""The gate: a candidate beside the release that serves, measure by measure, and whether it may serve.

What is measured: the decision's top-1, the shortlist's top-3, how far probabilities are off (ECE) and how well the
probability of `none` tells (AUROC), over all judged rows, in each slice of them and in worlds of other links
(`model.judging`); friction on logged decisions (`model.off_policy`); and every skill by its own words
(`model.own_words`).

A candidate is refused

1. where over all judged rows top-1 or top-3 falls by more than `max_loss`, whatever the scatter;
2. where a measure of any line is worse by more than its bound, and chance does not explain it: of all lines
   together an equal candidate is refused so with probability `chance` at most (Holm 1979), one half of it by the
   few lines over all rows, one half by the many of single slices;
3. where a skill is lost.

Chance is, for top-1 and top-3, the exact sign test over texts: as many texts lose as gain, were both equal. It
holds for the smallest slice: of twelve rows, four lost and one gained refuse nobody, and twelve lost do. For the
others it is a normal one, with the bootstrap's standard error. The intervals of the table are 95 % bootstrap
intervals in which texts are drawn, each line on its own: they show the scatter, and the rule above decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from model.comparison import Interval
from model.data import Row
from model.gate_lines import LOGGED, TOP1, TOP3, WORLDS, Bounds, Line, friction_line, holm, lines_of
from model.judging import ALL, AS_ASKED, Decided, Mask, decide, slices, worlds
from model.off_policy import Logged, OffPolicy, estimate
from model.own_words import Lost, lost_skills
from model.selector import Selector

OUTRIGHT = (TOP1, TOP3)  # over all rows
MOST_TOLD = 5  # lines, and skills, of a refusal
MOST_CHARS = 900  # of a refusal, which has to fit into a line of a release's event
WHOLE = (ALL, *WORLDS, LOGGED)
USUAL = Bounds()


class GateResult(Struct, frozen=True, kw_only=True):
    """The table, and the verdict. `reason`: why the candidate may not serve; "" where it may."""

    reason: str
    lines: list[Line]
    lost: list[Lost]
    off_policy: OffPolicy | None

    @property
    def refused(self) -> bool:
        return bool(self.reason)

    def before(self) -> dict[str, float]:
        """The serving release's measures over all, by name; empty without one."""
        return {line.measure: line.before for line in self._overall() if line.before is not None}

    def after(self) -> dict[str, float]:
        """The candidate's."""
        return {line.measure: line.after for line in self._overall()}

    def gain(self) -> Interval | None:
        """Of the decision's top-1; None without a release before."""
        return next((line.difference for line in self._overall() if line.measure == TOP1), None)

    def _overall(self) -> Iterator[Line]:
        return (line for line in self.lines if line.slice == ALL)


def judge(
    before: Selector | None,
    after: Selector,
    rows: Sequence[Row],
    logged: Sequence[Logged] = (),
    taught: Sequence[Row] = (),
    bounds: Bounds = USUAL,
) -> GateResult:
    """The candidate `after` beside the release that serves.

    `rows`: judged ones, that neither was taught. `logged`: decisions that customers answered. `taught`: what the
    candidate was taught, for every skill's own words and for which skills are the head. Neither selector is
    changed; without a release before there is nothing to be worse than.
    """
    lines = [
        line for world, part in worlds(rows).items() for line in _lines(world, part, before, after, taught, bounds)
    ]
    found = estimate(before, after, logged)
    if found is not None:
        lines.append(friction_line(found, bounds))
    lines = decided(lines, bounds)
    lost = [] if before is None else lost_skills(before, after, taught)
    return GateResult(reason=reason(lines, lost), lines=lines, lost=lost, off_policy=found)


def _lines(
    world: str,
    rows: Sequence[Row],
    before: Selector | None,
    after: Selector,
    taught: Sequence[Row],
    bounds: Bounds,
) -> list[Line]:
    """All lines of a world: of the first by slice, of the others over all."""
    was, now = (None if before is None else decide(before, rows)), decide(after, rows)
    parts = slices(rows, taught) if world == AS_ASKED else {world: np.ones(len(rows), dtype=np.bool_)}
    none = np.asarray([row.skill_id is None for row in rows], dtype=np.bool_)
    weights = np.asarray([row.weight for row in rows], dtype=np.float64)
    found = []
    for name, inside in parts.items():
        texts = [rows[at].text for at in np.flatnonzero(inside).tolist()]
        theirs = was and _part(was, inside)
        found += lines_of(name, texts, weights[inside], none[inside], theirs, _part(now, inside), bounds)
    return found


def _part(found: Decided, inside: Mask) -> Decided:
    return Decided(*(getattr(found, field.name)[inside] for field in fields(Decided)))


def decided(lines: Sequence[Line], bounds: Bounds) -> list[Line]:
    """The lines with what all of them together make of chance, and which are regressions."""
    found = list(lines)
    for whole in (True, False):
        at = [place for place, line in enumerate(lines) if (line.slice in WHOLE) == whole]
        for place, p in zip(at, holm([lines[place].p for place in at]), strict=True):
            line, chance = lines[place], min(1.0, 2 * p)
            worse = line.loss > line.bound and (_outright(line) or chance < bounds.chance)
            found[place] = replace(line, p=round(chance, 6), worse=worse)
    return found


def _outright(line: Line) -> bool:
    return line.slice == ALL and line.measure in OUTRIGHT


def reason(lines: Sequence[Line], lost: Sequence[Lost]) -> str:
    """Why a candidate is refused, the worst first; "" where it is not."""
    worst = sorted((line for line in lines if line.worse), key=lambda line: (not _outright(line), -line.loss))
    told = [line.sentence() for line in worst[:MOST_TOLD]]
    if len(worst) > MOST_TOLD:
        told.append(f"and {len(worst) - MOST_TOLD} more lines of the table")
    if lost:
        some = ", ".join(f"{one.skill_id} ({one.why})" for one in lost[:MOST_TOLD])
        more = f", and {len(lost) - MOST_TOLD:,} more" if len(lost) > MOST_TOLD else ""
        told.append(f"{len(lost):,} {'skill is' if len(lost) == 1 else 'skills are'} lost: {some}{more}")
    whole = "; ".join(told)
    return whole if len(whole) <= MOST_CHARS else f"{whole[: MOST_CHARS - 1]}…"
