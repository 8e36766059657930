"""What the demo found, for its report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.data import Row
from model.selector import Selector
from model.statistics import Statistics
from workers.crowd import Summary
from workers.tally import Report
from workers.trainer import CycleResult


@dataclass(frozen=True)
class Check:
    """A promise of the system, and whether it was kept in this run."""

    name: str
    kept: bool
    detail: str


@dataclass(frozen=True)
class Findings:
    """One run of the loop. `before` and `after` are `model.evaluation.evaluate` on `judged`, rows that neither
    release was trained on; `first` and `second` what the simulated customers met under each release."""

    data: str
    rows: dict[str, int]  # part of the data -> rows: corpus, asked first, asked second, judged
    skills: int
    seconds: dict[str, float]  # stage of the demo -> seconds
    selectors: tuple[Selector, Selector]
    judged: Sequence[Row]
    before: dict[str, Any]
    after: dict[str, Any]
    first: Summary
    second: Summary
    cycle: CycleResult
    replayed: Report
    statistics: Statistics
    checks: Sequence[Check]
