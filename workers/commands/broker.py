"""`namefree broker`: the embedded Kafka, started, looked at, ended."""

from pathlib import Path
from typing import Any

import click
from msgspec import structs

from topics.broker import BrokerState, broker_down, broker_status, broker_up
from topics.errors import BrokerError, UsageError
from topics.settings import DEFAULT_BOOTSTRAP, Settings
from workers.console import json_option, print_json, print_table


@click.group("broker")
def command() -> None:
    """Start, stop and look at the embedded Kafka broker, which outlives the command.

    \b
    Example:
      namefree broker up
      namefree broker status
      namefree broker down
    """


@command.command("up")
@click.option("--port", type=click.IntRange(1, 65_535), default=9092, show_default=True, help="Where it listens.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The one address that it listens on.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Its folder.  [default: in namefree's home]")
@click.option("--fresh", is_flag=True, help="Begin with empty topics: what is in the folder is removed.")
@json_option
@click.pass_obj
def up(settings: Settings, port: int, host: str, data_dir: Path | None, fresh: bool, as_json: bool) -> None:
    """Start the broker, unless it runs, and return once it answers.

    \b
    Example:
      namefree broker up
      namefree broker up --port 9192 --fresh
    """
    if settings.bootstrap not in (DEFAULT_BOOTSTRAP, f"{host}:{port}"):
        raise UsageError(
            f"the cluster {settings.bootstrap} is named already, by --bootstrap, NAMEFREE_BOOTSTRAP or the "
            "settings file: leave it out to start an embedded broker"
        )
    state = broker_up(data_dir, port, host, fresh, lambda line: click.echo(line, err=True))
    _show(state, as_json)
    if state.bootstrap != DEFAULT_BOOTSTRAP:
        click.echo(f"to use it: export NAMEFREE_BOOTSTRAP={state.bootstrap}", err=True)


@command.command("status")
@json_option
def status(as_json: bool) -> None:
    """Show the broker that runs; exit code 1 where none does.

    \b
    Example:
      namefree broker status --json
    """
    state = broker_status()
    _show(state, as_json)
    if state is None:
        raise BrokerError("no embedded broker runs: start one with `namefree broker up`")


@command.command("down")
@json_option
def down(as_json: bool) -> None:
    """End the broker; its data stays. Nothing to end is fine.

    \b
    Example:
      namefree broker down
    """
    state = broker_down(lambda line: click.echo(line, err=True))
    if as_json:
        print_json({"ended": state is not None})
    else:
        click.echo("no embedded broker was running" if state is None else f"ended the broker of {state.bootstrap}")


def _show(state: BrokerState | None, as_json: bool) -> None:
    fields: dict[str, Any] = {"running": state is not None}
    if state is not None:
        fields |= {"bootstrap": state.bootstrap, **structs.asdict(state)}
    if as_json:
        print_json(fields)
    elif state is not None:
        print_table("", ["broker", ""], list(fields.items()))
