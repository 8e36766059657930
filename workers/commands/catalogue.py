"""`namefree catalogue`: check a data folder and put its skills on the topic."""

from pathlib import Path

import click

from model.data import check_folder, read_skills
from topics.errors import BadData
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers.catalogue import load_catalogue
from workers.console import json_option, print_json, progress

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.group("catalogue")
def command() -> None:
    """Check a data folder and put its skills on the topic.

    \b
    Example:
      namefree catalogue check my-data
      namefree catalogue load my-data
    """


@command.command("check")
@folder_argument
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Name every bad row by file and line. Exit code 1 where there is one.

    \b
    Example:
      namefree catalogue check my-data
    """
    problems = check_folder(folder)
    if as_json:
        print_json({"folder": str(folder), "problems": problems})
    for problem in [] if as_json else problems:
        click.echo(problem)
    if problems:
        raise BadData(f"{len(problems):,} problems in {folder}")
    click.echo(f"{folder} is in order", err=True)


@command.command("load")
@folder_argument
@json_option
@click.pass_obj
def load(settings: Settings, folder: Path, as_json: bool) -> None:
    """Put a data folder's cards on the `skills` topic.

    Each stands under its skill_id. Skills that are on the topic already and not in the folder stay.

    \b
    Example:
      namefree catalogue load my-data
    """
    cards = read_skills(folder)
    with progress("cards", len(cards)) as advance:
        loaded = load_catalogue(settings, cards, advance)
    topic = topic_name(settings, SKILLS)
    if as_json:
        print_json({"topic": topic, "skills": loaded})
    else:
        click.echo(f"{loaded:,} skills are on topic {topic}")
