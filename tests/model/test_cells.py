"""Cells on disk: named by what made them, there whole or not at all."""

import re
from pathlib import Path

import pytest
import torch

from model import cells
from model.cells import Digests, Store, TextDone, cell_key, text_key, without_remarks
from model.measuring import Epoch, Result, Weights
from model.systems import SYSTEMS, seeded
from topics.errors import UsageError

DIGESTS = Digests("taught", "asked")
RESULT = Result(
    ranks={"70": [1, 0, 3]},
    weights={"70": Weights([1, 2], [0, 1], [0.1, 1.7])},
    examples=[{"rides:acorn": 0.5}],
    epochs=[Epoch(0.5, 10.0, 0.2, 0.0)],
    text_seconds=1.0,
    link_seconds=2.0,
    requests_per_s=3.0,
    held_out_top3=0.9,
)
DONE = TextDone(1.5, 0.8, [Epoch(0.5, 10.0, 0.2, 0.0)])


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    store, weights = Store(tmp_path), {"rows": torch.arange(6.0).reshape(2, 3)}
    store.keep_result("a", RESULT)
    store.keep_text("b", weights, DONE)
    assert Store(tmp_path).result("a") == RESULT
    found = Store(tmp_path).text("b")
    assert found is not None
    assert torch.equal(found[0]["rows"], weights["rows"])
    assert found[1] == DONE
    assert store.result("b") is None
    assert store.text("a") is None


@pytest.mark.parametrize("kept", [0, 1, 8, 40, 0.5, 0.99])
def test_a_file_that_was_cut_counts_as_absent(kept: float, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_result("a", RESULT)
    store.keep_text("b", {"rows": torch.zeros(100)}, DONE)
    for path in (tmp_path / "cells" / "a.json", tmp_path / "texts" / "b.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    assert store.result("a") is None
    assert store.text("b") is None


@pytest.mark.parametrize("data", [b"[]", b"{}", b"\xff\xfe", b"null", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_cell_counts_as_absent(data: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for path in (tmp_path / "cells" / "a.json", tmp_path / "texts" / "a.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert store.result("a") is None
    assert store.text("a") is None


def test_a_write_that_died_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.keep_result("a", RESULT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.replace", full)
        with pytest.raises(UsageError, match="cannot be written: No space left"):
            store.keep_result("a", RESULT)
    assert store.result("a") == RESULT


def test_a_cells_name_is_that_of_all_that_made_it() -> None:
    recipe = seeded(SYSTEMS["best"].recipe, 0)
    names = {
        cell_key(DIGESTS, recipe, None),
        cell_key(DIGESTS, recipe, 1.0),
        cell_key(DIGESTS, seeded(recipe, 1), None),
        cell_key(DIGESTS, SYSTEMS["softmax"].recipe, None),
        cell_key(Digests("other", "asked"), recipe, None),
        cell_key(Digests("taught", "other"), recipe, None),
    }
    assert len(names) == 6
    assert cell_key(DIGESTS, seeded(recipe, 0), None) in names


def test_a_text_models_name_leaves_out_what_only_links_read() -> None:
    best = SYSTEMS["best"].recipe
    same = {text_key(DIGESTS, SYSTEMS[name].recipe) for name in ("none", "bonus", "softmax", "gate", "summary")}
    assert same == {text_key(DIGESTS, best)}
    assert text_key(DIGESTS, best) == text_key(Digests("taught", "other"), best)
    others = {text_key(DIGESTS, SYSTEMS[name].recipe) for name in ("bag", "jointly", "no-prototypes", "published")}
    assert len(others | same) == 5


def test_every_module_that_a_shortlister_is_made_by_is_in_its_name() -> None:
    """Else a change there would leave old cells standing."""
    apart = {"cells", "experiment", "systems", "teaching"}  # no part of a shortlister that has no parent
    second = {"bundle", "evidence", "exemplars", "fitting", "reranker", "rivals", "wording"}
    folder = Path(cells.__file__).parent
    found: set[str] = set()
    waiting = ["experiment"]
    while waiting:
        name = waiting.pop()
        if name not in found | second:  # nor is what only the second network stands on
            found.add(name)
            imported = re.findall(r"(?m)^from model\.(\w+) import", (folder / f"{name}.py").read_text())
            waiting += imported
    assert found - apart == {*cells.TEXT_CODE, *cells.LINK_CODE, *cells.MEASURING_CODE}


def test_comments_and_docstrings_are_no_code(tmp_path: Path) -> None:
    plain, told, other = (tmp_path / name for name in ("plain.py", "told.py", "other.py"))
    plain.write_text("def f(x):\n    return x + 1\n")
    told.write_text('"""A module."""\n\n\ndef f(x):\n    """One more."""\n    return (x + 1)  # as it says\n')
    other.write_text("def f(x):\n    return x + 2\n")
    assert without_remarks(plain) == without_remarks(told) != without_remarks(other)
