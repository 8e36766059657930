"""`namefree topics`: create the topics, check them on the cluster, and say who needs which rights there."""

import click
import msgspec

from topics.acls import COMMANDS, needed
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
      namefree topics acls --worker route --principal User:router
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


@command.command("acls")
@click.option(
    "--worker",
    "workers",
    multiple=True,
    metavar="COMMAND",
    help=f"Whose rights, as often as wanted: {', '.join(COMMANDS)}.  [default: all of them]",
)
@click.option("--principal", help="Who is to have them, as User:router.  [default: User:COMMAND]")
@click.option("--group", default="", help="The --group that the worker is started with, if it is another.")
@json_option
@click.pass_obj
def acls(settings: Settings, workers: tuple[str, ...], principal: str | None, group: str, as_json: bool) -> None:
    """The rights that a command needs on a cluster with an authorizer, no more and no less, with the prefix in
    them: as calls of Kafka's own tool, to which an administrator adds a --command-config. Asks no broker.

    \b
    Example:
      namefree topics acls --worker route --principal User:router
      namefree topics acls --worker "dead-letters redrive" --json
    """
    found = {name: needed(settings, name, group) for name in workers or COMMANDS}
    if as_json:
        print_json({name: msgspec.to_builtins(rights) for name, rights in found.items()})
        return
    for name, rights in found.items():
        for right in rights:
            click.echo(right.line(principal or f"User:{name.replace(' ', '-')}", settings.bootstrap))
