"""What a person sees: data on stdout, logs and progress on stderr; bars on a terminal, plain lines off it."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

LINE_EVERY_S = 5.0  # a plain progress line off a terminal: often enough to see life, rare enough for a log

PIPE_WIDTH = 160  # off a terminal there is no width to fit; rich would fold tables at 80

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


LIBRARIES = ("aiokafka", "faust", "mode", "matplotlib", "jgo", "asyncio", "faiss")
AGAIN_S = 10.0  # a line of a library, at the earliest: of a broker that is away some tell thirty times a second


def start_logging(level: str) -> None:
    """Plain log lines on stderr: time, level, logger, message. Libraries warn only, and not without end."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for noisy in LIBRARIES:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    for handler in logging.getLogger().handlers:
        handler.addFilter(seldom(LIBRARIES, AGAIN_S))


def seldom(names: Sequence[str], every_s: float) -> Callable[[logging.LogRecord], bool]:
    """A log filter: what these loggers say in the same words comes through once in `every_s`."""
    due_s: dict[tuple[str, str], float] = {}

    def lets_through(record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in names:
            return True
        words = record.name, str(record.msg)
        if record.created < due_s.get(words, 0.0):
            return False
        due_s[words] = record.created + every_s
        return True

    return lets_through


def fail(message: str) -> None:
    """One line of error on stderr."""
    click.echo(f"Error: {message}", err=True)


def print_json(value: Any) -> None:
    """`value` as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A small table on stdout: text to the left, numbers to the right."""
    rows = [list(row) for row in rows]
    table = Table(title=title or None, title_justify="left")
    for at, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[at], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    out.print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)


class Advance(Protocol):
    """Tells a progress how far the work is."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal, a line every few seconds off it. Yields `advance(done, note)`, done being absolute."""
    if err.is_terminal:
        with _bar() as bar:
            task = bar.add_task(label, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
    else:
        yield _line_writer(label, total)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
    )


def _line_writer(label: str, total: int) -> Advance:
    log = logging.getLogger("namefree.progress")
    last = [time.monotonic()]

    def advance(done: int, note: str = "") -> None:
        if done >= total or time.monotonic() - last[0] >= LINE_EVERY_S:
            last[0] = time.monotonic()
            log.info("%s: %s of %s %s", label, f"{done:,}", f"{total:,}", note)

    return advance


def figures(values: Mapping[str, float], digits: int = 3) -> str:
    """`a 0.123, b 4.000`: measures on one line."""
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
