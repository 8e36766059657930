"""The sandbox of skills: what each kind answers, and the command."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from model.fulfilment import Question
from model.sample import SAMPLE_DIR
from tests.workers.asking import PATIENCE_S, YES_HOME, cards, fresh_metrics, local, question, sandbox
from topics.errors import WorkerError
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility
from workers.asking import SkillAsks
from workers.fulfil_wire import decode_answer, encode_question
from workers.sandbox import RATES, Sandbox, declared, faults_by_rates, with_endpoints

CARD = SkillCard(
    skill_id="rides",
    name="Rides",
    intents=(
        Intent(name="order", slots=(Slot(name="where", values=("Home", "work")), Slot(name="when"))),
        Intent(name="share"),
    ),
    can_fulfill={"share": Ability("MAYBE", {"with": SlotAbility("YES", "NO")}), "tip": Ability("NO")},
)


def told(intent: str, *slots: tuple[str, str]) -> Ability:
    return declared(CARD, Question("rides", "http://127.0.0.1/", intent, slots))


def test_an_honest_skill_answers_what_its_card_declares() -> None:
    assert told("order", ("where", "home")) == Ability("YES", {"where": SlotAbility("YES", "YES")})
    assert told("order", ("where", "mars")) == Ability("YES", {"where": SlotAbility("MAYBE", "NO")})
    assert told("order", ("when", "now")) == Ability("YES", {"when": SlotAbility("MAYBE", "MAYBE")})
    assert told("order", ("colour", "red")) == Ability("YES", {"colour": SlotAbility("NO", "NO")})
    assert told("share", ("with", "tom")) == Ability("MAYBE", {"with": SlotAbility("YES", "NO")})
    assert told("tip") == Ability("NO")
    assert told("fly", ("where", "home")) == Ability("NO", {"where": SlotAbility("NO", "NO")})


def test_faults_come_by_their_rates_and_the_same_for_a_seed() -> None:
    many = list(cards(*(f"s{n}" for n in range(4_000))).values())
    chosen = faults_by_rates(many, seed=1)
    assert faults_by_rates(reversed(many), seed=1) == chosen
    assert faults_by_rates(many, seed=2) != chosen
    shares = Counter(chosen.values())
    for fault, rate in RATES.items():
        assert shares[fault] / len(many) == pytest.approx(rate, abs=0.012)


def test_an_id_with_strange_characters_has_a_path_of_its_own() -> None:
    strange = ("a/b", "ü ö", "a?b#c", "a..b", "%2F")
    with Sandbox(cards(*strange)) as skills, SkillAsks(local(), fresh_metrics()) as asks:
        assert asks.ask([question(skills, skill) for skill in strange]) == [YES_HOME] * len(strange)
        assert skills.heard == dict.fromkeys(strange, 1)


def test_only_cards_that_declare_something_get_an_endpoint() -> None:
    silent = SkillCard(skill_id="mute", name="Mute")
    with sandbox(a="honest") as skills:
        given = with_endpoints([skills.cards["a"], silent], skills)
        assert [card.endpoint for card in given] == [skills.endpoint("a"), ""]


def test_what_is_no_question_is_a_bad_request() -> None:
    with sandbox(a="honest") as skills:
        for endpoint, body, code in ((skills.endpoint("a"), b"{", 400), (skills.endpoint("b"), b"{}", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(endpoint, body, PATIENCE_S)  # noqa: S310 the test's own server
            assert caught.value.code == code
            caught.value.close()


def test_a_port_that_is_taken_is_told() -> None:
    with (
        sandbox(a="honest") as skills,
        pytest.raises(WorkerError, match="cannot serve"),
        Sandbox(skills.cards, port=skills.port),
    ):
        pass


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "workers", "sandbox", *arguments]


def test_the_command_serves_until_it_is_asked_to_leave() -> None:
    lying = "rides:acorn=lying"
    with subprocess.Popen(
        run("--data", str(SAMPLE_DIR), "--port", "0", "--fault", lying),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline().strip()
            asked = Question(
                "rides:acorn", f"{first.rpartition('/')[0]}/rides%3Aacorn", "fly", (("moon", "blue"),)
            )
            body = encode_question(asked)
            with urllib.request.urlopen(asked.endpoint, body, PATIENCE_S) as answer:  # noqa: S310 our own server
                assert decode_answer(answer.read(), asked) == Ability("YES", {"moon": SlotAbility("YES", "YES")})
        finally:
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fault", "rides:acorn"), "SKILL=KIND"),
        (("--fault", "rides:acorn=lazy"), "with one of honest, slow"),
        (("--fault", "no:body=silent"), "'no:body'"),
    ],
)
def test_a_fault_that_says_nothing_is_asked_wrongly(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(run("--data", str(SAMPLE_DIR), *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_port_that_is_taken_fails_the_command(tmp_path: Path) -> None:
    (tmp_path / "skills.jsonl").write_text(json.dumps({"skill_id": "a", "name": "A"}) + "\n")
    with sandbox(a="honest") as skills:
        done = subprocess.run(
            run("--data", str(tmp_path), "--port", str(skills.port)), capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "cannot serve" in done.stderr
