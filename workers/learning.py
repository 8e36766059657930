"""The learning experiment: how far a first release from a fifth of the labels climbs by outcomes alone.

A world's requests are asked in parts through the real topics, router and aggregator, and a distillation cycle
follows each part (`workers.learning_run`). Beside it stand the first release, what full supervision gives, and
what the same customers would have met had the first release gone on alone. The customers are simulated.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model.bundle import Bundle, read_bundle
from model.data import Row
from model.pipeline import Recipe, rows_digest, steps, train
from model.selector import Selector
from topics.events import SkillCard
from topics.settings import Settings
from workers import console
from workers.learning_plan import COSTS, VARIANTS, LearningOptions, Market, planned, read_market
from workers.learning_results import Kept, Measured, Run, digest, model_code, run_code
from workers.learning_run import Start, measured, run_world
from workers.worlds import draw

Cluster = Callable[[], AbstractContextManager[Settings]]


@dataclass(frozen=True)
class Found:
    """All runs, and per seed what full supervision gives."""

    market: Market
    options: LearningOptions
    runs: list[Run]
    full: list[Measured]


def run_learning(options: LearningOptions, cluster: Cluster) -> Found:
    """Runs what is not kept yet, a cluster of its own for each run. Raises NamefreeError where a part fails."""
    market, kept = read_market(options), Kept(options.out)
    runs, full = [], []
    for seed in range(options.seeds):
        full.append(_full(market, seed, options, kept))
        for name, variant in planned(options):
            key = _key(market, name, variant, seed, options)
            run = kept.run(key)
            if run is None:
                with cluster() as settings:
                    run = run_world(settings, _start(market, name, variant, seed, options, kept))
                kept.keep_run(key, run)
            runs.append(run)
    return Found(market, options, runs, full)


def _key(market: Market, name: str, variant: str, seed: int, options: LearningOptions) -> str:
    asked = (name, VARIANTS[variant], seed, options.parts, options.first, options.recipe)
    return digest(
        market.name(),
        asked,
        (options.cycle_epochs, options.bounds, options.change_s, COSTS),
        model_code(),
        run_code(),
    )


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return msgspec.structs.replace(recipe, training=msgspec.structs.replace(recipe.training, seed=seed))


def _trained(
    label: str, cards: Sequence[SkillCard], rows: Sequence[Row], recipe: Recipe, kept: Kept
) -> tuple[Path, Bundle]:
    """A bundle, made where it is not kept, and its folder."""
    key = digest(cards, rows_digest(rows), recipe, model_code())
    bundle = kept.bundle(key)
    if bundle is None:
        total = steps(len(rows), cards, recipe)
        with console.progress(f"train {label}", total) as advance:
            bundle = train(cards, rows, recipe, advance)
            advance(total, "done")
        kept.keep_bundle(key, bundle)
        bundle = read_bundle(kept.place(key))
    return kept.place(key), bundle


def _full(market: Market, seed: int, options: LearningOptions, kept: Kept) -> Measured:
    """What full supervision gives: trained on all training rows with their labels."""
    if options.full is not None:
        bundle = read_bundle(options.full)
    else:
        recipe = _seeded(options.recipe, seed)
        _, bundle = _trained(f"full supervision, seed {seed}", market.cards, market.rows, recipe, kept)
    key = digest(market.name(), bundle.manifest.digest, model_code())
    found = kept.measured(key)
    if found is None:
        found = measured(Selector(bundle), market.conditions.rows)
        kept.keep_measured(key, found)
    return found


def _start(market: Market, name: str, variant: str, seed: int, options: LearningOptions, kept: Kept) -> Start:
    """The world, drawn, and its first release."""
    world = draw(name, market.cards, market.rows, options.parts, options.first, seed)
    recipe = _seeded(options.recipe, seed)
    place, _ = _trained(f"the first release of {name}, seed {seed}", world.cards, world.taught, recipe, kept)
    return Start(market, options, world, variant, seed, recipe, place)
