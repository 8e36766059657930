"""The command line: help that helps, and refusals of one line with the right exit code."""

import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from model.bundle import write_bundle
from model.data import Row, read_skills
from model.pipeline import train
from model.sample import SAMPLE_DIR
from tests.conftest import Broker
from tests.workers.reporting import RECIPE
from workers import cli

ROW = '{"text": "get me a car", "skill_id": "rides:acorn", "source": "made up"}\n'
START = [sys.executable, "-c", "from workers.cli import main; main()"]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Namefree = Callable[..., Ran]


@pytest.fixture
def namefree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Namefree]:
    """Runs a command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["namefree", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        else:
            code = 0
        return Ran(int(code or 0), *capsys.readouterr())

    yield run
    logging.getLogger().handlers.clear()  # they hold this test's captured stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of one skill and two rows."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "skills.jsonl").write_text('{"skill_id": "rides:acorn", "name": "Acorn Rides"}\n')
    (data / "utterances.train.jsonl").write_text(ROW)
    (data / "utterances.dev.jsonl").write_text(ROW.replace("get me", "find me"))
    return data


@pytest.fixture(scope="module")
def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def walk(words: list[str], command: click.Command) -> Iterator[list[str]]:
    yield words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk([*words, name], inner)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(namefree: Namefree, name: str) -> None:
    command = cli.root.get_command(click.Context(cli.root), name)
    assert command is not None
    for words in walk([name], command):
        ran = namefree(*words, "--help")
        assert (ran.code, ran.err) == (0, "")
        example = re.search(r"Examples?:\n((?:  +\S.*\n)+)", ran.out)
        assert example, f"{words} has no example"
        assert re.search(rf"(namefree {' '.join(words)}\b|make demo)", example[1]), f"{words}: {example[1]}"


def test_the_first_help_lists_every_command(namefree: Namefree) -> None:
    ran = namefree("--help")
    assert ran.code == 0
    assert all(re.search(rf"^  {name} ", ran.out, re.MULTILINE) for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_wrong_flag_was_asked_wrongly(namefree: Namefree, name: str) -> None:
    ran = namefree(name, "--no-such-flag")
    assert (ran.code, ran.out) == (2, "")
    assert "No such option" in ran.err
    assert "--no-such-flag" in ran.err


def test_a_mistyped_command_gets_the_nearest_one(namefree: Namefree) -> None:
    ran = namefree("simulat")
    assert ran.code == 2
    assert "No such command 'simulat'. Did you mean 'simulate'?" in ran.err


def test_a_mistyped_flag_gets_the_nearest_one(namefree: Namefree) -> None:
    ran = namefree("simulate", "--utterance", "x")
    assert ran.code == 2
    assert "--utterances" in ran.err


REFUSED = {
    "no such folder": (["catalogue", "check", "nowhere"], "data folder nowhere is no folder"),
    "nothing to ask": (["simulate"], "either --data or --utterances"),
    "two things to ask": (["simulate", "--data", "a", "--utterances", "b"], "either --data or --utterances"),
    "no such file": (["simulate", "--utterances", "rows.jsonl"], "file rows.jsonl is not there"),
    "a rate of nothing": (["simulate", "--rate", "0"], "--rate"),
    "a split that is none": (["simulate", "--split", "held-back"], "'held-back' is not one of"),
    "no release": (["replay"], "Missing option '--release'"),
    "a place that is none": (["replay", "--release", ".", "--from", "noon"], "'noon' is no place in the topic"),
    "no partitions": (["topics", "create", "--partitions", "0"], "--partitions"),
    "a port that is none": (["broker", "up", "--port", "99999"], "--port"),
    "a cluster named already": (["--bootstrap", "far:1", "broker", "up"], "the cluster far:1 is named already"),
    "a property of the workers'": (["-X", "group.id=mine", "topics", "check"], "'group.id' is set by the workers"),
    "a property without value": (["-X", "acks", "topics", "check"], "-X takes PROPERTY=VALUE"),
    "no such settings file": (["--config", "no.toml", "topics", "check"], "no.toml cannot be read"),
}


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_what_was_asked_wrongly_is_one_line_and_exit_code_2(
    namefree: Namefree, arguments: list[str], says: str
) -> None:
    ran = namefree(*arguments)
    assert (ran.code, ran.out) == (2, "")
    [error] = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert says in error
    assert "Traceback" not in ran.err


def test_a_folder_in_order_is_said_to_be_so(namefree: Namefree, folder: Path) -> None:
    ran = namefree("catalogue", "check", folder)
    assert (ran.code, ran.out, ran.err) == (0, "", f"{folder} is in order\n")
    assert json.loads(namefree("catalogue", "check", folder, "--json").out)["problems"] == []


def test_bad_rows_are_named_and_the_check_fails(namefree: Namefree, folder: Path) -> None:
    (folder / "utterances.dev.jsonl").write_text("{\n" + ROW + "[]\n")
    ran = namefree("catalogue", "check", folder)
    assert ran.code == 1
    assert [line.split(": ")[0] for line in ran.out.splitlines()] == [
        f"{folder}/utterances.dev.jsonl:{line}" for line in (1, 2, 3)
    ]
    assert ran.err == f"Error: 3 problems in {folder}\n"
    assert len(json.loads(namefree("catalogue", "check", folder, "--json").out)["problems"]) == 3


def test_bad_data_is_one_line_and_exit_code_1(namefree: Namefree, folder: Path) -> None:
    (folder / "utterances.dev.jsonl").write_text(ROW + "{\n")
    ran = namefree("simulate", "--data", folder)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {folder}/utterances.dev.jsonl:2: no valid JSON")


def test_no_broker_of_ones_own_is_a_status_too(namefree: Namefree) -> None:
    ran = namefree("broker", "status", "--json")
    assert (ran.code, json.loads(ran.out)) == (1, {"running": False})
    assert "namefree broker up" in ran.err
    ran = namefree("broker", "down", "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"ended": False})


def test_topics_are_created_and_checked(namefree: Namefree, broker: Broker, topic_prefix: str) -> None:
    cluster = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)
    assert namefree(*cluster, "topics", "check").code == 1
    created = json.loads(namefree(*cluster, "topics", "create", "--partitions", "2", "--json").out)["created"]
    assert f"{topic_prefix}utterances" in created
    assert namefree(*cluster, "topics", "create").out == ""
    ran = namefree(*cluster, "topics", "check", "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"differences": []})


def test_a_catalogue_is_loaded(namefree: Namefree, broker: Broker, topic_prefix: str, folder: Path) -> None:
    cluster = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)
    ran = namefree(*cluster, "catalogue", "load", folder)
    assert ran.code == 1
    assert "skills is missing" in ran.err
    namefree(*cluster, "topics", "create", "--partitions", "1")
    ran = namefree(*cluster, "catalogue", "load", folder, "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"topic": f"{topic_prefix}skills", "skills": 1})


def test_skills_join_and_leave_the_topic(
    namefree: Namefree, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    cluster = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)
    namefree(*cluster, "topics", "create", "--partitions", "1")
    card = tmp_path / "card.json"
    card.write_text('{"skill_id": "rides:acorn", "name": "Acorn Rides", "phrases": ["get me a car"]}')
    ran = namefree(*cluster, "skills", "add", card, "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"topic": f"{topic_prefix}skills", "skills": ["rides:acorn"]})
    ran = namefree(*cluster, "skills", "remove", "rides:acorn", "rides:oak")
    assert ran.code == 1
    assert "'rides:oak' is neither on topic" in ran.err
    assert namefree(*cluster, "skills", "remove", "rides:acorn").code == 0
    ran = namefree(*cluster, "skills", "remove", "rides:acorn")
    assert ran.code == 1
    assert "'rides:acorn' has been removed already" in ran.err


def test_skills_join_and_leave_a_bundle(namefree: Namefree, tmp_path: Path) -> None:
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith("rides:")]
    rows = [Row(f"{phrase} now", card.skill_id) for card in cards for phrase in card.phrases]
    written = write_bundle(train(cards, rows, RECIPE, lambda step, note: None), tmp_path / "first")
    card = tmp_path / "card.json"
    card.write_text('{"skill_id": "rides:teapot", "name": "Teapot", "phrases": ["a teapot to the fair"]}')
    there = ("--bundle", tmp_path / "first", "--out", tmp_path / "second")
    ran = namefree("skills", "add", card, *there, "--fine-tune", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["parent"] == written.release
    found = json.loads(namefree("ask", "a teapot", "--bundle", tmp_path / "second", "--json").out)
    assert "rides:teapot" in {candidate["skill_id"] for candidate in found["candidates"]}
    back = ("--bundle", tmp_path / "second", "--out", tmp_path / "third")
    assert namefree("skills", "remove", "rides:teapot", *back).code == 0
    ran = namefree(
        "skills", "remove", "rides:teapot", "--bundle", tmp_path / "third", "--out", tmp_path / "fourth"
    )
    assert ran.code == 1
    assert "'rides:teapot' is not in the bundle" in ran.err


@pytest.mark.parametrize(
    ("card", "code"), [("{", 1), ('{"skill_id": "", "name": "x"}', 1), ('{"name": "x"}', 1), (None, 2)]
)
def test_a_card_that_is_none_is_refused_with_its_place(
    namefree: Namefree, tmp_path: Path, card: str | None, code: int
) -> None:
    path = tmp_path / "card.json"
    if card is not None:
        path.write_text(card)
    ran = namefree("skills", "add", path)
    assert ran.code == code
    assert "card.json" in ran.err
    assert namefree("skills", "add", path, "--bundle", tmp_path).code == 2


def test_decisions_that_stay_away_fail_the_simulation(
    namefree: Namefree, broker: Broker, topic_prefix: str, folder: Path
) -> None:
    cluster = ("--bootstrap", broker.bootstrap, "--prefix", topic_prefix)
    namefree(*cluster, "topics", "create", "--partitions", "1")
    ran = namefree(*cluster, "simulate", "--data", folder, "--patience", "0.2")
    assert (ran.code, ran.out) == (1, "")
    assert "1 of 1 utterances have no decision" in ran.err
    ran = namefree(*cluster, "simulate", "--data", folder, "--no-wait", "--json")
    assert (ran.code, json.loads(ran.out)["asked"]) == (0, 1)


def test_a_broker_that_is_not_there_is_one_line_within_seconds(nowhere: str, folder: Path) -> None:
    """All at once, each in a process of its own: what is waited for is the network, not the processor."""
    asked = [
        ["topics", "create"],
        ["topics", "check"],
        ["catalogue", "load", str(folder)],
        ["simulate", "--data", str(folder)],
        ["replay", "--release", str(folder)],
        ["releases", "list"],
    ]
    begin_s = time.monotonic()
    running = [_started(["--bootstrap", nowhere, *words]) for words in asked]
    ended = [(process.communicate(timeout=120), process.returncode) for process in running]
    assert time.monotonic() - begin_s < 120  # 11 s where six processes start at once
    for words, ((out, err), code) in zip(asked, ended, strict=True):
        assert (code, out) == (1, ""), (words, err)
        [line] = [line for line in err.splitlines() if not line.startswith("%")]
        assert line.startswith(f"Error: no Kafka broker answers at {nowhere}"), words
        assert "namefree broker up" in line


def _started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*START, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
