"""`namefree topics`: create the topics and check them on the cluster."""

import click

from topics.errors import BrokerError
from topics.registry import TOPICS, check_topics, create_topics
from topics.settings import Settings
from workers.console import json_option, print_json


@click.group("topics")
def command() -> None:
    """Create the topics and check them on the cluster.

    \b
    Example:
      namefree topics create --partitions 6
      namefree topics check
    """


@command.command("create")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1_000),
    default=6,
    show_default=True,
    help="Of each topic that is keyed by customer: bounds how many routers can share the work.",
)
@click.option(
    "--replication",
    type=click.IntRange(1, 32_767),
    help="Copies of each partition.  [default: what the broker says]",
)
@json_option
@click.pass_obj
def create(settings: Settings, partitions: int, replication: int | None, as_json: bool) -> None:
    """Create the topics that are missing. Those that are there stay as they are.

    \b
    Example:
      namefree topics create --partitions 12 --replication 3
    """
    created = create_topics(settings, partitions, -1 if replication is None else replication)
    if as_json:
        print_json({"created": created})
    for name in [] if as_json else created:
        click.echo(name)
    click.echo(f"created {len(created)} of {len(TOPICS)} topics, the others were there", err=True)


@command.command("check")
@json_option
@click.pass_obj
def check(settings: Settings, as_json: bool) -> None:
    """Say what differs on the cluster from what should be. Exit code 1 where something does.

    \b
    Example:
      namefree topics check
    """
    differences = check_topics(settings)
    if as_json:
        print_json({"differences": differences})
    for line in [] if as_json else differences:
        click.echo(line)
    if differences:
        raise BrokerError(f"{len(differences)} differences on {settings.bootstrap}")
    click.echo(f"all {len(TOPICS)} topics are as they should be", err=True)
