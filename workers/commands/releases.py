"""`namefree releases`."""

from collections.abc import Mapping
from pathlib import Path

import click
import msgspec
import orjson

from topics.errors import UsageError
from topics.events import Release
from topics.settings import Settings
from workers.console import figures, json_option, print_json, print_table
from workers.descent import draw, line
from workers.lifecycle import stop_on_signals
from workers.promotion import Promotion, PromotionOptions, promote
from workers.promotion_options import promotion_options
from workers.releases import (
    CURRENT,
    SERVING_KEYS,
    all_releases,
    publish,
    record,
    roll_back,
    serve,
    serving_now,
    utc,
)


@click.group()
def command() -> None:
    """Publish releases, promote them with a guard, go back, list them, look at one.

    \b
    Example:
      namefree releases publish my-bundle
      namefree releases promote 166bbd2c0c39
      namefree releases rollback
      namefree releases list
    """


@command.command("publish")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--note", default="", help="A line for whoever lists the releases.")
@click.option(
    "--measures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file of measures, name to number, as `namefree evaluate --json` prints; nested names are joined.",
)
@click.option(
    "--serve/--no-serve",
    "serves",
    default=True,
    show_default=True,
    help="Whether all customers are served by it at once; without, it is there for `releases promote`.",
)
@click.option("--parent", default="", help="The release that this one was trained from.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="NAMEFREE_STORE",
    show_envvar=True,
    help="Folder that publishers and routers share.  [default: ~/.local/share/namefree/releases]",
)
@json_option
@click.pass_obj
def publish_command(
    settings: Settings,
    bundle: Path,
    note: str,
    measures: Path | None,
    serves: bool,
    parent: str,
    store: Path | None,
    as_json: bool,
) -> None:
    """Copy BUNDLE into the release store and have the routers serve it, or record it alone.

    \b
    Example:
      namefree releases publish runs/first --note "first of the autumn catalogue"
      namefree releases publish runs/second --no-serve
    """
    from workers.release_store import default_store  # here, as it brings the networks, which a list needs not

    write = publish if serves else record
    release = write(settings, bundle, store or default_store(), parent, read_measures(measures), note)
    if as_json:
        print_json(msgspec.to_builtins(release))
    else:
        click.echo(f"{release.release} {'serves from' if serves else 'is recorded, and lies in'} {release.bundle}")


@command.command("promote")
@click.argument("release_id", metavar="RELEASE")
@promotion_options
@click.option("--without-guard", is_flag=True, help="All customers at once, untried. For emergencies.")
@json_option
@click.pass_obj
def promote_command(
    settings: Settings, release_id: str, promotion: PromotionOptions, without_guard: bool, as_json: bool
) -> None:
    """Have a recorded release serve, stage by stage: unseen beside the one that serves, then for a few customers,
    for more, for all of them, and last as `current`. RELEASE may be the start of its id.

    Where it disagrees too much, loses what customers accept, or brings them significantly more friction (outcomes
    other than accepted or enabled), it is taken back by itself; where too few customers ask, it is not promoted.
    Both are answers, and exit with 0: read the verdict. SIGTERM, a crash and a lost network end the trial too,
    after a minute at most, and the promotion can be run again.

    \b
    Example:
      namefree releases promote 166bbd2c0c39
      namefree releases promote 166b --canary-share 0.002 --canary-outcomes 1000 --within 240
      namefree releases promote 166b --shadow-decisions 200 --straight --json
    """
    release = find_release(settings, release_id)
    if without_guard:
        serve(settings, release)
        done = Promotion(release.release, "", True, "promoted", "without a guard, as asked for")
    else:
        with stop_on_signals() as stop:
            done = promote(settings, release, promotion, stop=stop)
    show_promotion(done, as_json)


def show_promotion(done: Promotion, as_json: bool) -> None:
    """What became of a promotion, on stdout."""
    if as_json:
        print_json(msgspec.to_builtins(done))
        return
    if done.stages:
        rows = [(stage.name, stage.verdict, figures(stage.measures)) for stage in done.stages]
        print_table("", ("stage", "verdict", "measures"), rows)
    click.echo(f"{done.release} {done.verdict}: {done.reason} (decided {done.seen_share:.2%} of the requests)")


@command.command("rollback")
@click.option(
    "--to", "release_id", metavar="RELEASE", help="Go back to this one.  [default: the serving one's parent]"
)
@json_option
@click.pass_obj
def rollback_command(settings: Settings, release_id: str | None, as_json: bool) -> None:
    """Have the routers serve an earlier release again, and end canary and shadow. `--to current` ends these alone.

    \b
    Example:
      namefree releases rollback
      namefree releases rollback --to 166bbd2c0c39
      namefree releases rollback --to current
    """
    target = roll_back(settings, find_release(settings, release_id) if release_id else None)
    if as_json:
        print_json(msgspec.to_builtins(target))
    else:
        click.echo(f"{target.release} serves from {target.bundle}")


@command.command("list")
@json_option
@click.pass_obj
def list_command(settings: Settings, as_json: bool) -> None:
    """All releases, the oldest first; which one serves, which is on trial as canary or shadow, and what became of
    the others.

    \b
    Example:
      namefree releases list
    """
    serving = serving_now(settings)
    rows = [(release, roles_of(release, serving)) for release in all_releases(settings)]
    if as_json:
        print_json(
            [
                {**msgspec.to_builtins(release), "serving": CURRENT in roles, "roles": roles}
                for release, roles in rows
            ]
        )
        return
    columns = ("release", "published", "parent", "measures", "serves as", "note")
    print_table("", columns, [_row(release, roles) for release, roles in rows])


def roles_of(release: Release, serving: Mapping[str, Release]) -> dict[str, float]:
    """The keys under which a release serves now, and the share of the customers for each."""
    return {key: one.share for key, one in serving.items() if one.digest == release.digest}


@command.command("show")
@click.argument("release_id", metavar="ID")
@json_option
@click.pass_obj
def show_command(settings: Settings, release_id: str, as_json: bool) -> None:
    """One release, what made it, and its line of descent with what was refused beside it; ID may be the start of
    its id, or `current`, `canary`, `shadow`.

    \b
    Example:
      namefree releases show current
    """
    release = find_release(settings, release_id)
    known = all_releases(settings)
    if as_json:
        descent = [one.release for one in line(known, release)]
        print_json({**msgspec.to_builtins(release), "descent": descent})
        return
    shown = {**msgspec.to_builtins(release), "event_time_ms": utc(release.event_time_ms / 1000)}
    shown["measures"] = figures(release.measures)
    made_by = shown.pop("provenance")
    rows = [("published" if name == "event_time_ms" else name, value) for name, value in shown.items()]
    print_table("", ("field", "value"), [(name, str(value)) for name, value in rows])
    if made_by:
        print_table("What made it", ("part", "which"), list(made_by.items()))
    current = serving_now(settings).get(CURRENT)
    for row in draw(known, release, current.release if current else ""):
        click.echo(row)


def find_release(settings: Settings, release_id: str) -> Release:
    """The one release whose id starts so, or that a key names. Raises UsageError for none, or more than one."""
    if release_id in SERVING_KEYS:
        found = [release for key, release in serving_now(settings).items() if key == release_id]
    else:
        found = [release for release in all_releases(settings) if release.release.startswith(release_id)]
    if len(found) != 1:
        count = "no release has" if not found else f"{len(found)} releases have"
        raise UsageError(f"{count} an id that starts with {release_id!r}: see `namefree releases list`")
    return found[0]


def read_measures(path: Path | None) -> dict[str, float]:
    """The numbers of a JSON file, nested names joined with a dot. Raises UsageError where it is no such file."""
    if path is None:
        return {}
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError(f"measures {path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"measures {path} hold {type(found).__name__}, expected an object of names and numbers")
    return _flat(found)


def _flat(values: dict[str, object], start: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{start}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{start}{name}"] = float(value)
    return found


def _row(release: Release, roles: Mapping[str, float]) -> tuple[object, ...]:
    serves = ", ".join(key if key == CURRENT else f"{key} {share:.2%}" for key, share in roles.items())
    published = utc(release.event_time_ms / 1000)
    return release.release, published, release.parent, figures(release.measures), serves, release.note
