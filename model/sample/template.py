"""Phrase templates: alternatives `(a|b)`, optional parts `[c]` or `[c|d]`, slots `{city}`.

    [please] (get|call) me a car to {place}

They nest, except slots. Which of the alternatives is taken is the caller's choice.
"""

import re
from collections.abc import Callable, Mapping, Sequence

Choose = Callable[[Sequence[str]], str]

_INNERMOST = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\ba (?=[aeio])")


def choose_words(template: str, choose: Choose) -> str:
    """Settles alternatives and optional parts, innermost first; slots stay.

    >>> choose_words("(get|call) me [now|a car to {place}]", lambda options: options[-1])
    'call me'
    """
    while found := _INNERMOST.search(template):
        alternatives, optional = found.groups()
        options = alternatives.split("|") if optional is None else [*optional.split("|"), ""]
        template = template[: found.start()] + choose(options) + template[found.end() :]
    return " ".join(template.split())


def slots_of(template: str) -> set[str]:
    """The names of the slots in a template."""
    return set(_SLOT.findall(template))


def fill_slots(words: str, values: Mapping[str, Sequence[str]], choose: Choose) -> str:
    """Puts a value in each slot, another one where a slot comes twice, and `an` where one is needed.

    >>> fill_slots("a {fruit} and {fruit}", {"fruit": ["apple", "fig"]}, lambda options: options[0])
    'an apple and fig'
    """
    taken: set[str] = set()

    def value(found: re.Match[str]) -> str:
        options = values[found[1]]
        taken.add(chosen := choose([option for option in options if option not in taken] or options))
        return chosen

    return _ARTICLE.sub("an ", _SLOT.sub(value, words))


def variety(template: str) -> int:
    """How much a template can say, roughly: one, and one for each alternative, optional part and two a slot."""
    return 1 + template.count("|") + template.count("[") + 2 * template.count("{")
