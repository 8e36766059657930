"""`namefree dead-letters`."""

import base64
import re
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace
from rich.markup import escape

from topics.errors import UsageError
from topics.events import Redriven
from topics.settings import Settings
from workers.console import json_option, print_json, print_table
from workers.redrive import Letter, Sent, all_letters, letters_at, marker_of, markers, redrive, redrive_where
from workers.releases import utc

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
COLUMNS = ("id", "time", "reason", "source", "redriven", "message")
MESSAGE_CHARS = 60  # of a table's cell; `show` has all of it

reason_option = click.option("--reason", help="Those with this reason alone, such as not_json.")
topic_option = click.option("--topic", help="Those from this source topic alone; the prefix may be left out.")


@click.group("dead-letters")
def command() -> None:
    """Events that no worker could take: look at them, mend them, send them back.

    \b
    Example:
      namefree dead-letters list --since 2h
      namefree dead-letters show 0:12
      namefree dead-letters redrive 0:12 --value mended.json
    """


@command.command("list")
@reason_option
@topic_option
@click.option("--since", metavar="WHEN", help="Not older than 30m, 2h, 7d, or 2026-11-27T01:30 (UTC).")
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="Rows that are shown; 0: all."
)
@json_option
@click.pass_obj
def list_command(
    settings: Settings, reason: str | None, topic: str | None, since: str | None, limit: int, as_json: bool
) -> None:
    """The dead letters, newest first, and how many there are for each reason.

    \b
    Example:
      namefree dead-letters list --reason not_json --since 2h
      namefree dead-letters list --topic utterances --limit 0 --json
    """
    since_ms = since_in(since) if since else 0
    # without the bytes, which would not all fit into memory
    found = [
        Letter(one.partition, one.offset, replace(one.event, source_key=None, source_value=None))
        for one in all_letters(settings)
        if _wanted(settings, one, reason, topic) and one.event.event_time_ms >= since_ms
    ]
    found.sort(key=lambda one: (one.event.event_time_ms, one.partition, one.offset), reverse=True)
    counts = dict(Counter(one.event.reason for one in found).most_common())
    shown, known = found[: limit or None], markers(settings)
    if as_json:
        print_json({"counts": counts, "dead_letters": [_summary(one, known) for one in shown]})
        return
    print_table("", ("reason", "dead letters"), [(escape(reason), count) for reason, count in counts.items()])
    print_table("", COLUMNS, [_row(one, known) for one in shown])
    if len(shown) < len(found):
        click.echo(f"the newest {len(shown):,} of {len(found):,}: --limit 0 shows all", err=True)


@command.command("show")
@click.argument("letter_id", metavar="ID")
@json_option
@click.pass_obj
def show_command(settings: Settings, letter_id: str, as_json: bool) -> None:
    """One dead letter: why, where it stood, its headers, its key and its value; in base64 what is no text.

    \b
    Example:
      namefree dead-letters show 0:12
      namefree dead-letters show 0:12 --json | jq -r .value.text > mended.json
    """
    (letter,) = letters_at(settings, [letter_id])
    shown = _summary(letter, markers(settings)) | {
        "headers": {name: readable(_bytes(value)) for name, value in letter.headers or ()},
        "key": readable(letter.event.source_key),
        "value": readable(letter.event.source_value),
    }
    if as_json:
        print_json(shown)
        return
    headers = shown.pop("headers")
    for name, value in [*shown.items(), *((f"header {name}", value) for name, value in headers.items())]:
        click.echo(f"{_printable(name):12} {_plain(value)}")


@command.command("redrive")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@reason_option
@topic_option
@click.option(
    "--value",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the mended value, to be sent in place of the one ID's.",
)
@click.option("--again", is_flag=True, help="Those too that were redriven before.")
@json_option
@click.pass_obj
def redrive_command(
    settings: Settings,
    ids: tuple[str, ...],
    reason: str | None,
    topic: str | None,
    value: Path | None,
    again: bool,
    as_json: bool,
) -> None:
    """Send dead letters back to the topic that they came from, under their key, exactly once: those with these
    IDs, all or none, or all with a --reason, of which those are left out that cannot be sent.

    One that was sent back is refused from then on, whatever was killed in between. One whose value was cut when it
    was put aside can only be sent with a --value: its bytes are no longer whole.

    \b
    Example:
      namefree dead-letters redrive 0:12 0:15
      namefree dead-letters redrive 0:12 --value mended.json
      namefree dead-letters redrive --reason unknown_schema --topic utterances
    """
    if bool(ids) == bool(reason):
        raise UsageError("say which dead letters: one ID or more, or a --reason")
    if ids and topic:
        raise UsageError("--topic goes with --reason; an ID says which dead letter it is")
    if value and len(ids) != 1:
        raise UsageError("--value mends one dead letter: give one ID with it")
    if ids:
        sent = redrive(settings, dict.fromkeys(ids), value.read_bytes() if value else None, again)
    else:
        sent = redrive_where(settings, lambda letter: _wanted(settings, letter, reason, topic), again)
    _tell(sent, as_json)


def _tell(sent: Sent, as_json: bool) -> None:
    if as_json:
        print_json({"redriven": sent.ids, "left_out": sent.left_out})
        return
    click.echo(f"redriven {len(sent.ids):,}")
    for why, count in sent.left_out.items():
        click.echo(f"left out {count:,}: {why}")


def since_in(text: str) -> int:
    """Epoch milliseconds of `2h` ago, or of a time as ISO 8601 has it, UTC where no zone is named.

    Raises UsageError.

    >>> since_in("2026-11-22T17:30")
    1795368600000
    """
    if ago := re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII):
        return int((time.time() - int(ago[1]) * UNITS_S[ago[2]]) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--since {text!r} is neither an age, as 2h, nor a time, as 2026-11-27T01:30") from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def readable(data: bytes | None) -> dict[str, str] | None:
    """Bytes as `text` where they are some, else as `base64`; None for none.

    >>> readable(b"{}"), readable(b"\\xff"), readable(None)
    ({'text': '{}'}, {'base64': '/w=='}, None)
    """
    if data is None:
        return None
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _wanted(settings: Settings, letter: Letter, reason: str | None, topic: str | None) -> bool:
    topics = (None, letter.event.topic, letter.event.topic.removeprefix(settings.prefix))
    return reason in (None, letter.event.reason) and topic in topics


def _summary(letter: Letter, known: Mapping[str, Redriven]) -> dict[str, Any]:
    event, marker = letter.event, marker_of(letter, known)
    return {
        "id": letter.id,
        "time": utc(event.event_time_ms / 1000),
        "reason": event.reason,
        "source": str(letter.source),
        "message": event.message,
        "redriven": marker and utc(marker.event_time_ms / 1000),
    }


def _row(letter: Letter, known: Mapping[str, Redriven]) -> list[str]:
    found = _summary(letter, known)
    if len(found["message"]) > MESSAGE_CHARS:
        found["message"] = f"{found['message'][:MESSAGE_CHARS]}…"
    return [escape(_printable(found[name] or "")) for name in COLUMNS]


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _plain(value: Any) -> str:
    """A value on a terminal: text, or what it is instead."""
    if isinstance(value, dict):
        return _printable(value["text"]) if "text" in value else f"(base64) {value['base64']}"
    return "–" if value is None else _printable(str(value))


def _printable(text: str) -> str:
    """Without what would steer the terminal: the bytes are somebody else's."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
