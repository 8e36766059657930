"""A cycle's page: one that stands alone, tells what was found, and trusts nobody's words."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from model.bundle import Bundle, read_bundle
from model.data import Row
from model.gate import GateResult, judge
from model.off_policy import Logged
from model.own_words import Lost
from model.policy import ASKED_OF
from model.selector import Request, Selector
from model.statistics import Statistics
from tests.workers.reporting import HOSTILE, launched
from tests.workers.test_report import Page
from topics.errors import UsageError
from topics.events import Release
from workers.cycle_report import CycleFindings, render, write_cycle_report

HEADINGS = [
    "Before and after",
    "What customers would accept",
    "What changed for which skills",
    "Requests that flipped",
    "How far the probabilities can be believed",
    "What customers did",
    "Where it comes from",
]


def logged_by(selector: Selector, rows: list[Row]) -> list[Logged]:
    rankings = selector.decide([Request(row.text, row.linked or (), f"u-{at}") for at, row in enumerate(rows)])
    return [
        Logged(
            text=row.text,
            linked=row.linked or (),
            key=f"u-{at}",
            action=ranking.action,
            skill_id=ranking.skill_id,
            shown=tuple(candidate.skill_id for candidate in ranking.candidates[:ASKED_OF]),
            propensity=ranking.propensity,
            reward=float(ranking.skill_id == row.skill_id),
        )
        for at, (row, ranking) in enumerate(zip(rows, rankings, strict=True))
    ]


@pytest.fixture(scope="module")
def findings(
    small_bundle: Bundle, small_folder: Path, small_dev: list[Row], small_rows: list[Row]
) -> CycleFindings:
    before, bundle = Selector(small_bundle), read_bundle(small_folder)
    bundle.shortlister.rows.data[bundle.catalogue.row("rides:acorn")] *= 0
    bundle.shortlister.links.bias.data += 4
    after = Selector(bundle)
    gate = judge(before, after, small_dev, logged_by(before, small_dev), small_rows)
    statistics = Statistics()
    for row in small_dev:
        statistics.fold(launched(row.skill_id or "rides:acorn"))
    first = Release(event_time_ms=0, release="first0000000", bundle="/b", digest="0" * 64)
    return CycleFindings(
        published=not gate.refused,
        reason=gate.reason,
        before=before,
        after=after,
        rows=small_dev,
        gate=gate,
        statistics=statistics,
        learned={"corpus rows": 600, "outcomes": 150},
        provenance={"seed": "0", "offsets utterances": "0:120,1:98"},
        line=[first, changed(first, release="second000000", parent="first0000000", note="the autumn's")],
        when_ms=1_795_369_000_000,
        release="candidate000",
        buckets={f"2026-11-26T{hour:02}": statistics for hour in range(3)},
    )


@pytest.fixture(scope="module")
def page(findings: CycleFindings) -> str:
    return render(findings)


def test_every_section_is_there_in_its_order_and_every_element_closed(page: str) -> None:
    assert Page(page).headings == HEADINGS


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(page: str) -> None:
    read = Page(page)
    assert all(load.startswith("#") for load in read.loads)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "embed", "foreignobject"}
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(read.ids) == len(set(read.ids))


def test_plots_have_the_pages_colours(page: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 3
    assert not any(re.search(r"#[0-9a-f]{6}\b", svg) for svg in drawn)


def test_a_refusal_says_why_and_names_the_skill_that_would_be_lost(page: str) -> None:
    assert "✗ refused" in page
    assert "1 skill is lost: rides:acorn" in page
    assert "its learned row is 0.00 times as long as the median" in page


def test_support_is_told_before_any_estimate(page: str) -> None:
    told = page[page.index("What customers would accept") :]
    assert told.index("Support") < told.index("IPS")


def test_what_made_it_and_where_it_comes_from_are_told(page: str) -> None:
    made_it = ("candidate000", "outcomes 150", "offsets utterances", "0:120,1:98", "2026-11-22")
    for told in (*made_it, "○ first0000000", "● second000000"):
        assert told in page


def test_words_of_customers_and_skills_are_shown_and_never_obeyed(findings: CycleFindings) -> None:
    rows = [Row(HOSTILE + row.text, row.skill_id, HOSTILE, row.linked) for row in findings.rows]
    gate = GateResult(
        reason=HOSTILE,
        lines=[changed(line, slice=f"source {HOSTILE}") for line in findings.gate.lines],
        lost=[Lost(HOSTILE, HOSTILE)],
        off_policy=None,
    )
    told = render(
        replace(
            findings,
            rows=rows,
            gate=gate,
            reason=HOSTILE,
            statistics=Statistics().fold(launched(HOSTILE)),
            provenance={HOSTILE: HOSTILE},
            line=[changed(findings.line[0], note=HOSTILE)],
        )
    )
    assert "<b>&</b>" not in told
    assert "<script" not in told
    assert Page(told).headings == HEADINGS


def test_a_first_release_without_anything_is_still_a_page(findings: CycleFindings) -> None:
    bare = replace(
        findings,
        published=True,
        reason="",
        before=None,
        rows=[],
        gate=judge(None, findings.after, []),
        statistics=Statistics(),
        learned={},
        provenance={},
        line=(),
        when_ms=0,
        buckets={},
    )
    told = render(bare)
    assert Page(told).headings == HEADINGS
    assert "nothing served before" in told
    assert "✓ published" in told


def test_a_release_beside_itself_changes_nothing(findings: CycleFindings) -> None:
    own = findings.after
    same = replace(findings, before=own, gate=judge(own, own, findings.rows), published=True)
    assert "Nothing, on the judged rows." in render(same)


def test_the_file_appears_whole_and_equal_findings_give_an_equal_page(
    findings: CycleFindings, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "cycle.html"
    write_cycle_report(path, findings)
    assert path.read_text(encoding="utf-8") == page
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the report cannot be written to .*file/cycle.html"):
        write_cycle_report(tmp_path / "file" / "cycle.html", findings)


def test_counts_that_have_decayed_are_told_as_numbers(findings: CycleFindings) -> None:
    decayed = Statistics(decisions=2, outcomes=1, skills=findings.statistics.skills)
    told = render(replace(findings, statistics=decayed, half_life_hours=24.0))
    assert "half-life of 24.0 hours" in told
