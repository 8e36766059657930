"""The teacher: its outputs become a part of what is learned, and what customers took tells its rivals apart."""

import numpy as np
import pytest

from model.bundle import Bundle
from model.data import Row
from model.examples import Examples, beliefs_of, encode_rows
from model.selector import Request, Selector
from model.statistics import Statistics
from model.teaching import MOST_LIFT, lifts, taught_by
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind


@pytest.fixture
def texts(small_dev: list[Row]) -> list[str]:
    return [row.text for row in small_dev[:20]]


def own(bundle: Bundle, rows: list[Row]) -> Examples:
    return encode_rows(rows, bundle.catalogue, bundle.vocabulary)


def test_beliefs_are_the_rows_own_and_the_teachers_by_shares(small_bundle: Bundle, small_dev: list[Row]) -> None:
    rows = small_dev[:20]
    taught = taught_by(
        small_bundle,
        small_bundle.catalogue,
        [row.text for row in rows],
        own(small_bundle, rows),
        Statistics(),
        0.3,
    )
    assert np.allclose(taught.beliefs.shares.sum(1), 1, atol=1e-5)
    assert np.allclose(taught.beliefs.shares[:, 0], 0.7)
    assert np.array_equal(taught.beliefs.rows[:, 0], taught.targets)
    theirs = taught.beliefs.rows[np.arange(20), 1 + taught.beliefs.shares[:, 1:].argmax(1)]
    firsts = Selector(small_bundle).shortlist([Request(row.text) for row in rows], 1)
    skills = [*small_bundle.catalogue.ids(), "none"]
    same = [skills[row] == first for row, [first] in zip(theirs, firsts, strict=True) if skills[row] != "none"]
    assert len(same) > 10
    assert all(same)


def test_a_row_that_counts_less_is_taught_less(small_bundle: Bundle, small_dev: list[Row]) -> None:
    skill = small_bundle.catalogue.ids()[0]
    row = Row(small_dev[0].text, skill, beliefs={skill: 0.25})
    taught = taught_by(
        small_bundle, small_bundle.catalogue, [row.text], own(small_bundle, [row]), Statistics(), 0.4
    )
    assert taught.beliefs.shares.sum() == pytest.approx(0.25, abs=1e-5)


def told(statistics: Statistics, n: int, opened: str, kind: OutcomeKind, taken: str | None = None) -> None:
    decision = Decision(
        event_time_ms=0,
        utterance_id=f"u-{n}",
        customer_id="c",
        action=Action.LAUNCH,
        skill_id=opened,
        candidates=(Candidate(skill_id=opened, score=1.0, probability=0.5),),
    )
    outcome = Outcome(event_time_ms=0, utterance_id=f"u-{n}", customer_id="c", outcome=kind, skill_id=taken)
    statistics.fold(decision).fold(decision, outcome)


def test_what_is_kept_more_often_than_expected_is_lifted_and_claims_lift_nobody() -> None:
    statistics = Statistics()
    for n in range(200):
        told(statistics, n, "cats", OutcomeKind.ACCEPTED if n % 4 else OutcomeKind.REJECTED)
        told(statistics, n, "dogs", OutcomeKind.REJECTED if n % 4 else OutcomeKind.ACCEPTED)
        told(statistics, n, "rides", OutcomeKind.ACCEPTED if n % 2 else OutcomeKind.REJECTED)
        told(statistics, n, "rides", OutcomeKind.CORRECTED if n % 2 else OutcomeKind.ACCEPTED, "cheat")
    cats, dogs, cheat, unheard = lifts(statistics, ["cats", "dogs", "rides", "cheat", "unheard"])[[0, 1, 3, 4]]
    assert 1.2 < cats <= MOST_LIFT
    assert 0.5 < dogs < 0.9
    assert (cheat, unheard) == (1.0, 1.0)


def test_beliefs_leave_out_what_the_catalogue_does_not_have(small_bundle: Bundle) -> None:
    known = small_bundle.catalogue.ids()[1]
    found = beliefs_of([{known: 0.5, "gone:skill": 0.3, "": 0.2}, {known: 1.0}], small_bundle.catalogue)
    assert found.rows.shape == (2, 2)
    assert found.shares[0].tolist() == pytest.approx([0.5, 0.2])
    assert found.rows[0].tolist() == [1, len(small_bundle.catalogue)]
