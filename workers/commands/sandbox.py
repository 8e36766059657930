"""`namefree sandbox`: skills to try asking on."""

import logging
from collections.abc import Collection
from pathlib import Path

import click

from model.data import read_skills
from topics.errors import UsageError
from workers.lifecycle import stop_on_signals
from workers.sandbox import SLOW_MS, Fault, Sandbox, faults_by_rates

log = logging.getLogger("namefree.sandbox")


@click.command("sandbox")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Data folder whose cards answer.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8_088, show_default=True, help="On loopback; 0 takes any."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SKILL=KIND",
    help=f"What is wrong with a skill, as often as wanted: {', '.join(Fault)}.",
)
@click.option(
    "--rates",
    is_flag=True,
    help="Give the others faults too, by the made-up rates of workers/sandbox.py.  [default: all are honest]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of who has which fault by the rates.")
@click.option(
    "--slow-ms", type=click.FloatRange(0), default=SLOW_MS, show_default=True, help="How long a slow skill takes."
)
def command(data: Path, port: int, faults: tuple[str, ...], rates: bool, seed: int, slow_ms: float) -> None:
    """Skills to try asking on: an HTTP server on loopback that answers CanFulfillIntentRequest for the cards of a
    data folder, from what they declare. Prints the address of a skill; the others' differ by their id.

    SIGTERM and Ctrl-C end it.

    \b
    Example:
      namefree sandbox --data model/sample/data --fault rides:acorn=silent --fault rides:quince=lying
    """
    cards = {card.skill_id: card for card in read_skills(data)}
    if not cards:
        raise UsageError(f"{data} has no cards to answer for")
    chosen = faults_by_rates(cards.values(), seed) if rates else {}
    chosen |= dict(_fault(text, cards) for text in faults)
    with stop_on_signals() as stop, Sandbox(cards, chosen, port, slow_ms) as sandbox:
        click.echo(sandbox.endpoint(next(iter(cards))))
        wrong = sum(fault is not Fault.HONEST for fault in chosen.values())
        log.info("%d skills answer, %d of them with a fault", len(cards), wrong)
        stop.wait()


def _fault(text: str, cards: Collection[str]) -> tuple[str, Fault]:
    skill, sign, kind = text.rpartition("=")
    if not sign or kind not in list(Fault):
        raise UsageError(f"--fault takes SKILL=KIND with one of {', '.join(Fault)}, got {text!r}")
    if skill not in cards:
        raise UsageError(f"--fault names {skill!r}, which is no skill of the data folder")
    return skill, Fault(kind)
