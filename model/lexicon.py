"""The words of what skills declare, and where a request says them.

A term is a word's stem, or the stems of a phrase run together, so that `one way` and `oneway`, `one-stop` and `one
stop` are one. A request's terms may lie within each other: which of them counts is for each skill to say.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import snowballstemmer

from model.spans import letter, number_of
from model.text import tokens

MOST_WORDS = 5  # of a phrase that is looked for
# words that say nothing of what is asked for, whoever declares them
_SILENT = """
a an the of for in on at to by with and or is are be was it its this that these those which who whom
what where when how whether if not no do does can could would will should may you your i me my we us
our he she they them there here has have had i'd i'm i'll i've im id get want need like please some
any flag boolean indicating name type number true false user from into than then so as
up about out hi hello hey help
"""
STOP = frozenset(_SILENT.split())
# what people say for finding out; an intent is named by one of them, and a request says another
_SEEKING = {"find", "finding", "search", "searching", "look", "looking", "locate", "lookup", "seek", "seeking"}
_STEMMER = snowballstemmer.stemmer("english")


@lru_cache(maxsize=131_072)
def stem(word: str) -> str:
    """The word without its ending; a number as digits.

    >>> stem("reservations"), stem("two"), stem("pets")
    ('reserv', '2', 'pet')
    """
    if letter(word) == "N":
        return number_of(word) or word
    if word in _SEEKING:
        return "find"
    return str(_STEMMER.stemWord(word))


@lru_cache(maxsize=131_072)
def term(phrase: str) -> str:
    """The term of a phrase, its words of no meaning left out where it has others.

    >>> term("Place of Worship"), term("one-stop"), term("Other")
    ('placeworship', '1stop', 'other')
    """
    words = tokens(phrase)
    number = number_of(" ".join(words)) if words else None
    if number is not None and number.isdecimal():
        return number
    return "".join(stem(word) for word in words if word not in STOP) or "".join(map(stem, words))


def beginnings_of(phrase: str) -> list[str]:
    """What one has to have heard of a phrase of three words and more to go on listening.

    >>> beginnings_of("performing arts venue")
    ['performart']
    """
    stems = [stem(word) for word in tokens(phrase) if word not in STOP][:MOST_WORDS]
    return ["".join(stems[:size]) for size in range(2, len(stems))]


class Lexicon:
    """Numbers for the terms that some skill declares. Terms that nobody declares any more are forgotten."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._uses: Counter[str] = Counter()
        self._longer: Counter[str] = Counter()  # beginnings, of two words and more, of longer terms
        self._next = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, term: str) -> bool:
        return term in self._ids

    def add(self, terms: Iterable[str], beginnings: Iterable[str] = ()) -> list[int]:
        """A skill declares these; returns their numbers. `beginnings`: see `beginnings_of`."""
        self._longer.update(beginnings)
        found = []
        for one in terms:
            self._uses[one] += 1
            if one not in self._ids:
                self._ids[one] = self._next
                self._next += 1
            found.append(self._ids[one])
        return found

    def drop(self, terms: Iterable[str], beginnings: Iterable[str] = ()) -> None:
        """A skill declares these no longer."""
        _forget(self._longer, beginnings)
        for gone in _forget(self._uses, terms):
            del self._ids[gone]

    def number(self, term: str) -> int:
        """The term's number; -1 where nobody declares it."""
        return self._ids.get(term, -1)

    def said(self, stems: Sequence[str]) -> list[tuple[int, int, int]]:
        """Declared terms among a request's stems: number, first word, behind the last word.

        Words that say nothing have an empty stem. Numbers by themselves are left out: they are spans.
        """
        ids, longer, found, size = self._ids, self._longer, [], len(stems)
        for at, joined in enumerate(stems):
            if not joined:
                continue
            if (number := ids.get(joined)) is not None and not joined.isdecimal():
                found.append((number, at, at + 1))
            for end in range(at + 1, size):
                joined += stems[end]
                if (number := ids.get(joined)) is not None and stems[end]:
                    found.append((number, at, end + 1))
                if joined not in longer:
                    break
        return found


def _forget(uses: Counter[str], of: Iterable[str]) -> list[str]:
    """One use less of each; returns those that have none left."""
    gone = []
    for one in of:
        uses[one] -= 1
        if not uses[one]:
            del uses[one]
            gone.append(one)
    return gone
