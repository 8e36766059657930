"""What workers say at a terminal and in a log."""

import logging

from workers.console import seldom


def line(name: str, words: str, at_s: float, *arguments: object) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.ERROR, "", 0, words, arguments, None)
    record.created = at_s
    return record


def test_what_a_library_says_again_and_again_comes_through_now_and_then() -> None:
    lets_through = seldom(["aiokafka"], 10.0)
    told = [lets_through(line("aiokafka.conn", "no connection to %s", at / 10, at)) for at in range(250)]
    assert [at for at, through in enumerate(told) if through] == [0, 100, 200]


def test_other_words_and_our_own_lines_are_not_held_back() -> None:
    lets_through = seldom(["aiokafka"], 10.0)
    assert lets_through(line("aiokafka", "one", 0.0))
    assert lets_through(line("aiokafka", "another", 0.1))
    assert all(lets_through(line("namefree.router", "the same", 0.0)) for _ in range(3))
