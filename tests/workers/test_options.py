"""Options that workers share."""

import socket

import click
import pytest
from click.testing import CliRunner

from model.policy import Costs
from topics.errors import UsageError
from workers.cli import root
from workers.options import cost_options, metrics_port_of

HOST = "127.0.0.1"


def costs_of(*arguments: str, **context: object) -> dict[str, float]:
    """What a command with these flags is given."""
    found: list[dict[str, float]] = []

    @click.command()
    @cost_options
    def command(costs: dict[str, float]) -> None:
        found.append(costs)

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False, **context)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return found[0]


def test_a_second_worker_on_the_machine_takes_another_port_and_one_that_was_asked_for_is_kept() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert metrics_port_of(HOST, None, port) == 0
        assert metrics_port_of(HOST, port, 1) == port
    assert metrics_port_of(HOST, None, port) == port


def test_without_a_flag_the_bundles_costs_hold() -> None:
    assert costs_of() == {}


def test_every_cost_has_its_flag() -> None:
    flags = (
        "--cost-wrong 2 --cost-wrong-enable 1.5 --cost-enable 0.2 --cost-question 0 --cost-missed 1 "
        "--explore 0 --explore-near 0.1"
    )
    costs = {"wrong": 2, "wrong_enable": 1.5, "enable": 0.2, "question": 0, "missed": 1, "explore": 0, "near": 0.1}
    assert costs_of(*flags.split()) == costs
    assert set(costs) == set(Costs.__struct_fields__)


def test_costs_are_read_from_the_environment_and_from_the_file_and_flags_win() -> None:
    context = {"auto_envvar_prefix": "NAMEFREE_ROUTE", "default_map": {"cost_wrong": 3, "cost_missed": 2}}
    environment = {"NAMEFREE_ROUTE_COST_WRONG": "4"}
    assert costs_of("--explore", "0.1", env=environment, **context) == {"wrong": 4, "missed": 2, "explore": 0.1}


@pytest.mark.parametrize("name", ["route", "replay", "ask"])
def test_the_commands_that_decide_take_the_same_costs(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    flags = {flag for parameter in command.params for flag in parameter.opts}
    costs = {"--cost-wrong", "--cost-wrong-enable", "--cost-enable", "--cost-question", "--cost-missed"}
    assert costs | {"--explore", "--explore-near"} <= flags


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--explore", "0.2"], "0<=x<=0.1"),
        (["--cost-wrong", "-1"], "x>=0"),
        (["--cost-question", "dear"], "'dear' is not a valid float"),
    ],
)
def test_a_cost_that_is_none_is_asked_wrongly(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(click.command()(cost_options(lambda costs: None)), arguments)
    assert (result.exit_code, says in result.output) == (2, True)


@pytest.mark.parametrize("cost", ["nan", "inf"])
def test_a_cost_is_a_number(cost: str) -> None:
    with pytest.raises(UsageError, match="cost missed is"):
        costs_of("--cost-missed", cost)
