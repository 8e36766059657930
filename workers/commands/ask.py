"""`namefree ask`: how one request is decided, for a person to look at."""

from functools import partial
from pathlib import Path

import click
import msgspec
from prometheus_client import CollectorRegistry

from model.selector import Explanation, Ranking, Request, Selector
from topics.errors import UsageError
from topics.settings import Settings
from workers import console
from workers.asking import opened
from workers.asking_options import AskOptions, asking_options
from workers.explained import explanation_json, print_explanation
from workers.metrics import RouterMetrics
from workers.options import cost_options
from workers.releases import current_release


@click.command()
@click.argument("text")
@click.option("--linked", default="", metavar="ID,ID", help="Skills that the customer has linked.")
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="Bundle to ask.  [default: the release that serves]"
)
@click.option("--explain", is_flag=True, help="Say why: abilities, what makes each score, what each action costs.")
@cost_options
@asking_options
@console.json_option
@click.pass_obj
def command(
    settings: Settings,
    text: str,
    linked: str,
    bundle: Path | None,
    explain: bool,
    asking: AskOptions | None,
    costs: dict[str, float],
    as_json: bool,
) -> None:
    """Show how TEXT is decided: the shortlist, the weights, the reranked list, the action.

    \b
    Example:
      namefree ask "get me a car" --linked rides:acorn,music:tonearm
      namefree ask "get me a car" --linked rides:acorn --explain
      namefree ask "get me a car" --ask --ask-deadline-ms 500
    """
    if not text.strip():
        raise UsageError('TEXT is empty: say what the customer asked, such as "get me a car"')
    metrics = RouterMetrics(CollectorRegistry())  # nobody scrapes them: they count what was asked, for _print
    with opened(asking, metrics) as asks:
        load = partial(Selector.load, asks=asks) if asks else Selector.load
        selector = load(bundle or _serving(settings), costs=costs)
        why = selector.explain(Request(text, _linked(selector, linked)))
    told = metrics.told() if asking else None
    if as_json:
        asked = {"asked": told} if told is not None else {}
        explained = {"explanation": explanation_json(why)} if explain else {}
        console.print_json(
            {
                "text": text,
                "release": selector.release,
                **msgspec.to_builtins(why.ranking),
                **explained,
                **asked,
            }
        )
        return
    _print(selector, why, explain)
    if told is not None:
        counts = ", ".join(f"{count} {result}" for result, count in told.items())
        console.out.print(f"asked {sum(told.values())} questions: {counts or 'no skill here has an endpoint'}")


def _linked(selector: Selector, linked: str) -> tuple[str, ...]:
    ids = tuple(part.strip() for part in linked.split(",") if part.strip())
    unknown = [skill for skill in ids if skill not in selector.bundle.catalogue]
    if unknown:
        raise UsageError(f"--linked names {unknown[0]!r}, which is no skill of release {selector.release}")
    return ids


def _serving(settings: Settings) -> Path:
    release = current_release(settings)
    if release is None:
        raise UsageError(
            "no release serves yet: name one with --bundle, or run `namefree releases publish BUNDLE`"
        )
    return Path(release.bundle)


def _print(selector: Selector, why: Explanation, explain: bool) -> None:
    _print_shortlist(selector, why.ranking)
    if explain:
        print_explanation(why)
    ranking = why.ranking
    answer = f"{ranking.action} {ranking.skill_id}" if ranking.skill_id else str(ranking.action)
    costs = f", costs {selector.policy}" if selector.policy else ""
    console.out.print(
        f"{answer}   (rule {ranking.rule}, none {ranking.none_probability:.3f}, release {selector.release}{costs})"
    )


def _print_shortlist(selector: Selector, ranking: Ranking) -> None:
    catalogue = selector.bundle.catalogue
    rows = [
        [
            place,
            candidate.skill_id,
            catalogue.card(catalogue.row(candidate.skill_id)).name,
            candidate.probability,
            candidate.score,
            candidate.shortlist_rank + 1,
            candidate.linked,
            candidate.attention,
        ]
        for place, candidate in enumerate(ranking.candidates, 1)
    ]
    columns = ("", "skill", "name", "probability", "score", "shortlist", "linked", "attention")
    console.print_table("", columns, rows)
