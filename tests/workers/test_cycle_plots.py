"""What is plotted of the statistics' age stays true where old buckets are days and months."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from model.statistics import Statistics
from topics.events import Action, Decision
from workers import cycle_plots


def counts(decisions: int) -> Statistics:
    found = Statistics()
    nobody = Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.NONE, skill_id=None)
    for _ in range(decisions):
        found.fold(nobody)
    return found


def bars(monkeypatch: pytest.MonkeyPatch, buckets: dict[str, int]) -> tuple[str, dict[str, float]]:
    """What the bars stand for, and each one's label and height."""
    figures: list[Figure] = []

    def keep(figure: Figure, *_: Any) -> str:
        figures.append(figure)
        return ""

    monkeypatch.setattr(cycle_plots, "svg", keep)
    cycle_plots.ages({name: counts(decisions) for name, decisions in buckets.items()})
    above, below = figures[0].axes
    labels = [label.get_text() for label in below.get_xticklabels()]
    heights = [round(bar.get_height(), 6) for bar in above.patches]  # type: ignore[attr-defined]
    return above.get_ylabel(), dict(zip(labels, heights, strict=True))


def test_hours_alone_are_plotted_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told = bars(monkeypatch, {"2026-11-22T18": 2, "2026-11-22T17": 4})
    assert told == ("decisions", {"2026-11-22T17": 4, "2026-11-22T18": 2})


def test_beside_days_and_months_all_are_decisions_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten a day all along: no bar towers because its bucket is long, nor for partitions that are behind."""
    one = {"2026-09": 270, "2026-10": 155, "2026-11-22": 10, "2026-11-23T05": 4, "2026-11-23T06": 6}
    behind = {"2026-09-29": 10, "2026-09-30T11": 20, "2026-10-31": 155, "2026-11-24T01": 10}
    unit, told = bars(monkeypatch, one | behind)
    assert unit == "decisions a day"
    assert told == dict.fromkeys(("2026-09", "2026-10", "2026-11-22", "2026-11-23", "2026-11-24"), 10)
