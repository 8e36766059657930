"""The manual: generated pages are those of today's code, links lead somewhere, the README's tree is the tree."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = ("README.md", "CHANGELOG.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md"))))
PAGES_OF_CODE = ("events", "topics", "rights", "metrics", "command-line", "failpoints", "recipe")
GENERATED = (*(f"{name}.md" for name in PAGES_OF_CODE), "asyncapi.json")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docs/reference/ as the code would write it now."""
    folder = tmp_path_factory.mktemp("reference")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAMEFREE_")}
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", GENERATED)
def test_the_reference_is_that_of_the_code(fresh: Path, name: str) -> None:
    """Old pages are written anew by `make docs`."""
    assert (REFERENCE / name).read_text() == (fresh / name).read_text(), f"{name} is old: run `make docs`"


def test_nothing_is_generated_that_no_test_compares(fresh: Path) -> None:
    """A new page joins `GENERATED`."""
    assert {page.name for page in fresh.iterdir()} == set(GENERATED)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A file that was moved leaves no dead link behind."""
    text = re.sub(r"(?s)```.*?```", "", (ROOT / page).read_text())
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    missing = [target for target in local if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing


@pytest.mark.parametrize("package", ["topics", "model", "workers"])
def test_each_module_has_its_remark_in_the_readme(package: str) -> None:
    """A file that cannot be told in one remark is two files."""
    section = re.search(rf"(?ms)^{package}/ .*?(?=^\w+/ |^```)", (ROOT / "README.md").read_text())
    assert section is not None
    told = set(re.findall(r"(?m)^  (\w+\.py) +\S", section[0]))
    assert told == {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
