"""Lines of descent: whole, drawn in order, and what made a release on one line."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from topics.events import Release
from workers import descent


def release(name: str, parent: str = "", at: int = 0, top1: float | None = None, **more: object) -> Release:
    return Release(
        event_time_ms=at * 3_600_000,
        release=name,
        bundle=f"/store/{name}",
        digest="0" * 64,
        parent=parent,
        measures={} if top1 is None else {"decision_top1": top1},
        **more,  # type: ignore[arg-type]
    )


FIRST = release("first", at=1, top1=0.7, note="of the autumn catalogue")
REFUSED = release("bad", "first", 2, 0.6, provenance={"verdict": "refused: decision_top1 falls"})
SECOND = release("second", "first", 3, 0.72, provenance={"verdict": "published: no measure fell"})
THIRD = release("third", "second", 4, 0.75, note="cycle\nrolled back to second")
EVERY = [THIRD, REFUSED, FIRST, SECOND]


def test_a_line_goes_from_the_first_to_the_one_asked_for() -> None:
    assert descent.line(EVERY, THIRD) == [FIRST, SECOND, THIRD]
    assert descent.line(EVERY, FIRST) == [FIRST]
    assert descent.line([], THIRD) == [THIRD]


def test_what_was_grown_beside_stands_below_its_parent_with_its_reason() -> None:
    assert descent.draw(EVERY, THIRD, serving="second") == [
        "○ first  1970-01-01 01:00Z  top-1 0.700  of the autumn catalogue",
        "│ ├ bad  1970-01-01 02:00Z  top-1 0.600 −0.100  refused: decision_top1 falls",
        "○ second  1970-01-01 03:00Z  top-1 0.720 +0.020  serves  published: no measure fell",
        "● third  1970-01-01 04:00Z  top-1 0.750 +0.030  cycle rolled back to second",
    ]
    assert descent.draw(EVERY, SECOND)[-1].startswith("  ├ third")


def test_a_parent_that_is_not_there_any_more_is_said() -> None:
    assert descent.draw([THIRD], THIRD)[0] == "┊ second  not known here any more"


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefx"), min_size=1))
def test_whatever_the_parents_are_a_line_ends_and_names_nobody_twice(parents: dict[str, str]) -> None:
    every = [release(name, parent) for name, parent in parents.items()]
    for one in every:
        found = [each.release for each in descent.line(every, one)]
        assert found[-1] == one.release
        assert len(found) == len(set(found))
        assert all(parents[child] == parent for parent, child in pairwise(found))
        assert descent.draw(every, one)


def test_the_code_has_one_version_wherever_it_is_asked() -> None:
    told = descent.code_version()
    assert told == descent.code_version()
    package, _, digest = told.partition("+")
    assert package
    assert len(digest) == 12


@given(st.dictionaries(st.integers(0, 5_000), st.integers(0, 2**40), max_size=300))
def test_offsets_always_fit_into_a_line_and_differ_where_they_differ(offsets: dict[int, int]) -> None:
    told = descent.offsets_line(offsets)
    assert len(told) <= descent.MOST_CHARS
    for partition in list(offsets)[:1]:
        assert descent.offsets_line({**offsets, partition: offsets[partition] + 1}) != told
