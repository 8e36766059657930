"""`namefree simulate`: simulated customers who ask, look at the decision and act on it."""

import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from model.data import Row, read_rows, split_path
from topics.errors import UsageError
from topics.settings import Settings
from workers.behaviour import Devices, Lies
from workers.console import json_option, print_json, print_table, progress
from workers.crowd import Plan, Summary, steps
from workers.customers import simulate
from workers.lifecycle import stop_on_signals

SHARE = click.FloatRange(0, 1)


@click.command("simulate")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder whose rows are asked.")
@click.option("--split", type=click.Choice(["train", "dev"]), default="dev", show_default=True)
@click.option("--utterances", type=click.Path(path_type=Path), help="A file of rows, instead of --data.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Asked a second.  [default: all it can]")
@click.option("--count", type=click.IntRange(1), help="How many to ask.  [default: every row once]")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="The first row to ask.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Seconds to ask for, rows over again.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the customers' moods.")
@click.option("--run", help="Makes ids unique: utterance RUN-7, customer sim-RUN-7.  [default: random]")
@click.option("--act/--no-act", default=True, show_default=True, help="Whether they tell outcomes.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Whether they look at decisions at all.")
@click.option("--inline-links", is_flag=True, help="Links travel in each utterance, not on the `links` topic.")
@click.option(
    "--in-flight",
    type=click.IntRange(1),
    default=2_000,
    show_default=True,
    help="Without --rate: at most so many are undecided.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds without any decision after which to give up.",
)
@click.option("--twice", type=SHARE, default=0.0, help="Share of outcomes that are told twice.")
@click.option("--late", type=SHARE, default=0.0, help="Share of outcomes that are told two seconds late.")
@click.option("--early", type=SHARE, default=0.0, help="Share of customers who hang up before any answer.")
@click.option("--unknown", type=SHARE, default=0.0, help="Share that tell of one more that was never asked.")
@click.option("--noise", type=SHARE, default=0.0, help="Share of outcomes that are another kind, at random.")
@json_option
@click.pass_obj
def command(
    settings: Settings,
    data: Path | None,
    split: Literal["train", "dev"],
    utterances: Path | None,
    rate: float | None,
    count: int | None,
    start: int,
    duration: float | None,
    seed: int,
    run: str | None,
    act: bool,
    wait: bool,
    inline_links: bool,
    in_flight: int,
    patience: float,
    twice: float,
    late: float,
    early: float,
    unknown: float,
    noise: float,
    as_json: bool,
) -> None:
    """Simulated customers, who ask rows of a data folder, look at the decision and act on it.

    They are simulated through and through: who has linked what is in the rows, and how they act is a table of
    made-up rates in workers/behaviour.py. Ends when each utterance has its decision. SIGTERM or Ctrl-C: asks no
    more, sees the asked through.

    \b
    Example:
      namefree simulate --data my-data --rate 200 --count 5000
      namefree simulate --data my-data --duration 600 --no-act
      namefree simulate --data my-data --twice 0.01 --early 0.01 --noise 0.2
    """
    plan = Plan(
        run=uuid.uuid4().hex[:8] if run is None else run,
        seed=seed,
        start=start,
        count=count,
        duration_s=duration,
        rate=rate,
        act=act,
        wait=wait,
        inline_links=inline_links,
        in_flight=in_flight,
        patience_s=patience,
        devices=Devices(twice=twice, late=late, early=early, unknown=unknown),
        lies=Lies(noise=noise),
    )
    rows = _rows(data, split, utterances)
    with stop_on_signals() as stop, progress("simulated customers", steps(rows, plan)) as advance:
        summary = simulate(settings, rows, plan, advance, stop.is_set)
    print_json(asdict(summary)) if as_json else print_summary(summary)


def _rows(data: Path | None, split: Literal["train", "dev"], utterances: Path | None) -> list[Row]:
    if (data is None) == (utterances is None):
        raise UsageError("name what is asked, by either --data or --utterances")
    path = split_path(data, split) if data is not None else utterances
    rows = read_rows(path) if path is not None else []
    if not rows:
        raise UsageError(f"file {path} has no rows to ask")
    return rows


def print_summary(summary: Summary) -> None:
    """The summary as a table on stdout."""
    fields = asdict(summary)
    acted = " ".join(f"{name} {count:,}" for name, count in fields.pop("outcomes").items() if count)
    actions = " ".join(f"{name} {count:,}" for name, count in fields.pop("actions").items() if count)
    latency = " ".join(f"{name} {value:,.0f}" for name, value in fields.pop("latency_ms").items())
    habits = " ".join(f"{name} {count:,}" for name, count in fields.pop("habits").items() if count)
    rows = [*fields.items(), ("actions", actions), ("outcomes", acted), ("latency_ms", latency)]
    rows += [("devices", habits)] if habits else []
    shown = [(name.replace("_", " "), _text(value)) for name, value in rows]
    print_table("Simulated customers", ["measure", "value"], shown)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
