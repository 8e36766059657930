"""`namefree route`."""

from functools import partial
from pathlib import Path

import click
import msgspec
import orjson
import torch

from model.selector import Selector
from topics.settings import Settings
from workers.asking_options import AskOptions, asking_options
from workers.beginning import BEGINNINGS
from workers.lifecycle import stop_on_signals
from workers.live import LiveOptions
from workers.options import cost_options, metrics_port_of, worker_options
from workers.router import Commit
from workers.router_process import RouterOptions, run_router

DEFAULTS = RouterOptions()
LIVE = LiveOptions()


def print_commit(commit: Commit) -> None:
    """One JSON line for a committed batch."""
    click.echo(orjson.dumps(msgspec.to_builtins(commit)))


def be_silent(_commit: Commit) -> None:
    """Without --json nothing is printed."""


@click.command()
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Serve this bundle alone, instead of the release that the releases topic names.",
)
@click.option("--group", default=DEFAULTS.group, show_default=True, help="The routers that share the work.")
@click.option(
    "--instance",
    default="",
    help="This router's name in its group; no two at once. One that a restart keeps shortens the recovery after "
    "a kill by up to 15 s.  [default: a new one each start]",
)
@click.option(
    "--group-protocol",
    type=click.Choice(["classic", "consumer"]),
    default=DEFAULTS.group_protocol,
    show_default=True,
    help="classic: cooperative-sticky; consumer: the broker assigns (KIP-848).",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=DEFAULTS.batch,
    show_default=True,
    help="Most utterances in one transaction.",
)
@click.option(
    "--begin",
    type=click.Choice(BEGINNINGS),
    default=DEFAULTS.begin,
    show_default=True,
    help="Where a group without offsets begins. new: with the first utterance, unless there were decisions: then "
    "its offsets have expired or are lost, and the router stops rather than decide everything again. earliest, "
    "latest: there, anyway.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of the networks. More than one pays only on cores that nothing else uses: beside a busy broker "
    "two were fourteen times slower than one. To use more cores start more routers.",
)
@click.option(
    "--max-dead-share",
    type=click.FloatRange(0, 1),
    default=DEFAULTS.max_dead_share,
    show_default=True,
    help="Stop when this share of the last 10,000 events could not be taken; 0 never stops.",
)
@cost_options
@asking_options
@click.option(
    "--live-statistics/--no-live-statistics",
    default=False,
    show_default=True,
    help="Follow the statistics topic between two cycles: a skill whose launches customers refuse against all "
    "expectation loses its place at once.",
)
@click.option(
    "--live-half-life",
    "half_life_minutes",
    type=click.FloatRange(0, min_open=True),
    default=LIVE.half_life_minutes,
    show_default=True,
    metavar="MINUTES",
    help="What is held against a skill halves in this time; after about as long it is tried again.",
)
@click.option(
    "--live-refresh",
    "refresh_s",
    type=click.FloatRange(0, min_open=True),
    default=LIVE.refresh_s,
    show_default=True,
    metavar="SECONDS",
    help="How often live statistics are made anew.",
)
@worker_options(DEFAULTS.metrics_host, DEFAULTS.metrics_port)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each committed batch.")
@click.pass_obj
def command(
    settings: Settings,
    bundle: Path | None,
    group: str,
    instance: str,
    group_protocol: str,
    batch: int,
    begin: str,
    threads: int,
    max_dead_share: float,
    metrics_host: str,
    metrics_port: int | None,
    until_idle_s: float,
    stalled_after_s: float,
    asking: AskOptions | None,
    costs: dict[str, float],
    live_statistics: bool,
    half_life_minutes: float,
    refresh_s: float,
    as_json: bool,
) -> None:
    """The router: decides each utterance exactly once.

    Takes part in a group, so start as many as there is work for. Follows the releases topic and changes to a new
    release while it runs. SIGTERM and SIGINT finish the batch, a second one ends at once.

    \b
    Example:
      namefree route
      namefree route --bundle runs/first --metrics-port 0 --until-idle 5 --json
      namefree route --ask --ask-deadline-ms 80
      namefree route --cost-question 0.5 --explore 0
      namefree route --live-statistics --live-half-life 30
    """
    options = RouterOptions(
        group=group,
        instance=instance,
        group_protocol=group_protocol,
        batch=batch,
        begin=begin,
        bundle=bundle,
        max_dead_share=max_dead_share,
        metrics_host=metrics_host,
        metrics_port=metrics_port_of(metrics_host, metrics_port, DEFAULTS.metrics_port),
        until_idle_s=until_idle_s,
        stalled_after_s=stalled_after_s,
        asking=asking,
        live=LiveOptions(half_life_minutes=half_life_minutes, refresh_s=refresh_s) if live_statistics else None,
    )
    torch.set_num_threads(threads)
    with stop_on_signals() as stop:
        load = partial(Selector.load, costs=costs)
        run_router(settings, options, load, stop, print_commit if as_json else be_silent)
