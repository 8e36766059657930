"""The demo's report: one page that stands alone, tells what was found, and trusts nobody's words."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import torch

from model.data import Row
from model.evaluation import evaluate, places
from model.selector import Request
from model.statistics import Statistics
from tests.workers.reporting import HOSTILE, launched, small_findings
from topics.errors import UsageError
from topics.events import Outcome, OutcomeKind
from workers import judged
from workers.favourites import most_chosen, taken_instead
from workers.findings import Check, Findings
from workers.judged import Judged
from workers.report import render, write_report
from workers.tally import share_of

HEADINGS = [
    "Checks",
    "Measures before and after",
    "What the customers met",
    "Throughput and latency",
    "Where the attention goes",
    "How far the probabilities can be believed",
    "Errors and the number of links",
    "What the statistics know",
    "The cycle's verdict",
    "The replay",
    "The data, and where each figure comes from",
]
VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    torch.set_num_threads(1)
    return small_findings(tmp_path_factory.mktemp("bundles"))


class Page(HTMLParser):
    """What a browser would find: headings, ids, attributes; every element must be closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.loads += [
            found[name] or "" for name in ("src", "href", "xlink:href", "srcset", "data") if name in found
        ]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def page(findings: Findings) -> str:
    return render(findings)


def test_every_section_is_there_in_its_order(page: str) -> None:
    assert Page(page).headings == HEADINGS


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(page: str) -> None:
    read = Page(page)
    assert all(load.startswith("#") for load in read.loads)
    assert not read.tags & {"script", "link", "img", "iframe", "object", "embed", "foreignobject"}
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "<script src" not in page


def test_no_two_elements_share_an_id_so_that_no_plot_borrows_anothers_parts(page: str) -> None:
    ids = Page(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(ids)


def test_all_plots_are_drawn_in_the_pages_own_colours(page: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 7
    for svg in drawn:
        assert "currentColor" in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == set()


def test_words_of_customers_and_skills_are_shown_and_never_obeyed(findings: Findings) -> None:
    statistics = Statistics().fold(launched(HOSTILE))
    rows = [Row(HOSTILE + row.text, row.skill_id, row.source, row.linked) for row in findings.judged]
    check = Check(HOSTILE, True, HOSTILE)
    seconds = {HOSTILE: 1.0}
    page = render(
        replace(findings, data=HOSTILE, judged=rows, checks=[check], seconds=seconds, statistics=statistics)
    )
    assert "<b>&</b>" not in page
    assert "<script" not in page
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page
    assert Page(page).headings == HEADINGS


def test_broken_promises_are_told_as_plainly_as_kept_ones(page: str) -> None:
    assert page.count("✓ kept") == 1
    assert page.count("✗ broken") == 1
    assert "4,999 of 5,000" in page


def test_customers_and_links_are_called_simulated_before_any_figure(page: str) -> None:
    assert "customers and their links are simulated" in page[: page.index("<h2>")]


def test_a_refusal_is_told_with_its_reason(findings: Findings) -> None:
    cycle = msgspec.structs.replace(
        findings.cycle, published=False, reason="decision_top1 falls from 0.9 to 0.8", gain=None, before={}
    )
    page = render(replace(findings, cycle=cycle, selectors=(findings.selectors[0],) * 2))
    assert "✗ refused" in page
    assert "decision_top1 falls from 0.9 to 0.8" in page
    assert "published a second release" not in page


def test_nothing_found_is_still_a_page(findings: Findings) -> None:
    nothing = replace(
        findings.first, decided=0, acted=0, asked=0, right_first=None, friction=None, latency_ms={}, outcomes={}
    )
    nobody = share_of(0, 0)
    bare = replace(
        findings,
        judged=[],
        before=evaluate(findings.selectors[0], []),
        after=evaluate(findings.selectors[1], []),
        first=nothing,
        second=nothing,
        seconds={},
        statistics=Statistics(),
        checks=[],
        replayed=replace(findings.replayed, judged=nobody, between=None, gain=None, changes=[], decided_by={}),
    )
    assert Page(render(bare)).headings == HEADINGS


def test_the_file_appears_whole_in_a_new_folder_and_equal_findings_give_an_equal_page(
    findings: Findings, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(findings, path)
    assert path.read_text(encoding="utf-8") == page
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_to_is_said_in_one_sentence(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the report cannot be written to .*file/report.html: "):
        write_report(findings, tmp_path / "file" / "report.html")


def test_examples_show_each_kind_and_no_more_than_promised(findings: Findings) -> None:
    found = judged.judge(findings.selectors[1], findings.judged)
    shown = judged.examples(found)
    counts = {kind: sum(one.kind == kind for one in shown) for kind in judged.EXAMPLES}
    assert all(counts[kind] <= most for kind, most in judged.EXAMPLES.items())
    assert counts["linked, weighs most, decided"]
    assert any(one.answer != one.row.skill_id for one in shown)
    assert len({one.row.skill_id for one in shown}) == len(shown)


def test_right_is_what_the_evaluation_calls_top_one(findings: Findings) -> None:
    found = judged.judge(findings.selectors[1], findings.judged)
    top1 = sum(one.right for one in found) / len(found)
    assert top1 == pytest.approx(findings.after["decision"]["top1"], abs=1e-4)
    bins = judged.reliability(found)
    assert sum(part.count for part in bins) == len(found)
    assert sum(part.count * part.right for part in bins) / len(found) == pytest.approx(top1)
    errors = judged.errors_by_links(found, fewest=1)
    assert sum(share.hits for share in errors.values()) == sum(not one.right for one in found)
    assert sum(share.of for share in errors.values()) == len(found)
    assert all(share.of >= judged.FEWEST for share in judged.errors_by_links(found).values())


def test_each_weight_is_counted_once_by_what_it_is_to_the_request(findings: Findings) -> None:
    found = judged.judge(findings.selectors[1], findings.judged)
    weights = judged.weights_by_meaning(found)
    assert len(weights.intended) == sum(one.row.skill_id in one.weights for one in found)
    everything = len(weights.intended) + len(weights.beside) + len(weights.alone)
    assert everything == sum(len(one.weights) for one in found)


def test_calibration_error_is_the_mean_distance_between_saying_and_being() -> None:
    assert judged.calibration_error([judged.Bin(3, 0.9, 1.0), judged.Bin(1, 0.2, 0.6)]) == pytest.approx(0.175)
    assert judged.calibration_error([]) is None


def test_a_spread_keeps_ends_apart_and_never_invents_rows() -> None:
    rows = [Row(str(at), None) for at in range(10)]
    assert judged.spread(rows, 20) == rows
    assert [row.text for row in judged.spread(rows, 4)] == ["0", "2", "5", "7"]


def test_silence_that_was_meant_is_right(findings: Findings) -> None:
    ranking = findings.selectors[1].decide([Request("hello")])[0]
    row = Row("hello", None)
    assert Judged(row, ranking, {}).right is (places(None, ranking)[1] == 1)
    assert Judged(row, ranking, {}).kind is None


def test_the_skills_most_often_chosen_come_with_what_became_of_them() -> None:
    decided = launched("rides:acorn")
    corrected = Outcome(
        event_time_ms=1, utterance_id="u", customer_id="c", outcome=OutcomeKind.CORRECTED, skill_id="rides:oak"
    )
    statistics = Statistics().fold(decided).fold(decided).fold(decided, corrected)
    statistics.fold_outcome("rides:acorn", (), OutcomeKind.ACCEPTED, "rides:acorn")
    (acorn,) = most_chosen(statistics, {"rides:acorn": "Acorn"})
    assert (acorn.name, acorn.chosen, acorn.share, acorn.taken, acorn.outcomes) == ("Acorn", 2, 1.0, 1, 2)
    assert acorn.acceptance == 0.5
    assert taken_instead(statistics, {"rides:oak": "Oak"}) == [(1, "rides:acorn", "Oak")]


def test_a_browser_draws_the_page_without_a_word_of_complaint(page: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("chromium is not installed")
    path, shot = tmp_path / "report.html", tmp_path / "report.png"
    path.write_text(page, encoding="utf-8")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", *quiet)
    done = subprocess.run(
        [
            browser,
            *flags,
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={shot}",
            "--window-size=1000,2000",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert shot.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr
