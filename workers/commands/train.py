"""`namefree train`: a bundle from a data folder."""

from contextlib import nullcontext
from pathlib import Path

import click
import msgspec
import torch

from model.attention import KINDS, Kind
from model.bundle import read_bundle, write_bundle
from model.data import read_rows, read_skills, split_path
from model.distributed import processes
from model.pipeline import Recipe, steps, train
from model.systems import SYSTEMS, TRAINABLE, seeded
from workers import console


@click.command(context_settings={"show_default": True})
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), help="Data folder."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the bundle goes.")
@click.option(
    "--system",
    type=click.Choice(TRAINABLE),
    default="best",
    metavar="NAME",
    help="One of the experiment's: " + ", ".join(TRAINABLE) + ".",
)
@click.option(
    "--attention", type=click.Choice(KINDS), help="Attention over linked skills.  [default: the system's]"
)
@click.option(
    "--supervised/--no-supervised",
    default=None,
    help="Teach the attention weights which skill was meant.  [default: the system's]",
)
@click.option(
    "--distilled/--no-distilled",
    default=None,
    help="Feed each epoch what the one before chose, and its weights.  [default: the system's]",
)
@click.option("--epochs", type=click.IntRange(1), help="At most; stops early.  [default: the system's]")
@click.option("--seed", type=int, default=0, help="Equal seeds and rows give equal bundles.")
@click.option(
    "--parent", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Bundle to start from."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@console.json_option
def command(
    data: Path,
    out: Path,
    system: str,
    attention: Kind | None,
    supervised: bool | None,
    distilled: bool | None,
    epochs: int | None,
    seed: int,
    parent: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a bundle (shortlister and reranker) from a data folder.

    Several processes, on one machine or on more, share the work where torchrun starts them.

    \b
    Example:
      namefree train --data my-data --out bundles/first --seed 0
      torchrun --nproc-per-node 2 -m workers train --data my-data --out bundles/first
    """
    if threads:
        torch.set_num_threads(threads)
    cards, rows = read_skills(data), read_rows(split_path(data, "train"))
    recipe = chosen_recipe(system, attention, supervised, distilled, epochs, seed)
    total = steps(len(rows), cards, recipe)
    with processes() as rank, console.progress("train", total) if not rank else nullcontext(_silent) as advance:
        bundle = train(cards, rows, recipe, advance, read_bundle(parent) if parent else None)
        advance(total, "done")
    if rank:
        return  # the first process has the same bundle, and writes it
    manifest = write_bundle(bundle, out)
    told = {"bundle": str(out), "release": manifest.release, "digest": manifest.digest, **manifest.measures}
    if as_json:
        console.print_json(told | {"provenance": manifest.provenance})
    else:
        console.print_table("", ("", "bundle"), told.items())


def _silent(_step: int, _note: str) -> None:
    """The first process shows how far all are."""


def chosen_recipe(
    system: str,
    attention: Kind | None,
    supervised: bool | None,
    distilled: bool | None,
    epochs: int | None,
    seed: int,
) -> Recipe:
    """A system's recipe with these choices; None leaves the system's own."""
    replace = msgspec.structs.replace
    base = seeded(SYSTEMS[system].recipe, seed)
    shape = {
        "attention": attention,
        "supervised": supervised,
        "shares": distilled,
        "soft_targets": distilled,
    }
    chosen = {name: value for name, value in shape.items() if value is not None}
    return replace(
        base,
        shortlister=replace(base.shortlister, **chosen),
        training=replace(base.training, epochs=epochs or base.training.epochs),
    )
