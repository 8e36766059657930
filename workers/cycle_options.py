"""What can be chosen about a cycle."""

from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from model.gate_lines import Bounds
from model.pipeline import Recipe
from workers.promotion import PromotionOptions


class Learning(Struct, frozen=True, kw_only=True):
    """What a cycle takes from customers; each can be left out, to see what it is worth.

    `statistics`: the model's input with every example, and lifts of the teacher's shares. `distillation`: what the
    serving release says, as soft targets. `propensities`: a labelled request stands for all whose outcome would
    not have told. `beliefs`: requests whose outcome does not tell are learned from as far as it lets believe
    something.
    """

    statistics: bool = True
    distillation: bool = True
    propensities: bool = True
    beliefs: bool = True


@dataclass(frozen=True)
class CycleOptions:
    """`data`: a corpus to learn from beside the outcomes. `judge_share`: of the outcomes' texts, never trained on
    in any cycle. `half_life_hours`: in which the statistics lose half of their weight, 0 for never. `bounds`: how
    far the candidate may fall below the serving release. `recipe`: of a first release; `cycle_epochs`: of every
    later one, which starts from its parent's weights. `promotion`: how a candidate is tried on customers before it
    serves all of them; None: it serves at once. `report`: where a page about the cycle is written."""

    store: Path
    data: Path | None = None
    judge_share: float = 0.1
    min_outcomes: int = 100
    half_life_hours: float = 0.0
    bounds: Bounds = field(default_factory=Bounds)
    cycle_epochs: int = 4
    recipe: Recipe = field(default_factory=Recipe)
    learning: Learning = field(default_factory=Learning)
    promotion: PromotionOptions | None = None
    report: Path | None = None
