"""`namefree aggregate`."""

import click
import msgspec
import orjson

from topics.settings import Settings
from workers.aggregator import AggregatorOptions, Write
from workers.aggregator_process import run_aggregator
from workers.lifecycle import stop_on_signals
from workers.memory import keep_one_heap
from workers.options import metrics_port_of, worker_options

DEFAULTS = AggregatorOptions()


def print_write(write: Write) -> None:
    """One JSON line for a partition's write."""
    click.echo(orjson.dumps(msgspec.to_builtins(write)))


def be_silent(_write: Write) -> None:
    """Without --json nothing is printed."""


@click.command()
@click.option("--group", default=DEFAULTS.group, show_default=True, help="The aggregators that share the work.")
@click.option(
    "--instance",
    default="",
    help="This aggregator's name in its group; no two at once. Under the same name a restart after a kill has its "
    "partitions at once, where a new one waits 10 s; when it ends for good, the others wait so long.  "
    "[default: a new one each start]",
)
@click.option(
    "--bucket-minutes",
    type=click.IntRange(1, 24 * 60),
    default=DEFAULTS.bucket_minutes,
    show_default=True,
    help="Event time that one fold covers until its day takes it up; another value begins new folds beside the "
    "old ones.",
)
@click.option(
    "--join-window",
    "join_window_minutes",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULTS.join_window_minutes,
    show_default=True,
    metavar="MINUTES",
    help="How far an outcome may stand from its decision. Memory and the time of a restart grow with it.",
)
@click.option(
    "--write-every",
    "write_every_s",
    type=click.FloatRange(0),
    default=DEFAULTS.write_every_s,
    show_default=True,
    metavar="SECONDS",
    help="How long folded events may wait to be written.",
)
@click.option(
    "--write-every-events",
    type=click.IntRange(1),
    default=DEFAULTS.write_every_events,
    show_default=True,
    help="How many events of a partition may wait to be written.",
)
@worker_options(DEFAULTS.metrics_host, DEFAULTS.metrics_port)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each write of a partition.")
@click.pass_obj
def command(
    settings: Settings,
    group: str,
    instance: str,
    bucket_minutes: int,
    join_window_minutes: float,
    write_every_s: float,
    write_every_events: int,
    metrics_host: str,
    metrics_port: int | None,
    until_idle_s: float,
    stalled_after_s: float,
    as_json: bool,
) -> None:
    """The aggregator: joins outcomes to their decisions and folds both into statistics.

    Takes part in a group, so start as many as there is work for, up to one a partition. Killed at any moment and
    started again, it goes on so that each event is folded once. SIGTERM and SIGINT write what is folded and
    leave, a second one ends at once.

    \b
    Example:
      namefree aggregate
      namefree aggregate --metrics-port 0 --until-idle 5 --json
      namefree aggregate --instance aggregator-0
    """
    options = AggregatorOptions(
        group=group,
        instance=instance,
        bucket_minutes=bucket_minutes,
        join_window_minutes=join_window_minutes,
        write_every_s=write_every_s,
        write_every_events=write_every_events,
        metrics_host=metrics_host,
        metrics_port=metrics_port_of(metrics_host, metrics_port, DEFAULTS.metrics_port),
        until_idle_s=until_idle_s,
        stalled_after_s=stalled_after_s,
    )
    keep_one_heap()
    with stop_on_signals() as stop:
        run_aggregator(settings, options, stop, print_write if as_json else be_silent)
