"""The flags that say how a release is tried, for every command that promotes one."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from workers.promotion import DEFAULTS, PromotionOptions

F = TypeVar("F", bound=Callable[..., Any])


def promotion_options(command: F) -> F:
    """Gives a command the flags of a promotion and hands them on as one argument, `promotion`."""

    @functools.wraps(command)
    def wrapped(*args: Any, within: float, straight: bool, max_worse: float, **values: Any) -> Any:
        own = {name: values.pop(name) for name in _COUNTS_AND_SHARES}
        options = PromotionOptions(
            **own,
            steps=() if straight else DEFAULTS.steps,
            within_s=within * 60,
            bounds=msgspec.structs.replace(DEFAULTS.bounds, max_worse=max_worse),
        )
        return command(*args, promotion=options, **values)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]  # the same command, but for the arguments that click gives it


_COUNTS_AND_SHARES = (
    "shadow_decisions",
    "shadow_share",
    "canary_share",
    "canary_outcomes",
    "max_seen",
    "watch_outcomes",
)
_SHARE = click.FloatRange(0, 1, min_open=True)
_OPTIONS = (
    click.option(
        "--shadow-decisions",
        type=click.IntRange(0),
        default=DEFAULTS.shadow_decisions,
        show_default=True,
        help="Decisions to compare unseen before any customer meets it; 0 leaves the stage out.",
    ),
    click.option(
        "--shadow-share",
        type=_SHARE,
        default=DEFAULTS.shadow_share,
        show_default=True,
        help="Of the customers, whose requests it decides so: each costs the routers a second decision.",
    ),
    click.option(
        "--canary-share",
        type=_SHARE,
        default=DEFAULTS.canary_share,
        show_default=True,
        help="Of the customers, the first who meet it.",
    ),
    click.option(
        "--canary-outcomes",
        type=click.IntRange(0),
        default=DEFAULTS.canary_outcomes,
        show_default=True,
        help="Outcomes of each canary that are enough; worse friction ends it sooner. 0 leaves canaries out.",
    ),
    click.option(
        "--max-seen",
        type=_SHARE,
        default=DEFAULTS.max_seen,
        show_default=True,
        help="Of all requests since the beginning, the most that the first canary decides; it pauses before.",
    ),
    click.option(
        "--straight", is_flag=True, help="From the first canary to all customers, without a larger one between."
    ),
    click.option(
        "--watch-outcomes",
        type=click.IntRange(0),
        default=DEFAULTS.watch_outcomes,
        show_default=True,
        help="Outcomes of all customers that are watched before it is `current`; 0 leaves the stage out.",
    ),
    click.option(
        "--max-worse",
        type=click.FloatRange(0, 1),
        default=DEFAULTS.bounds.max_worse,
        show_default=True,
        help="More friction than this, significant or not, is too much at a stage's end.",
    ),
    click.option(
        "--within",
        type=click.FloatRange(0, min_open=True),
        default=DEFAULTS.within_s / 60,
        show_default=True,
        metavar="MINUTES",
        help="The longest that one stage may take; then the release is not promoted.",
    ),
)
