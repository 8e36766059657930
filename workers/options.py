"""Options that several commands share, so that they read and behave the same."""

import functools
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import click

from model.policy import MAX_EXPLORE, Costs, set_costs
from topics.errors import UsageError
from topics.settings import MAX_POLL_INTERVAL_MS

F = TypeVar("F", bound=Callable[..., Any])


def worker_options(metrics_host: str, metrics_port: int) -> Callable[[F], F]:
    """What every stream worker takes: --metrics-host, --metrics-port, --until-idle and --stalled-after."""
    options = (
        click.option("--metrics-host", default=metrics_host, show_default=True),
        click.option(
            "--metrics-port",
            type=click.IntRange(0, 65_535),
            help="/metrics, /live and /ready; 0 takes any free port and logs it.  "
            f"[default: {metrics_port}, or a free one where that is taken]",
        ),
        click.option(
            "--until-idle",
            "until_idle_s",
            type=click.FloatRange(0),
            default=0.0,
            metavar="SECONDS",
            help="End once nothing came for so long.  [default: never]",
        ),
        click.option(
            "--stalled-after",
            "stalled_after_s",
            type=click.FloatRange(0, min_open=True),
            default=MAX_POLL_INTERVAL_MS / 1000,
            show_default=True,
            metavar="SECONDS",
            help="/live says no once the loop has not turned for so long.",
        ),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_COSTS = {  # of `model.policy.Costs`: the flag's name, most that it may be, what it says
    "wrong": ("cost_wrong", None, "Cost of a skill that opens and was not meant."),
    "wrong_enable": ("cost_wrong_enable", None, "Cost of a suggestion that was not meant."),
    "enable": ("cost_enable", None, "Cost of a suggestion that was meant: linking it."),
    "question": ("cost_question", None, "Cost of asking which of three."),
    "missed": ("cost_missed", None, "Cost of silence where a skill was meant."),
    "explore": ("explore", MAX_EXPLORE, "Share of requests with near ties that get one of them."),
    "near": ("explore_near", None, "How much more a near tie may cost."),
}


def cost_options(command: F) -> F:
    """Gives a command the flags of `Costs` and hands on those that were set as one argument, `costs`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(flag) for name, (flag, _, _) in _COSTS.items()}
        costs = {name: cost for name, cost in own.items() if cost is not None}
        try:
            set_costs(Costs(), costs)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return command(*args, costs=costs, **values)

    for flag, most, told in reversed(_COSTS.values()):
        spelled = f"--{flag.replace('_', '-')}"
        add = click.option(
            spelled,
            flag,
            type=click.FloatRange(0, most),
            metavar="NUMBER",
            help=f"{told}  [default: the bundle's]",
        )
        wrapped = add(wrapped)
    return wrapped  # type: ignore[return-value]  # the same command, but for the arguments that click gives it


def metrics_port_of(host: str, asked: int | None, usual: int) -> int:
    """The port asked for; else the usual one, or 0 (any) where another worker of this machine has it."""
    if asked is not None:
        return asked
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return 0 if probe.connect_ex((host, usual)) == 0 else usual
