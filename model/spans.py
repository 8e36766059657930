"""Typed spans of a request: dates, times, numbers, money, durations, places, and names of people and of works.

Requests are as speech recognition gives them: lower case, no punctuation ("on march 7th", "at half past six").
Each word has a class of one letter; one regular expression over the letters of a request finds the spans. Which
words are numbers, and what runs of them are worth, is text2num's knowledge; months and weekdays are the standard
library's.
"""

import calendar
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from text_to_num import alpha2digit

from model.places import MOST_WORDS, Places, places

KINDS = ("date", "time", "number", "money", "duration", "place", "person", "title")
DATE, TIME, NUMBER, MONEY, DURATION, PLACE, PERSON, TITLE = range(len(KINDS))

WRITTEN = frozenset((DATE, TIME, MONEY, DURATION))  # kinds whose words are no value of anything else


class Span(NamedTuple):
    """Words from `start` to before `end`. `value`: of a number or money its digits, else the words."""

    kind: int
    start: int
    end: int
    value: str


OTHER = "."
_IDLE = ".tfiaepnhxw"  # classes that make no span by themselves
_CLASSES: dict[str, str] = {
    "R": "today tomorrow tonight yesterday",
    "D": "morning afternoon evening night",
    "Z": "noon midnight midday",
    "A": "am pm a.m p.m",
    "K": "oclock o'clock",
    "C": "dollar dollars buck bucks euro euros pound pounds cent cents yen usd francs rupees quid",
    "U": "minute minutes hour hours day days night nights week weeks weekend month months year years seconds",
    "t": "the",
    "f": "of",
    "x": "this next last coming following",
    "i": "in",
    "a": "at by around until till before after",
    "h": "half quarter",
    "p": "past to after before",
    "e": "a an",
    "n": "on",
    "w": "way",
    "m": "may",
}
_LETTER = {word: letter for letter, words in _CLASSES.items() for word in words.split()}
_LETTER |= {name.lower(): "M" for name in [*calendar.month_name[1:], *calendar.month_abbr[1:]] if name != "May"}
_LETTER |= {name.lower(): "W" for name in calendar.day_name}
del _LETTER["mar"], _LETTER["dec"], _LETTER["jun"]  # names and slips more often than months

_PATTERN = re.compile(
    r"(?P<date>t?UpR|t?[Oo]f?[tx]?[MU]|[Mm]t?[OoN](?![AK])|Nf?[Mm]|t?[Oo]fx?[Mm]|t?O|nto(?!f)|x?W(?:xU)?|xU|R|M)"
    r"|(?P<time>a?e?hpN(?:A|it?D|xD)?|T(?:it?D)?|NN?A|NK(?:it?D)?|aNN?(?:K|A|it?D|xD)?(?![CUyN])|NN?it?D|DNN?|Z|it?D|xD)"
    r"|(?P<money>N+C|eC)"
    r"|(?P<duration>he?U|e?hfeU|NU|eU)"
    r"|(?P<number>N+(?!w))"
)
_CLOCK = re.compile(r"\d{1,2}(?:am|pm)")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)")


@lru_cache(maxsize=65_536)
def letter(word: str) -> str:
    """The class of a word; N a number, O an ordinal in digits, o one in words, T a time by itself.

    >>> letter("march"), letter("three"), letter("7th"), letter("car")
    ('M', 'N', 'O', '.')
    """
    if found := _LETTER.get(word):
        return found
    if word.isdecimal():
        return "N"
    if word[0].isdecimal():
        return "T" if _CLOCK.fullmatch(word) else "O" if _ORDINAL.fullmatch(word) else OTHER
    said = number_of(word)
    return OTHER if said is None else "N" if said.isdecimal() else "o" if _ORDINAL.fullmatch(said) else OTHER


@lru_cache(maxsize=65_536)
def number_of(words: str) -> str | None:
    """The digits that words say, None where they say none.

    >>> number_of("twenty five"), number_of("one"), number_of("fare")
    ('25', '1', None)
    """
    said = alpha2digit(words, "en", 0.0)
    return said if said[0].isdecimal() else None


_PLACE_CUES = "in to from near at around of for visit visiting leaving departing outside"
_PLACED = frozenset(_PLACE_CUES.split())
_PERSON_CUES = "by starring with featuring directed acted"
_TITLE_CUES = "play watch see called named titled hear"
_OPEN_CUES = {**dict.fromkeys(_PERSON_CUES.split(), PERSON), **dict.fromkeys(_TITLE_CUES.split(), TITLE)}
COMMON_LETTERS = 3  # an everyday word of so many is no place even after `in`
_MOST_OPEN = 4  # words of a name of a person or a work


class Tagger:
    """Finds the typed spans of a request's words; none overlap, the earlier and the longer one wins."""

    def __init__(self, is_common: Callable[[str], bool], known: Places | None = None) -> None:
        """`is_common`: words of everyday requests. They are no place by themselves and no part of a name."""
        self._is_common = is_common
        self._places = known or places()

    def may_begin(self, word: str) -> bool:
        """Whether a name may begin with this word, or behind it."""
        return (letter(word) == OTHER and word in self._places.seconds) or word in _OPEN_CUES

    def spans(self, words: Sequence[str], letters: str, begin: Sequence[int] | None = None) -> list[Span]:
        """In order of where they begin. `letters`: the words' classes; `begin`: which of them `may_begin`."""
        if begin is None:
            begin = [at for at, word in enumerate(words) if self.may_begin(word)]
        found = self._times(words, letters) if letters.strip(_IDLE) else []
        if begin:
            taken = {at for span in found for at in range(span.start, span.end)}
            found += self._names(words, begin, taken)
            found.sort(key=lambda span: span.start)
        return found

    def _times(self, words: Sequence[str], letters: str) -> list[Span]:
        found = []
        for match in _PATTERN.finditer(letters):
            kind = KINDS.index(match.lastgroup or "")
            start, end = match.span()
            said = " ".join(words[start:end])
            if kind == MONEY and letters[start] == "N":
                said = number_of(" ".join(words[start : end - 1])) or said
            elif kind == NUMBER:
                said = number_of(said) or said
            found.append(Span(kind, start, end, said))
        return found

    def _names(self, words: Sequence[str], begin: Sequence[int], taken: set[int]) -> list[Span]:
        """Places, and after `by`, `play` and their like the names that no everyday word is part of."""
        found, free = [], 0
        for at in begin:
            if at < free or at in taken:
                continue
            word = words[at]
            if word in self._places.seconds and (end := self._place_end(words, at, taken)):
                found.append(Span(PLACE, at, end, " ".join(words[at:end])))
                free = end
            elif word in _OPEN_CUES and (end := self._name_end(words, at + 1, taken)) > at + 1:
                found.append(Span(_OPEN_CUES[word], at + 1, end, " ".join(words[at + 1 : end])))
                free = end
        return found

    def _place_end(self, words: Sequence[str], at: int, taken: set[int]) -> int:
        """Behind the longest place that begins here; 0 where none does."""
        known = self._places
        if at + 1 < len(words) and words[at + 1] in known.seconds[words[at]]:
            for end in range(min(at + MOST_WORDS, len(words)), at + 1, -1):
                if " ".join(words[at:end]) in known.names and taken.isdisjoint(range(at, end)):
                    return end
        name = words[at]
        if name not in known.names:
            return 0
        rare = not self._is_common(name)
        cued = at > 0 and words[at - 1] in _PLACED and (rare or len(name) > COMMON_LETTERS)
        return at + 1 if cued or (rare and name in known.plain) else 0

    def _name_end(self, words: Sequence[str], at: int, taken: set[int]) -> int:
        end = at
        for word in words[at : at + _MOST_OPEN]:
            if end in taken or word in _OPEN_CUES or self._is_common(word):
                break
            end += 1
        return end
