"""What asking keeps in mind: breakers and answers, by a clock that is set by hand, and bounded."""

from model.fulfilment import Question
from tests.workers.asking import YES_HOME, Clock
from topics.events import Ability
from workers.answers import Answers
from workers.breakers import MAX_COOL_DOWN_S, Breakers


def about(number: int) -> Question:
    return Question(f"s{number}", "https://example.com/", "go", ())


def test_a_breaker_opens_after_faults_in_a_row_and_no_earlier() -> None:
    breakers = Breakers(faults=3, clock=Clock())
    for _ in range(10):
        breakers.fail("a")
        breakers.fail("a")
        assert breakers.admit("a")
        breakers.succeed("a")
    assert len(breakers) == 0
    for _ in range(3):
        assert breakers.admit("a")
        breakers.fail("a")
    assert not breakers.admit("a")
    assert breakers.is_open("a")
    assert breakers.admit("b")


def test_the_cool_down_doubles_with_each_trial_that_fails_up_to_a_bound() -> None:
    clock = Clock()
    breakers = Breakers(faults=1, cool_down_s=30, clock=clock)
    breakers.fail("a")
    waits = []
    for _ in range(7):
        began_s = clock.now_s
        while not breakers.admit("a"):
            clock.now_s += 1
        waits.append(clock.now_s - began_s)
        breakers.fail("a")
    assert waits == [30, 60, 120, 240, 480, MAX_COOL_DOWN_S, MAX_COOL_DOWN_S]


def test_half_open_lets_one_through_and_the_next_only_when_that_is_settled() -> None:
    clock = Clock()
    breakers = Breakers(faults=1, cool_down_s=30, clock=clock)
    breakers.fail("a")
    clock.now_s += 30
    assert not breakers.is_open("a")
    assert [breakers.admit("a"), breakers.admit("a")] == [True, False]
    assert breakers.is_open("a")
    breakers.forgo("a")
    assert breakers.admit("a")
    breakers.succeed("a")
    assert breakers.open_count() == 0
    assert [breakers.admit("a"), breakers.admit("a")] == [True, True]


def test_a_fault_of_a_question_sent_before_the_breaker_opened_changes_nothing() -> None:
    clock = Clock()
    breakers = Breakers(faults=1, cool_down_s=30, clock=clock)
    for _ in range(5):
        breakers.fail("a")
    clock.now_s += 30
    assert breakers.admit("a")


def test_breakers_are_bounded() -> None:
    breakers = Breakers(faults=1, most=10, clock=Clock())
    for number in range(100):
        breakers.fail(f"s{number}")
    assert len(breakers) == breakers.open_count() == 10
    assert breakers.is_open("s99")
    assert not breakers.is_open("s0")


def test_an_answer_is_forgotten_when_it_is_too_old() -> None:
    clock = Clock()
    answers = Answers(ttl_s=10, clock=clock)
    answers.put(about(1), YES_HOME)
    clock.now_s += 9.9
    assert answers.get(about(1)) == YES_HOME
    clock.now_s += 0.1
    assert answers.get(about(1)) is None
    assert len(answers) == 0


def test_the_answer_used_least_lately_goes_first() -> None:
    answers = Answers(most=2)
    for number in (1, 2):
        answers.put(about(number), Ability("NO"))
    answers.get(about(1))
    answers.put(about(3), Ability("YES"))
    assert [answers.get(about(number)) for number in (1, 2, 3)] == [Ability("NO"), None, Ability("YES")]


def test_an_answer_counts_for_its_skill_endpoint_intent_slots_and_locale_alone() -> None:
    answers = Answers()
    base = Question("s", "https://a.example/", "go", (("where", "home"),))
    answers.put(base, YES_HOME)
    others = [
        Question("t", "https://a.example/", "go", (("where", "home"),)),
        Question("s", "https://b.example/", "go", (("where", "home"),)),
        Question("s", "https://a.example/", "stay", (("where", "home"),)),
        Question("s", "https://a.example/", "go", (("where", "work"),)),
        Question("s", "https://a.example/", "go", (("when", "home"),)),
        Question("s", "https://a.example/", "go", (("where", "home"),), "en-GB"),
    ]
    assert [answers.get(other) for other in others] == [None] * len(others)
    assert answers.get(Question("s", "https://a.example/", "go", (("where", "home"),))) == YES_HOME


def test_nothing_is_remembered_where_the_age_is_zero() -> None:
    answers = Answers(ttl_s=0)
    answers.put(about(1), YES_HOME)
    assert len(answers) == 0
