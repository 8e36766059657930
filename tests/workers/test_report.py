"""The demo's report: one page that stands alone, tells what was found, and trusts nobody's words."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from model.bundle import Bundle, read_bundle, write_bundle
from model.data import Row, read_rows, read_skills, split_path
from model.evaluation import evaluate, places
from model.fitting import FittingSettings
from model.pipeline import Recipe, train
from model.reranker import RerankerSettings
from model.sample import SAMPLE_DIR
from model.selector import Request, Selector
from model.shortlister import ShortlisterSettings
from model.statistics import Statistics
from model.training import TrainingSettings
from topics.errors import UsageError
from topics.events import Action, Decision, Outcome, OutcomeKind
from workers import judged
from workers.behaviour import Behaviour, mood, react
from workers.crowd import Summary
from workers.favourites import most_chosen, taken_instead
from workers.findings import Check, Findings
from workers.judged import Judged
from workers.report import render, write_report
from workers.stretch import Stretch
from workers.tally import Change, Gain, ReleaseReport, Report, share_of
from workers.trainer import CycleResult

FAMILIES = ("rides:", "weather:", "pizza:", "timers:")
RECIPE = Recipe(
    shortlister=ShortlisterSettings(word_width=32, state_width=16, width=48),
    reranker=RerankerSettings(candidates=6, width=16, heads=2, layers=1),
    training=TrainingSettings(epochs=2, batch=64),
    fitting=FittingSettings(link_epochs=2, rerank_epochs=4),
)
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
HOSTILE = "<b>&</b><script src='http://evil.example/x.js'></script>\"$x^2$"
VOID = {"meta", "link", "br", "img", "hr", "input"}


def findings_of(bundles: tuple[Bundle, Bundle], rows: Sequence[Row], folder: Path) -> Findings:
    """Findings as the demo makes them, from two bundles; what customers met is drawn from their decisions."""
    for place, bundle in enumerate(bundles):
        write_bundle(bundle, folder / str(place))
    first, second = (Selector(read_bundle(folder / str(place))) for place in range(2))
    statistics = Statistics()
    summaries = [_met(selector, rows, statistics, seed) for seed, selector in enumerate((first, second))]
    before, after = evaluate(first, rows), evaluate(second, rows)
    return Findings(
        data="the sample marketplace",
        rows={"corpus": 3_000, "asked first": len(rows), "asked second": len(rows), "judged": len(rows)},
        skills=len(first.bundle.catalogue),
        seconds={"broker": 4.2, "first release": 41.0, "customers": 9.5, "cycle": 22.1, "replay": 1.9},
        selectors=(first, second),
        judged=rows,
        before=before,
        after=after,
        first=summaries[0],
        second=summaries[1],
        cycle=_cycle(first, second, before["decision"]["top1"], after["decision"]["top1"]),
        replayed=_replayed(first, second, rows),
        statistics=statistics,
        checks=[
            Check("Each utterance has exactly one decision", True, "5,000 of 5,000"),
            Check("The replay gives the same decisions", False, "4,999 of 5,000"),
        ],
    )


def _met(selector: Selector, rows: Sequence[Row], statistics: Statistics, seed: int) -> Summary:
    actions, outcomes = dict.fromkeys(map(str, Action), 0), dict.fromkeys(map(str, OutcomeKind), 0)
    right = 0
    for number, (row, decided) in enumerate(zip(rows, _decisions(selector, rows), strict=True)):
        listed = [candidate.skill_id for candidate in decided.candidates]
        draw = mood(seed, number)
        kind, taken = react(decided.action, decided.skill_id, listed, row.skill_id, draw, Behaviour())
        outcome = Outcome(event_time_ms=1, utterance_id="u", customer_id="c", outcome=kind, skill_id=taken)
        statistics.fold(decided).fold(decided, outcome)
        actions[decided.action] += 1
        outcomes[kind] += 1
        right += decided.action is not Action.NONE and listed[0] == row.skill_id
    return Summary(
        run=f"run-{seed}",
        seed=seed,
        customers=len(rows) // 2,
        asked=len(rows),
        decided=len(rows),
        duplicates=0,
        acted=len(rows),
        seconds=2.5 - seed,
        decisions_per_s=1234.5 + seed * 300,
        actions=actions,
        outcomes=outcomes,
        right_first=right / len(rows),
        friction=1 - outcomes["accepted"] / len(rows),
        latency_ms={"p50": 41.0 + seed, "p95": 120.0 - seed, "p99": 181.0},
    )


def _decisions(selector: Selector, rows: Sequence[Row]) -> list[Decision]:
    rankings = selector.decide([Request(row.text, row.linked or ()) for row in rows])
    return [
        Decision(
            event_time_ms=0,
            utterance_id="u",
            customer_id="c",
            action=ranking.action,
            skill_id=ranking.skill_id,
            candidates=ranking.candidates,
            linked=row.linked or (),
        )
        for row, ranking in zip(rows, rankings, strict=True)
    ]


def _launched(skill_id: str) -> Decision:
    return Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.LAUNCH, skill_id=skill_id)


def _cycle(first: Selector, second: Selector, before: float, after: float) -> CycleResult:
    return CycleResult(
        published=True,
        reason="no measure fell by more than the bound",
        release=second.release,
        parent=first.release,
        corpus_rows=3_000,
        outcome_rows=1_700,
        judged_rows=640,
        statistics="0123456789ab",
        before={"decision_top1": before, "shortlist_top3": before},
        after={"decision_top1": after, "shortlist_top3": after},
        gain={"mean": after - before, "low": after - before - 0.01, "high": after - before + 0.01},
    )


def _replayed(first: Selector, second: Selector, rows: Sequence[Row]) -> Report:
    texts = [HOSTILE, *(row.text for row in rows[:4])]
    return Report(
        stretch=Stretch({0: 0}, {0: 900}),
        utterances=800,
        malformed=3,
        decided_by={first.release: 800},
        judged=share_of(500, 800),
        releases=[
            ReleaseReport(second.release, share_of(700, 800), share_of(0, 0), share_of(430, 500)),
            ReleaseReport(first.release, share_of(800, 800), share_of(800, 800), share_of(410, 500)),
        ],
        between=share_of(700, 800),
        gain=Gain(0.04, 0.01, 0.07),
        changed=100,
        changes=[Change(f"u{at}", text, "none", "launch rides:acorn", "") for at, text in enumerate(texts)],
        seconds=0.8,
        utterances_per_s=1000.0,
    )


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    torch.set_num_threads(1)
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith(FAMILIES)]
    known = {card.skill_id for card in cards} | {None}
    rows = [row for row in read_rows(split_path(SAMPLE_DIR, "train")) if row.skill_id in known]
    dev = [row for row in read_rows(split_path(SAMPLE_DIR, "dev")) if row.skill_id in known]
    first = train(cards, rows[::2], RECIPE, lambda step, note: None)
    second = train(cards, rows, RECIPE, lambda step, note: None, first)
    return findings_of((first, second), dev, tmp_path_factory.mktemp("bundles"))


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
    statistics = Statistics().fold(_launched(HOSTILE))
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
    cycle = replace(
        findings.cycle, published=False, reason="decision_top1 falls from 0.9 to 0.8", gain={}, before={}
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
    launched = _launched("rides:acorn")
    corrected = Outcome(
        event_time_ms=1, utterance_id="u", customer_id="c", outcome=OutcomeKind.CORRECTED, skill_id="rides:oak"
    )
    statistics = Statistics().fold(launched).fold(launched).fold(launched, corrected)
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
