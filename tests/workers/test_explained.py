"""What `namefree ask --explain` tells, at a terminal and for machines."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from model.data import Row
from model.selector import Request, Selector
from workers.cli import root

ASK = ["ask", "get me a car to the airport", "--linked", "rides:acorn"]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()  # they hold this test's captured stderr


def asked(*arguments: str | Path) -> str:
    result = CliRunner().invoke(root, [*ASK, *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_person_reads_what_each_can_do_what_made_the_score_and_what_each_action_costs(
    small_folder: Path,
) -> None:
    told = asked("--bundle", small_folder, "--explain")
    for title in ("What each can do", "What makes the score", "What each action costs"):
        assert title in told
    assert "place: the airport" in told
    assert re.search(r"(?m)^rule (best|near-tie|none): \w+.* costs least$", told)


def test_a_machine_reads_the_same_and_the_sums_are_right(small_folder: Path) -> None:
    found = json.loads(asked("--bundle", small_folder, "--explain", "--json"))
    why = found["explanation"]
    for candidate, parts in zip(found["candidates"], why["parts"], strict=True):
        assert sum(parts.values()) == pytest.approx(candidate["score"], abs=1e-3)
    least = min(why["costs"], key=lambda option: option["cost"])
    assert (least["action"], least["skill_id"]) == (found["action"], found["skill_id"])
    assert sum(choice["propensity"] for choice in why["choices"]) == pytest.approx(1.0)
    first, second = found["candidates"][:2]
    assert sum(found["reasons"].values()) == pytest.approx(first["score"] - second["score"], abs=1e-3)


def test_without_explain_it_is_short(small_folder: Path) -> None:
    assert "What makes the score" not in asked("--bundle", small_folder)
    assert "explanation" not in json.loads(asked("--bundle", small_folder, "--json"))


def test_costs_that_were_set_are_said_and_change_what_is_done(small_folder: Path) -> None:
    told = asked("--bundle", small_folder, "--cost-missed", "0", "--explain")
    assert "costs missed=0.0" in told
    assert "rule none: silence costs least" in told


def test_what_links_have_turned_is_said(small_folder: Path, small_dev: list[Row]) -> None:
    """A link that decided says who would have come first without it."""
    rankings = Selector.load(small_folder).decide([Request(row.text, row.linked or ()) for row in small_dev])
    row, other = next(
        (row, ranking.without_links)
        for row, ranking in zip(small_dev, rankings, strict=True)
        if ranking.without_links is not None
    )
    arguments = ["ask", row.text, "--linked", ",".join(row.linked or ()), "--bundle", str(small_folder)]
    result = CliRunner().invoke(root, [*arguments, "--explain"], catch_exceptions=False)
    assert f"without the links {other} would have come first" in result.stdout.splitlines()
