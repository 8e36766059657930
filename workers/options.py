"""Options that several commands share, so that they read and behave the same."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def worker_options(metrics_host: str, metrics_port: int) -> Callable[[F], F]:
    """What every stream worker takes: --metrics-host, --metrics-port and --until-idle."""
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
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def metrics_port_of(host: str, asked: int | None, usual: int) -> int:
    """The port asked for; else the usual one, or 0 (any) where another worker of this machine has it."""
    if asked is not None:
        return asked
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return 0 if probe.connect_ex((host, usual)) == 0 else usual
