"""`namefree`: the root of the command line. Flags over environment over `namefree.toml`; exit codes 0, 1, 2."""

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import click

from topics.errors import NamefreeError, UsageError
from topics.settings import DEFAULT_BOOTSTRAP, Settings
from workers import console

# command -> (module, one line of help); the modules are imported only when their command is called
COMMANDS = {
    "demo": ("demo", "The whole loop, once around, with a report at the end."),
    "ask": ("ask", "Show how one request is decided: shortlist, weights, reranked list, action."),
    "broker": ("broker", "Start, stop and look at the embedded Kafka broker."),
    "topics": ("topics", "Create the topics and check them on the cluster."),
    "catalogue": ("catalogue", "Check a data folder and put its skills on the topic."),
    "skills": ("skills", "Skills join and leave, on the cluster or in a bundle."),
    "train": ("train", "Train a bundle from a data folder."),
    "evaluate": ("evaluate", "Measure a bundle on rows that carry the intended skill."),
    "experiment": ("experiment", "What the model's parts are worth, measured: a table and a report."),
    "route": ("route", "The router: utterances in, decisions out, exactly once."),
    "aggregate": ("aggregate", "The aggregator: outcomes into statistics."),
    "cycle": ("cycle", "One distillation cycle: train, measure, publish or refuse."),
    "replay": ("replay", "Send a stretch of utterances through one or two releases, aside."),
    "simulate": ("simulate", "Simulated customers who ask, look and act."),
    "sandbox": ("sandbox", "Skills to try asking on: they answer for their cards, with faults."),
    "releases": ("releases", "Publish releases, promote them with a guard, go back, list them."),
    "dead-letters": ("dead_letters", "Events that nobody could take: look, mend, send back."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"workers.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"workers.commands.{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib  # only on this path, to keep every start quick

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _read_file(path: Path | None) -> dict[str, Any]:
    """`namefree.toml`: top-level keys as the flags, a [kafka] table of librdkafka properties, and a table for
    each command."""
    if path is None:
        path = Path("namefree.toml")
        if not path.exists():
            return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} is no valid TOML: {error}") from error


def _environment_properties() -> dict[str, str]:
    """NAMEFREE_KAFKA_SASL_USERNAME=x is the librdkafka property sasl.username=x."""
    start = "NAMEFREE_KAFKA_"
    return {k[len(start) :].lower().replace("_", "."): v for k, v in os.environ.items() if k.startswith(start)}


def _flag_properties(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise UsageError(f"-X takes PROPERTY=VALUE, got {name!r}")  # a value may be a secret: not shown
        found[name] = value
    return found


@click.group(
    cls=LazyGroup, context_settings={"auto_envvar_prefix": "NAMEFREE", "help_option_names": ["-h", "--help"]}
)
@click.option("--bootstrap", show_envvar=True, help=f"Kafka's address.  [default: {DEFAULT_BOOTSTRAP}]")
@click.option("--prefix", show_envvar=True, help="Set before every topic's name.")
@click.option(
    "-X",
    "--property",
    "properties",
    multiple=True,
    metavar="PROPERTY=VALUE",
    help="Any librdkafka property; also NAMEFREE_KAFKA_SASL_USERNAME=…, or [kafka] in the file.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Settings file.  [default: namefree.toml if there]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_envvar=True,
    show_default=True,
)
@click.version_option(package_name="namefree")
@click.pass_context
def root(
    ctx: click.Context,
    bootstrap: str | None,
    prefix: str | None,
    properties: tuple[str, ...],
    config: Path | None,
    log_level: str,
) -> None:
    """Chooses the skill that should answer a request that names none.

    \b
    Example:
      make demo
      namefree ask "get me a car" --linked rides:acorn
    """
    console.start_logging(log_level)
    file = _read_file(config)
    ctx.default_map = {name: value for name, value in file.items() if name != "kafka"}
    kafka = {str(name): str(value) for name, value in file.get("kafka", {}).items()}
    ctx.obj = Settings(
        bootstrap=bootstrap or file.get("bootstrap", DEFAULT_BOOTSTRAP),
        prefix=prefix if prefix is not None else file.get("prefix", ""),
        kafka={**kafka, **_environment_properties(), **_flag_properties(properties)},
    )


def main() -> None:
    """Runs a command; one line on stderr and exit code 1 or 2 where it fails."""
    # torch's threads share the cores with a broker and with each other's processes: spinning while they wait
    # made a training beside other work four times slower. Read once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        root.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except NamefreeError as error:
        console.fail(str(error))
        sys.exit(error.exit_code)
