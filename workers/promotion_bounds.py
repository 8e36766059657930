"""What a release on trial must not do: the bounds of each stage, and what was measured, as plain numbers."""

from msgspec import Struct

from workers.friction import Comparison
from workers.sequential import WorseTest


class Bounds(Struct, frozen=True, kw_only=True):
    """The shadow is compared with the decisions that customers met:

    `min_agreement`: share of decisions with the same skill first. `max_silence`: how much more often it may say
    nothing. `max_lost`: of the decisions that customers accepted, the share that it would not have made, where
    there are at least `min_accepted` of them. A skill that customers accepted `skill_accepted` times must keep
    more than `skill_kept` of them.

    The canary is compared with the other customers: `alpha` bounds the chance of a false alarm in each stage (see
    `workers.sequential`); `max_worse` is how much more friction may have been measured when a stage ends, whether
    that is significant or not.
    """

    min_agreement: float = 0.5
    max_silence: float = 0.1
    max_lost: float = 0.15
    min_accepted: int = 50
    skill_accepted: int = 20
    skill_kept: float = 0.2
    alpha: float = 0.02
    max_worse: float = 0.05


def shadow_measures(found: Comparison) -> dict[str, float]:
    """Shares of what was compared; `kept` is there where customers accepted anything."""
    count = max(1, found.compared)
    measures = {
        "compared": float(found.compared),
        "agreement": found.agreed / count,
        "same_action": found.same_action / count,
        "silence_before": found.silent / count,
        "silence": found.shadow_silent / count,
        "accepted": float(found.accepted.total()),
    }
    if found.accepted:
        measures["kept"] = found.kept.total() / found.accepted.total()
    return {name: round(value, 4) for name, value in measures.items()}


def shadow_refusal(found: Comparison, bounds: Bounds) -> str:
    """Why a shadow may not meet customers; "" where it may."""
    measures = shadow_measures(found)
    if measures["agreement"] < bounds.min_agreement:
        return (
            f"it agrees with the serving release on {measures['agreement']:.1%} of {found.compared:,} decisions, "
            f"{bounds.min_agreement:.0%} is asked for"
        )
    if measures["silence"] > measures["silence_before"] + bounds.max_silence:
        return (
            f"it says nothing to {measures['silence']:.1%} of the requests, the serving release to "
            f"{measures['silence_before']:.1%}: more than {bounds.max_silence:.0%} more"
        )
    accepted = found.accepted.total()
    if accepted >= bounds.min_accepted and measures["kept"] < 1 - bounds.max_lost:
        return (
            f"of {accepted:,} decisions that customers accepted it would have made {measures['kept']:.1%}, "
            f"{1 - bounds.max_lost:.0%} are asked for"
        )
    return _skill_lost(found, bounds)


def _skill_lost(found: Comparison, bounds: Bounds) -> str:
    for skill, accepted in found.accepted.most_common():
        kept = found.kept[skill]
        if skill is not None and accepted >= bounds.skill_accepted and kept <= bounds.skill_kept * accepted:
            return f"of {accepted} requests for which customers accepted {skill} it would have left it {kept}"
    return ""


def trial_measures(test: WorseTest) -> dict[str, float]:
    """What a canary's test has seen."""
    measures = {
        "outcomes": float(test.new.outcomes),
        "friction": test.new.share,
        "outcomes_before": float(test.old.outcomes),
        "friction_before": test.old.share,
        "evidence": test.evidence,
    }
    return {name: round(value, 4) for name, value in measures.items()}


def trial_refusal(test: WorseTest, wanted: int, bounds: Bounds) -> str:
    """Why a canary has to end, as far as is known now; "" where it may go on, or has passed."""
    if test.is_worse(bounds.alpha):
        why = f"evidence {test.evidence:.3g}, {1 / bounds.alpha:.3g} is enough"
    elif test.outcomes >= wanted and test.difference > bounds.max_worse:
        why = f"more than {bounds.max_worse:.0%} more"
    else:
        return ""
    return (
        f"friction of {test.new.share:.1%} in {test.new.outcomes:,} outcomes, against {test.old.share:.1%} in "
        f"{test.old.outcomes:,} of the serving release ({why})"
    )
