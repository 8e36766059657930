"""`namefree skills`: skills join and leave, on the cluster or in a bundle."""

from dataclasses import replace
from pathlib import Path

import click
import msgspec

from model.data import read_card
from topics.errors import BadData, UsageError
from topics.events import SkillCard
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers.catalogue import load_catalogue, remove_skills
from workers.console import json_option, print_json

bundle_option = click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A bundle to change, instead of the cluster.",
)
out_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Where the changed bundle goes."
)


@click.group("skills")
def command() -> None:
    """Skills join and leave; nobody else's score moves.

    On the cluster the routers take a card up within a second; the next cycle trains with it.

    \b
    Example:
      namefree skills add my-skill.json
      namefree skills remove rides:acorn
      namefree skills add my-skill.json --bundle first --out second
    """


@command.command("add")
@click.argument("cards", metavar="CARD.json...", nargs=-1, required=True, type=click.Path(path_type=Path))
@bundle_option
@out_option
@click.option("--fine-tune", is_flag=True, help="In a bundle: teach the new rows to leave alone what rivals say.")
@json_option
@click.pass_obj
def add(
    settings: Settings,
    cards: tuple[Path, ...],
    bundle: Path | None,
    out: Path | None,
    fine_tune: bool,
    as_json: bool,
) -> None:
    """Add skills, or change what is known of them, each by a file with its card.

    \b
    Example:
      namefree skills add my-skill.json
    """
    _check(bundle, out)
    if fine_tune and not bundle:
        raise UsageError("--fine-tune needs --bundle: on the cluster the next cycle trains the new skills")
    read = [read_card(path) for path in cards]
    if bundle and out:
        _change(bundle, out, read, (), fine_tune, as_json)
        return
    load_catalogue(settings, read)
    _tell([card.skill_id for card in read], topic_name(settings, SKILLS), "on", as_json)


@command.command("remove")
@click.argument("skills", metavar="SKILL_ID...", nargs=-1, required=True)
@bundle_option
@out_option
@json_option
@click.pass_obj
def remove(
    settings: Settings, skills: tuple[str, ...], bundle: Path | None, out: Path | None, as_json: bool
) -> None:
    """Remove skills by their ids.

    \b
    Example:
      namefree skills remove rides:acorn
    """
    _check(bundle, out)
    if bundle and out:
        _change(bundle, out, [], skills, False, as_json)
        return
    remove_skills(settings, skills)
    _tell(list(skills), topic_name(settings, SKILLS), "removed from", as_json)


def _check(bundle: Path | None, out: Path | None) -> None:
    if bool(bundle) != bool(out):
        raise UsageError(
            "--bundle and --out go together: the bundle that is there, and where the changed one goes"
        )


def _change(
    bundle: Path, out: Path, cards: list[SkillCard], gone: tuple[str, ...], fine_tune: bool, as_json: bool
) -> None:
    """The bundle with these cards and without these skills, written to `out`."""
    from model.bundle import read_bundle, write_bundle  # here, as they bring the networks
    from model.onboarding import Onboarding

    changed = read_bundle(bundle)
    for skill in gone:
        if skill not in changed.catalogue:
            raise BadData(f"skill {skill!r} is not in the bundle {bundle}")
    Onboarding(changed).take(cards, gone, fine_tune)
    provenance = {**changed.manifest.provenance, "parent": changed.manifest.release}
    manifest = msgspec.structs.replace(changed.manifest, provenance=provenance)
    written = write_bundle(replace(changed, manifest=manifest), out)
    skills = [*(card.skill_id for card in cards), *gone]
    if as_json:
        parent = provenance["parent"]
        print_json({"bundle": str(out), "release": written.release, "parent": parent, "skills": skills})
    else:
        click.echo(f"{out} is release {written.release}: as {bundle}, but for {', '.join(skills)}")


def _tell(skills: list[str], topic: str, how: str, as_json: bool) -> None:
    if as_json:
        print_json({"topic": topic, "skills": skills})
    else:
        click.echo(f"{', '.join(skills)}: {how} topic {topic}")
