"""What the learning experiment is asked for: worlds, what is switched off, and the data folder."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from model.conditions import Conditions, read_conditions
from model.data import Row, read_rows, read_skills, split_path
from model.gate_lines import Bounds
from model.pipeline import Recipe, rows_digest
from topics.events import SkillCard
from workers.behaviour import Behaviour
from workers.cycle_options import CycleOptions, Learning
from workers.learning_results import digest
from workers.worlds import WORLDS

WHOLE = "whole"
COSTS = {
    "enable": round(1 - Behaviour().right_enable_enabled, 6),
    "question": round(1 - Behaviour().found_accepted, 6),
    "missed": 1.0,
}
"""What this world's operator knows of its customers: so many are lost to a suggestion of what they meant, to a
question that names it, and to silence where they meant a skill: all of them, as to another skill."""
ASKED = ("steady", "drift", "adversarial")  # the others are run where one of these needs them


class Variant(msgspec.Struct, frozen=True):
    """A run with one thing off: what a cycle takes from customers, and the router's own options."""

    told: str
    learning: Learning = Learning()
    route: tuple[str, ...] = ()


VARIANTS = {
    WHOLE: Variant("nothing off"),
    "no statistics": Variant("a cycle does not see the statistics", Learning(statistics=False)),
    "no distillation": Variant("the serving release does not teach", Learning(distillation=False)),
    "no exploration": Variant("the router never tries a near tie", route=("--explore", "0")),
    "no propensities": Variant("labelled requests count alike", Learning(propensities=False)),
    "no beliefs": Variant("requests whose outcome does not tell are left out", Learning(beliefs=False)),
}
ABLATIONS = tuple(name for name in VARIANTS if name != WHOLE)


@dataclass(frozen=True)
class LearningOptions:
    """`first` is the share of the training rows from which the first release is made; `change_s` is how long the
    part in which a world changes takes at least, so that statistics arrive while it lasts; `full` is the bundle of
    full supervision, made here where it is None."""

    data: Path
    out: Path
    worlds: tuple[str, ...] = ASKED
    ablations: tuple[str, ...] = ()
    parts: int = 4
    first: float = 0.2
    seeds: int = 1
    recipe: Recipe = field(default_factory=Recipe)
    cycle_epochs: int = CycleOptions.cycle_epochs
    bounds: Bounds = field(default_factory=Bounds)
    max_rows: int | None = None
    change_s: float = 30.0
    full: Path | None = None


@dataclass(frozen=True)
class Market:
    """A data folder as the experiment has it."""

    cards: list[SkillCard]
    rows: list[Row]
    conditions: Conditions

    def name(self) -> str:
        """A digest of all of it."""
        measured = {str(share): rows_digest(rows) for share, rows in self.conditions.rows.items()}
        return digest(self.cards, rows_digest(self.rows), measured)


def planned(options: LearningOptions) -> list[tuple[str, str]]:
    """Worlds and variants, in order; liars are compared with the steady world and with one without fakers."""
    worlds = set(options.worlds)
    if "adversarial" in worlds:
        worlds |= {"steady", "honest"}
    ordered = [name for name in WORLDS if name in worlds]
    return [(name, WHOLE) for name in ordered] + [(ordered[0], variant) for variant in options.ablations]


def read_market(options: LearningOptions) -> Market:
    """The data folder; of its training rows at most `max_rows`, drawn with a fixed seed."""
    rows = read_rows(split_path(options.data, "train"))
    if options.max_rows is not None and options.max_rows < len(rows):
        chosen = np.random.default_rng(0).permutation(len(rows))[: options.max_rows]
        rows = [rows[at] for at in sorted(chosen.tolist())]
    return Market(read_skills(options.data), rows, read_conditions(options.data))
