"""`namefree releases`."""

import time
from pathlib import Path

import click
import msgspec
import orjson

from topics.errors import UsageError
from topics.events import Release
from topics.settings import Settings
from workers.console import figures, json_option, print_json, print_table
from workers.releases import all_releases, current_release, publish


@click.group()
def command() -> None:
    """Publish releases, list them, look at one.

    \b
    Example:
      namefree releases publish my-bundle
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
    parent: str,
    store: Path | None,
    as_json: bool,
) -> None:
    """Copy BUNDLE into the release store and have the routers serve it.

    \b
    Example:
      namefree releases publish runs/first --note "first of the autumn catalogue"
    """
    from workers.release_store import default_store  # here, as it brings the networks, which a list needs not

    release = publish(settings, bundle, store or default_store(), parent, read_measures(measures), note)
    if as_json:
        print_json(msgspec.to_builtins(release))
    else:
        click.echo(f"{release.release} serves from {release.bundle}")


@command.command("list")
@json_option
@click.pass_obj
def list_command(settings: Settings, as_json: bool) -> None:
    """All releases, the oldest first, and which one serves.

    \b
    Example:
      namefree releases list
    """
    serving = current_release(settings)
    rows = [(release, release.digest == (serving and serving.digest)) for release in all_releases(settings)]
    if as_json:
        print_json([{**msgspec.to_builtins(release), "serving": serves} for release, serves in rows])
        return
    columns = ("release", "published", "parent", "measures", "serving")
    print_table("", columns, [_row(release, serves) for release, serves in rows])


@command.command("show")
@click.argument("release_id", metavar="ID")
@json_option
@click.pass_obj
def show_command(settings: Settings, release_id: str, as_json: bool) -> None:
    """One release; ID may be the start of its id, or `current`.

    \b
    Example:
      namefree releases show current
    """
    release = find_release(settings, release_id)
    if as_json:
        print_json(msgspec.to_builtins(release))
        return
    shown = {**msgspec.to_builtins(release), "event_time_ms": _published(release)}
    rows = [("published" if name == "event_time_ms" else name, value) for name, value in shown.items()]
    rows = [(name, figures(release.measures) if name == "measures" else value) for name, value in rows]
    print_table("", ("field", "value"), [(name, str(value)) for name, value in rows])


def find_release(settings: Settings, release_id: str) -> Release:
    """The one release whose id starts so. Raises UsageError where there is none or more than one."""
    if release_id == "current":
        found = [release for release in [current_release(settings)] if release]
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


def _row(release: Release, serves: bool) -> tuple[object, ...]:
    return release.release, _published(release), release.parent, figures(release.measures), serves


def _published(release: Release) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(release.event_time_ms / 1000))
