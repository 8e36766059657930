"""Writes docs/reference/ from the code: events, topics, metrics, command line, AsyncAPI. `make docs` runs it.

What is written here depends on nothing but the code, so a test can say when the committed pages are old.
"""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec
from prometheus_client import CollectorRegistry, Metric

from docs.asyncapi import document
from model.pipeline import Recipe
from model.policy import Costs
from topics import events
from topics.acls import COMMANDS, Acl, needed
from topics.registry import CO_PARTITIONED, DAY_MS, TOPICS, Topic
from topics.settings import Settings
from workers.cli import root
from workers.failpoints import ACTIONS, PLACES, VARIABLE
from workers.metrics import AggregatorMetrics, RouterMetrics

HERE = Path(__file__).parent / "reference"
HELP_WIDTH = 100
NOTE = "<!-- Written by `make docs` from {}: change that instead. -->\n"
Schema = dict[str, Any]


def pages() -> dict[str, str]:
    """File name -> text of everything that is generated."""
    return {
        "events.md": NOTE.format("topics/events.py") + "\n".join(_events()),
        "topics.md": NOTE.format("topics/registry.py") + "\n".join(_topics()),
        "rights.md": NOTE.format("topics/acls.py") + "\n".join(_rights()),
        "metrics.md": NOTE.format("workers/metrics.py") + "\n".join(_metrics()),
        "command-line.md": NOTE.format("workers/commands/") + "\n".join(_command_line()),
        "failpoints.md": NOTE.format("workers/failpoints.py") + "\n".join(_failpoints()),
        "recipe.md": NOTE.format("model/pipeline.py") + "\n".join(_recipe()),
        "asyncapi.json": json.dumps(document(version("namefree")), indent=2, ensure_ascii=False) + "\n",
    }


def write(folder: Path) -> None:
    """Writes all pages to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _table(*columns: str) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + " --- |" * len(columns)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# events


def _events() -> Iterator[str]:
    yield "# Events\n"
    yield (
        "UTF-8 JSON, one object a message. Unknown fields are skipped, so a newer producer stops no older worker; "
        "a needed field that is missing, or a value out of bounds, makes the event a dead letter. A schema grows "
        "only by fields with defaults. [asyncapi.json](asyncapi.json) says the same for machines.\n"
    )
    event_kib, fold_mib = events.MAX_EVENT_BYTES // 1024, events.MAX_FOLD_BYTES // 1024**2
    yield f"An event is at most {event_kib} KiB, a fold {fold_mib} MiB.\n"
    schemas = _schemas()
    for event in dict.fromkeys(topic.event for topic in TOPICS):
        yield f"## {event.__name__}\n"
        for topic in (topic for topic in TOPICS if topic.event is event):
            yield f"Topic `{topic.name}`, key: {topic.key}.\n"
        yield from _described(event.__name__, schemas.pop(event.__name__))
    yield "## Parts\n"
    for name, schema in schemas.items():
        yield f"### {name}\n"
        yield from _described(name, schema)


def _schemas() -> dict[str, Schema]:
    _, components = msgspec.json.schema_components([topic.event for topic in TOPICS])
    return dict(components)


def _described(name: str, schema: Schema) -> Iterator[str]:
    yield " ".join((getattr(events, name).__doc__ or "").split()) + "\n"
    if "enum" in schema:
        yield "One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n"
        return
    yield from _table("field", "type", "default")
    needed = schema.get("required", [])
    for field, of in schema["properties"].items():
        yield _row(f"`{field}`", _type(of), "needed" if field in needed else f"`{json.dumps(of.get('default'))}`")
    yield ""


def _type(schema: Schema) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema["type"])
    if kind == "array":
        return f"list of {_type(schema['items'])}{_bounds(schema, 'Items')}"
    if kind == "object":
        of = schema.get("additionalProperties")
        return f"object of {_type(of)}" if isinstance(of, dict) else "object"
    if schema.get("contentEncoding"):
        return f"{kind} ({schema['contentEncoding']})"
    return f"{kind}{_bounds(schema, 'Length')}"


def _bounds(schema: Schema, what: str) -> str:
    """What is written behind a type: numbers from and to, lengths, items."""
    low = schema.get("minimum", schema.get(f"min{what}"))
    high = schema.get("maximum", schema.get(f"max{what}"))
    unit = {"Items": " items", "Length": " characters"}[what] if f"max{what}" in schema else ""
    if "exclusiveMinimum" in schema:
        return f", above {schema['exclusiveMinimum']:g}, up to {high:g}"
    if low is not None and high is not None:
        return f", {low:,} to {high:,}{unit}"
    if high is not None:
        return f", up to {high:,}{unit}"
    return "" if low is None else f", from {low:,}"


# topics


def _topics() -> Iterator[str]:
    yield "# Topics\n"
    yield (
        "`namefree topics create` makes them, `namefree topics check` says what differs on the cluster. "
        "`--prefix` is set before every name. Keys are partitioned with murmur2, as Java's clients do.\n"
    )
    yield from _table("topic", "carries", "event", "key", "cleanup", "kept", "partitions")
    for topic in TOPICS:
        event = f"[{topic.event.__name__}](events.md#{topic.event.__name__.lower()})"
        partitions = str(topic.partitions) if topic.partitions else "`--partitions`"
        yield _row(f"`{topic.name}`", topic.note, event, topic.key, topic.cleanup, _kept(topic), partitions)
    together = ", ".join(f"`{topic.name}`" for topic in CO_PARTITIONED)
    yield f"\n{together} must have equally many partitions: what belongs to one customer meets in one of them.\n"


def _kept(topic: Topic) -> str:
    kept_ms = topic.config.get("retention.ms")
    return f"{int(kept_ms) // DAY_MS} days" if kept_ms else "the newest of each key"


# rights


def _rights() -> Iterator[str]:
    yield "# Rights\n"
    yield (
        "What each command's user needs on a cluster with an authorizer, no more and no less: a test gives a user "
        "these and sees the command work, takes each away and sees it fail. `PREFIX` is that of `--prefix`, and "
        "may be nothing; a group is that of `--group`. A star: all that begins so. "
        "`namefree topics acls` prints them as calls of `kafka-acls`. See [security](../guides/security.md).\n"
    )
    yield from _table("command", "reads", "writes", "other")
    for command in COMMANDS:
        found = needed(Settings(prefix="PREFIX"), command)
        reads, writes = (_topics_with(found, operation) for operation in ("read", "write"))
        other = [right for right in found if right.resource != "topic" or right.operation not in ("read", "write")]
        yield _row(f"`{command}`", reads, writes, _other(other))
    yield ""


def _topics_with(found: list[Acl], operation: str) -> str:
    same = [right for right in found if (right.resource, right.operation) == ("topic", operation)]
    return ", ".join(f"`{right.name.removeprefix('PREFIX')}`" for right in same)


def _other(found: list[Acl]) -> str:
    everywhere = dict.fromkeys(right.operation for right in found if right.resource == "topic")
    told = [f"{operation} on every topic" for operation in everywhere]
    told += [
        f"{right.operation} on {right.resource} `{right.name}{'*' if right.prefixed else ''}`"
        for right in found
        if right.resource != "topic"
    ]
    return ", ".join(told)


# metrics


def _metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield (
        "At `http://HOST:PORT/metrics`, beside `/live` and `/ready` (200 or 503). No label carries a customer, a "
        "text or a skill.\n"
    )
    for title, metrics in (
        ("Router", RouterMetrics(CollectorRegistry())),
        ("Aggregator", AggregatorMetrics(CollectorRegistry())),
    ):
        yield f"## {title}\n"
        yield from _table("metric", "kind", "labels", "what")
        for metric in vars(metrics).values():
            if not isinstance(metric, CollectorRegistry):
                yield _metric_row(metric)
        yield ""


def _metric_row(metric: Any) -> str:
    found: Metric = next(iter(metric.describe()))
    name = f"{found.name}_total" if found.type == "counter" else found.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # the client has no public way to ask
    return _row(f"`{name}`", found.type, labels, found.documentation)


# failpoints


def _failpoints() -> Iterator[str]:
    yield "# Failpoints\n"
    yield (
        f"For tests of what surrounds a worker: `{VARIABLE}=router.after_poll=kill@37` in its environment kills "
        "it at its 37th passing of that place. More than one, by commas: `PLACE=ACTION@WHEN`. `@0.01` is a "
        "probability at each passing, drawn from `seed=N` among them; without `@` it is the first passing. Off, "
        "a place costs one call of a function that looks at nothing.\n"
    )
    yield from _table("action", "what")
    yield from (_row(f"`{action}`", what) for action, what in ACTIONS.items())
    yield ""
    yield from _table("place", "where")
    yield from (_row(f"`{place}`", where) for place, where in PLACES.items())
    yield ""


# recipe


def _recipe() -> Iterator[str]:
    yield "# Recipe\n"
    yield "What a training is made of, with its defaults: `model.pipeline.Recipe`, and what a decision costs.\n"
    recipe = Recipe()
    yield (
        f"Words start from static vectors where their package is installed: `pretrained = {recipe.pretrained}`. "
        f"What cards say of themselves is learned from too: `own_words = {recipe.own_words}`. "
        f"Share of the texts that is held out: `held_out = {recipe.held_out}`.\n"
    )
    parts = [part for part in msgspec.structs.asdict(recipe).values() if isinstance(part, msgspec.Struct)]
    for part in [*parts, Costs()]:
        yield f"## {type(part).__name__}\n"
        yield " ".join((type(part).__doc__ or "").split()) + "\n"
        yield from _table("setting", "default")
        yield from (_row(f"`{name}`", f"`{value}`") for name, value in msgspec.structs.asdict(part).items())
        yield ""


# command line


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    for path, command in _commands(root, ("namefree",)):
        yield f"## {' '.join(path)}\n"
        yield f"```text\n{_help(command, path)}\n```\n"


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name  # noqa: S101 a group lists what it has
            yield from _commands(found, (*path, name))


def _help(command: click.Command, path: tuple[str, ...]) -> str:
    settings = {**root.context_settings, **command.context_settings}
    context = click.Context(
        command, info_name=" ".join(path), terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH, **settings
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
