"""`namefree replay`: a stretch of utterances through one or two releases, aside from what serves."""

from dataclasses import asdict

import click

from model.selector import Selector
from topics.settings import Settings
from workers.console import json_option, print_json, print_table, progress
from workers.options import cost_options
from workers.replay import bundle_of, replay
from workers.stretch import Edge, parse_edge, stretch_between
from workers.tally import Gain, Report, Share


class EdgeType(click.ParamType):
    """Where a stretch begins or ends."""

    name = "place"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Edge:
        return parse_edge(str(value))


@click.command("replay")
@click.option("--release", required=True, help="A release's id, `current`, or the folder of a bundle.")
@click.option("--against", help="Another one to compare it with: changes are told from this to --release.")
@click.option("--from", "start", type=EdgeType(), help="First place, see above.  [default: the beginning]")
@click.option("--to", "end", type=EdgeType(), help="Place to stop before.  [default: what is there now]")
@click.option("--show", type=click.IntRange(0), default=20, show_default=True, help="Changes to print.")
@cost_options
@json_option
@click.pass_obj
def command(
    settings: Settings,
    release: str,
    against: str | None,
    start: Edge | None,
    end: Edge | None,
    show: int,
    costs: dict[str, float],
    as_json: bool,
) -> None:
    """Send a stretch of utterances through one or two releases, as fast as it goes, touching no group's offsets.

    A place is a list of partition:offset (then only the partitions named are read), an ISO time (UTC unless it
    says otherwise) or epoch milliseconds. Each utterance is decided with the links that were used at the time.
    A release must repeat its own decisions: its share of own decisions repeated is 1. It chooses among the skills
    of now, those of the skills topic among them, and by the costs given here, which are to be those of the router
    that is repeated; decisions that it made among other skills, by other costs, or with live statistics that are
    gone from their topic are counted apart. Top-1 is measured where an outcome told the intended skill, which
    leans towards the release that decided then.

    \b
    Example:
      namefree replay --release 3f9c01aa72b4
      namefree replay --release 3f9c01aa72b4 --against 81d2e6c05f17 --from 2026-05-01T08:00 --to 2026-05-01T09:00
      namefree replay --release my-bundle --from 0:120,1:98 --to 0:500,1:500 --json
      namefree replay --release 3f9c01aa72b4 --cost-question 0.5
    """
    stretch = stretch_between(settings, start, end)
    names = [release] if against is None else [release, against]
    selectors = [Selector.load(bundle_of(settings, name), costs=costs) for name in names]
    with progress("replay", stretch.offsets) as advance:
        report = replay(settings, selectors, stretch, show, advance)
    print_json(asdict(report)) if as_json else print_report(report)


def print_report(report: Report) -> None:
    """The report as tables on stdout."""
    print_table("Replay", ["measure", "value"], _measures(report))
    columns = ["release", "equal to recorded", "own decisions repeated", "own, in other conditions", "top-1"]
    rows = [
        (one.release, _share(one.equal), _share(one.equal_own), f"{one.elsewhere:,}", _share(one.top1))
        for one in report.releases
    ]
    print_table("Releases", columns, rows)
    if report.changes:
        title = f"Changed decisions, {len(report.changes)} of {report.changed:,}"
        told = [(change.text, change.before, change.after, change.meant) for change in report.changes]
        print_table(title, ["text", "before", "after", "meant"], told)


def _measures(report: Report) -> list[tuple[str, str]]:
    decided = ", ".join(f"{name} {count:,}" for name, count in report.decided_by.items()) or "nothing recorded"
    rows = [
        ("utterances", f"{report.utterances:,}"),
        ("malformed", f"{report.malformed:,}"),
        ("decided by", decided),
        ("outcome tells what was meant", _share(report.judged)),
        ("changed decisions", f"{report.changed:,}"),
        ("utterances/s", f"{report.utterances_per_s:,.0f}"),
    ]
    if report.live_missing:
        rows.append(("live statistics are gone of", f"{report.live_missing:,} decisions"))
    if report.between is not None:
        rows.append(("equal decisions of the two", _share(report.between)))
    if report.gain is not None:
        rows.append(("gain of top-1", _gain(report.gain)))
    return rows


def _share(share: Share) -> str:
    if share.share is None:
        return "none"
    return f"{share.share:.4f} [{share.low:.4f}, {share.high:.4f}] of {share.of:,}"


def _gain(gain: Gain) -> str:
    return f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
