"""Spans of requests as speech recognition writes them, with the kind and the value that a person hears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.places import Places
from model.spans import KINDS, WRITTEN, Tagger, letter
from model.text import tokens

_EVERYDAY = "i need a bus from to on the for people find me movie nice hotel in reading what is it"
COMMON = frozenset(_EVERYDAY.split())
TAGGER = Tagger(COMMON.__contains__)

GOLD = [
    ("i need a bus on march 7th", [("date", "march 7th")]),
    ("on the 13th of march", [("date", "the 13th of march")]),
    ("on the third of april", [("date", "the third of april")]),
    ("the 9th of this month", [("date", "the 9th of this month")]),
    ("leaving next wednesday", [("date", "next wednesday")]),
    ("thursday next week", [("date", "thursday next week")]),
    ("the day after tomorrow", [("date", "the day after tomorrow")]),
    ("what is it like this weekend", [("date", "this weekend")]),
    ("on the first", [("date", "on the first")]),
    ("at three pm", [("time", "at three pm")]),
    ("at half past six", [("time", "at half past six")]),
    ("quarter to nine in the morning", [("time", "quarter to nine in the morning")]),
    ("at 6 30 in the evening", [("time", "at 6 30 in the evening")]),
    ("5pm tomorrow", [("time", "5pm"), ("date", "tomorrow")]),
    ("pay 18 bucks", [("money", "18")]),
    ("send twenty five dollars", [("money", "25")]),
    ("for half an hour", [("duration", "half an hour")]),
    ("for three nights", [("duration", "three nights")]),
    ("for two people", [("number", "2")]),
    ("twenty one people", [("number", "21")]),
    ("a table for 4 at six", [("number", "4"), ("time", "at six")]),
    ("from san jose to rohnert park", [("place", "san jose"), ("place", "rohnert park")]),
    ("a hotel in nyc", [("place", "nyc")]),
    ("a movie directed by peter farrelly", [("person", "peter farrelly")]),
]


@pytest.mark.parametrize(("text", "expected"), GOLD)
def test_a_request_has_the_spans_that_a_person_hears(text: str, expected: list[tuple[str, str]]) -> None:
    words = tokens(text)
    spans = TAGGER.spans(words, "".join(map(letter, words)))
    assert [(KINDS[span.kind], span.value) for span in spans] == expected


@pytest.mark.parametrize(
    "text", ["i need a one way flight", "a nice hotel", "it is nice reading", "find me a may be"]
)
def test_everyday_words_are_no_spans(text: str) -> None:
    words = tokens(text)
    assert TAGGER.spans(words, "".join(map(letter, words))) == []


_SAID = "march 7th the of at three pm to san jose francisco twenty bucks by zorp next friday in"
WORDS = st.sampled_from(_SAID.split())


@given(st.lists(WORDS, max_size=14))
def test_spans_are_in_order_and_never_overlap(words: list[str]) -> None:
    spans = TAGGER.spans(words, "".join(map(letter, words)))
    ends = [0, *(span.end for span in spans)]
    assert all(end <= span.start < span.end <= len(words) for end, span in zip(ends, spans, strict=False))
    assert all(span.value for span in spans if span.kind in WRITTEN)


def test_the_longest_place_wins() -> None:
    names = frozenset(["san", "san jose", "san jose del monte"])
    known = Places(names, names, {"san": frozenset(["jose"])})
    words = ["to", "san", "jose", "del", "monte"]
    (span,) = Tagger(COMMON.__contains__, known).spans(words, "".join(map(letter, words)))
    assert span.value == "san jose del monte"
