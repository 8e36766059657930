"""`namefree evaluate`: a bundle measured on rows that carry the intended skill."""

from pathlib import Path
from typing import Any

import click

from model.data import read_rows
from model.evaluation import evaluate
from model.selector import Selector
from workers import console


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--utterances",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Rows with text, skill_id and linked, .jsonl or .jsonl.gz.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@console.json_option
def command(bundle: Path, utterances: Path, threads: int | None, as_json: bool) -> None:
    """Measure BUNDLE: top-1, 3, 5 and MRR of its shortlist and of its decisions.

    \b
    Example:
      namefree evaluate bundles/first --utterances my-data/utterances.dev.jsonl
    """
    if threads:
        import torch  # only where asked for: it sets what is process-wide

        torch.set_num_threads(threads)
    rows = read_rows(utterances)
    selector = Selector.load(bundle)
    with console.progress("evaluate", len(rows)) as advance:
        found = evaluate(selector, rows, advance)
    if as_json:
        console.print_json({"release": selector.release, **found})
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    columns = ("top1", "top3", "top5", "mrr")
    stages = ("shortlist", "decision")
    rows = [[f"{stage}", *(_with_interval(found[stage], c) for c in columns)] for stage in stages]
    rows += [[f"{stage}, no links", *(found["without_links"][stage][c] for c in columns)] for stage in stages]
    title = f"{found['rows']} rows, {found['throughput']:.0f} decisions/s"
    console.print_table(title, ("", *columns), rows)
    by_source = (
        [source, part["rows"], part["shortlist"]["top3"], part["decision"]["top1"]]
        for source, part in found["by_source"].items()
    )
    console.print_table("", ("source", "rows", "shortlist top3", "decision top1"), by_source)


def _with_interval(measures: dict[str, Any], name: str) -> str:
    low, high = measures["intervals"][name]
    return f"{measures[name]:.3f} ({low:.3f} to {high:.3f})"
