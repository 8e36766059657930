"""The examples in docstrings run, and show what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# only modules that have an example are imported: the others prove nothing here
SHOWN = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("topics", "model", "workers")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_in_docstrings_are_true(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0, "examples that doctest does not see"
    assert failed == 0, capsys.readouterr().out
