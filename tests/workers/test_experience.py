"""What a cycle reads of its customers: joined by utterance, once each, up to a cut that is named."""

from collections.abc import Sequence

import pytest

from model.feedback import NOBODY
from tests.conftest import Broker
from topics.codec import encode
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind, Utterance
from topics.registry import DECISIONS, OUTCOMES, UTTERANCES, Topic, create_topics, topic_name
from topics.settings import Settings
from workers.experience import OTHERS, Experienced, read_experience
from workers.sender import Sender

LISTED = (
    Candidate(skill_id="rides", score=2.0, probability=0.6),
    Candidate(skill_id="cats", score=1.0, probability=0.25),
    Candidate(skill_id="dogs", score=0.0, probability=0.1),
    Candidate(skill_id="rare", score=-9.0, probability=0.0001),
)


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=2)
    return settings


def ids(number: int) -> dict[str, object]:
    return {"event_time_ms": 1_000 + number, "utterance_id": f"u-{number}", "customer_id": f"c-{number % 5}"}


def utterance(number: int) -> Utterance:
    return Utterance(**ids(number), text=f"request {number}")  # type: ignore[arg-type]


def decision(
    number: int, action: Action = Action.LAUNCH, skill: str | None = "rides", **fields: object
) -> Decision:
    told = {"candidates": LISTED, "none_probability": 0.04, "linked": ("rides",), "propensity": 0.98, **fields}
    return Decision(**ids(number), action=action, skill_id=skill, **told)  # type: ignore[arg-type]


def outcome(number: int, kind: OutcomeKind, skill: str | None = None) -> Outcome:
    return Outcome(**ids(number), outcome=kind, skill_id=skill)  # type: ignore[arg-type]


def send(settings: Settings, topic: Topic, events: Sequence[Utterance | Decision | Outcome]) -> None:
    sender = Sender(settings)
    for event in events:
        sender.send(topic_name(settings, topic), event.customer_id, encode(event))
    sender.flush()


def read(settings: Settings, decisions: Sequence[Decision], outcomes: Sequence[Outcome]) -> dict[str, Experienced]:
    send(settings, UTTERANCES, [utterance(n) for n in range(10)])
    send(settings, DECISIONS, decisions)
    send(settings, OUTCOMES, outcomes)
    return {one.utterance.utterance_id: one for one in read_experience(settings).requests}


def test_a_request_is_told_with_what_was_likely_and_what_was_done(settings: Settings) -> None:
    found = read(settings, [decision(0), decision(1)], [outcome(0, OutcomeKind.REJECTED)])
    assert list(found) == ["u-0"]
    one = found["u-0"].feedback
    assert (one.text, one.linked, one.offered, one.outcome) == (
        "request 0",
        ("rides",),
        ("rides",),
        OutcomeKind.REJECTED,
    )
    assert one.beliefs == {"rides": 0.6, "cats": 0.25, "dogs": 0.1, NOBODY: 0.04}
    assert (one.named, one.propensity) == (None, 0.98)


def test_the_first_outcome_that_tells_counts_and_a_second_one_changes_nothing(settings: Settings) -> None:
    found = read(
        settings,
        [decision(0), decision(1)],
        [
            outcome(0, OutcomeKind.ABANDONED),
            outcome(0, OutcomeKind.CORRECTED, "cats"),
            outcome(0, OutcomeKind.CORRECTED, "dogs"),
            outcome(1, OutcomeKind.REJECTED),
            outcome(1, OutcomeKind.ABANDONED),
        ],
    )
    assert (found["u-0"].feedback.named, found["u-0"].feedback.named_prior) == ("cats", 0.25)
    assert found["u-1"].feedback.outcome is OutcomeKind.REJECTED


def test_a_skill_that_is_named_out_of_the_blue_has_a_share_of_what_is_left(settings: Settings) -> None:
    found = read(settings, [decision(0)], [outcome(0, OutcomeKind.CORRECTED, "unheard")])
    assert found["u-0"].feedback.named_prior == pytest.approx(0.01 / OTHERS)


def test_silence_and_questions_are_told_as_what_they_are(settings: Settings) -> None:
    found = read(
        settings,
        [decision(0, Action.NONE, None), decision(1, Action.DISCOVER, None), decision(2, Action.DISCOVER, None)],
        [
            outcome(0, OutcomeKind.ACCEPTED),
            outcome(1, OutcomeKind.ACCEPTED, "dogs"),
            outcome(2, OutcomeKind.REJECTED),
        ],
    )
    assert (found["u-0"].feedback.offered, found["u-0"].feedback.named) == ((NOBODY,), None)
    assert found["u-1"].feedback.offered == ("rides", "cats", "dogs")
    assert found["u-1"].feedback.named == "dogs"
    assert found["u-2"].feedback.named is None


def test_an_acceptance_of_what_was_not_offered_says_nothing(settings: Settings) -> None:
    found = read(
        settings,
        [decision(0), decision(1), decision(2, Action.DISCOVER, None)],
        [
            outcome(0, OutcomeKind.ACCEPTED, "cheat"),
            outcome(1, OutcomeKind.ACCEPTED, "rides"),
            outcome(2, OutcomeKind.ACCEPTED),
        ],
    )
    assert list(found) == ["u-1"]


def test_a_decision_of_somebody_elses_without_probabilities_is_taken_as_open(settings: Settings) -> None:
    bare = decision(0, candidates=(), none_probability=0.0)
    found = read(settings, [bare], [outcome(0, OutcomeKind.ACCEPTED, "rides")])
    assert found["u-0"].feedback.beliefs == {"rides": 0.7}


def test_the_order_is_that_of_the_utterances_and_the_cut_is_named(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(10)])
    send(settings, DECISIONS, [decision(n) for n in range(10)])
    send(settings, OUTCOMES, [outcome(n, OutcomeKind.ACCEPTED, "rides") for n in reversed(range(10))])
    once, again = read_experience(settings), read_experience(settings)
    assert once == again
    assert len(once.requests) == 10
    assert {topic: sum(ends.values()) for topic, ends in once.offsets.items()} == {
        "utterances": 10,
        "decisions": 10,
        "outcomes": 10,
    }


def test_what_off_policy_measures_need_is_told(settings: Settings) -> None:
    found = read(settings, [decision(0)], [outcome(0, OutcomeKind.ACCEPTED)])["u-0"].logged()
    assert (found.key, found.customer_id, found.skill_id, found.reward) == ("u-0", "c-0", "rides", 1.0)
    assert (found.shown, found.propensity) == (("rides",), 0.98)
