"""The three conditions: given by the folder, or made from the dev rows with as few changes as they need."""

from pathlib import Path

import msgspec
import pytest

from model.conditions import SHARES, read_conditions, simulated
from model.data import Row
from topics.errors import BadData


def rows(count: int, linked: int) -> list[Row]:
    """`count` rows that mean a skill, `linked` of which have it linked, and one that means none."""
    found = [
        Row(f"text {n}", f"skill:{n}", linked=("other:a", f"skill:{n}") if n < linked else ("other:a", "other:b"))
        for n in range(count)
    ]
    return [*found, Row("hm", None, linked=("other:b",))]


@pytest.mark.parametrize("linked", [0, 50, 66, 100])
def test_each_condition_has_its_share_and_the_other_links_stay(linked: int) -> None:
    given = rows(100, linked)
    made = simulated(given)
    assert set(made) == set(SHARES)
    for share, part in made.items():
        assert [(row.text, row.skill_id) for row in part] == [(row.text, row.skill_id) for row in given]
        assert sum(row.skill_id in (row.linked or ()) for row in part) == share
        for row, own in zip(part, given, strict=True):
            assert set(row.linked or ()) - {row.skill_id} == set(own.linked or ()) - {own.skill_id}


def test_as_few_rows_as_can_be_change() -> None:
    given = rows(100, 80)
    made = simulated(given)

    def changed(share: int) -> int:
        return sum(set(a.linked or ()) != set(b.linked or ()) for a, b in zip(made[share], given, strict=True))

    assert (changed(90), changed(70), changed(0)) == (10, 10, 80)
    has = {share: {row.text for row in made[share] if row.skill_id in (row.linked or ())} for share in SHARES}
    assert has[70] < has[90]
    assert simulated(given) == made


def test_rows_that_do_not_say_borrow_a_set_and_without_any_there_is_nothing_to_make() -> None:
    silent = [Row("one", "skill:1"), *rows(9, 5)]
    assert all(row.linked for row in simulated(silent)[0])
    with pytest.raises(BadData, match="no dev row says who is linked"):
        simulated([Row("one", "skill:1")])


def write(path: Path, part: list[Row]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in part))


def test_a_folder_that_brings_them_is_believed(tmp_path: Path) -> None:
    for share in SHARES:
        write(tmp_path / f"utterances.dev.linked{share}.jsonl", rows(10, share // 10))
    found = read_conditions(tmp_path)
    assert found.given
    assert found.rows[90] == rows(10, 9)


def test_given_files_with_different_rows_are_refused(tmp_path: Path) -> None:
    for share in SHARES:
        write(tmp_path / f"utterances.dev.linked{share}.jsonl", rows(10 if share else 9, 0))
    with pytest.raises(BadData, match="different rows"):
        read_conditions(tmp_path)


def test_a_folder_without_them_has_them_made(tmp_path: Path) -> None:
    write(tmp_path / "utterances.dev.jsonl", rows(10, 5))
    write(tmp_path / "utterances.dev.linked90.jsonl", rows(10, 9))  # one of three is not enough
    found = read_conditions(tmp_path)
    assert not found.given
    assert len(found.texts) == 11
