"""`namefree train`: a bundle from a data folder."""

from pathlib import Path

import click
import msgspec
import torch

from model.attention import KINDS, Kind
from model.bundle import read_bundle, write_bundle
from model.data import read_rows, read_skills, split_path
from model.pipeline import Recipe, steps, train
from workers import console


@click.command(context_settings={"show_default": True})
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False), help="Data folder."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the bundle goes.")
@click.option("--attention", type=click.Choice(KINDS), default="sigmoid", help="Attention over linked skills.")
@click.option(
    "--supervised/--no-supervised", default=True, help="Teach the attention weights which skill was meant."
)
@click.option("--distilled/--no-distilled", default=True, help="Feed each epoch what the one before knew.")
@click.option("--epochs", type=click.IntRange(1), default=Recipe().training.epochs, help="At most; stops early.")
@click.option("--seed", type=int, default=0, help="Equal seeds and rows give equal bundles.")
@click.option(
    "--parent", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Bundle to start from."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@console.json_option
def command(
    data: Path,
    out: Path,
    attention: Kind,
    supervised: bool,
    distilled: bool,
    epochs: int,
    seed: int,
    parent: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a bundle (shortlister and reranker) from a data folder.

    \b
    Example:
      namefree train --data my-data --out bundles/first --seed 0
    """
    if threads:
        torch.set_num_threads(threads)
    cards, rows = read_skills(data), read_rows(split_path(data, "train"))
    recipe = chosen_recipe(attention, supervised, distilled, epochs, seed)
    total = steps(len(rows), cards, recipe)
    with console.progress("train", total) as advance:
        bundle = train(cards, rows, recipe, advance, read_bundle(parent) if parent else None)
        advance(total, "done")
    manifest = write_bundle(bundle, out)
    told = {"bundle": str(out), "release": manifest.release, "digest": manifest.digest, **manifest.measures}
    if as_json:
        console.print_json(told | {"provenance": manifest.provenance})
    else:
        console.print_table("", ("", "bundle"), told.items())


def chosen_recipe(attention: Kind, supervised: bool, distilled: bool, epochs: int, seed: int) -> Recipe:
    """The standard recipe with these choices."""
    base = Recipe()
    replace = msgspec.structs.replace
    return replace(
        base,
        shortlister=replace(base.shortlister, attention=attention, supervised=supervised, distilled=distilled),
        training=replace(base.training, epochs=epochs, seed=seed),
        fitting=replace(base.fitting, seed=seed),
    )
