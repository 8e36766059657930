"""Pages of HTML that need nothing else, neither network nor script, and how they are written.

What a page shows are strangers' words: a template escapes whatever it is handed, but for our own plots.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from topics.errors import UsageError


def page(template: str, **values: object) -> str:
    """A page's HTML from a template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "range": _range,
        "points": points,
        "number": _number,
    }
    return environment.get_template(template).render(**values)


def make_room(path: Path) -> None:
    """Makes the folder of `path`: before a page is made, not after. Raises UsageError."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def write_page(text: str, path: Path) -> None:
    """Writes a page, which appears whole or not at all. Raises UsageError where it cannot be."""
    with _writing(path):
        _write_whole(text, path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from error


def _write_whole(text: str, path: Path) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
        try:
            file.write(text)
            file.close()
            Path(file.name).chmod(0o644)  # a temporary file is its owner's alone
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _count(value: float) -> str:
    return f"{round(value):,}"


def _percent(share: float | None, decimals: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{decimals}f} %"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points, with its sign.

    >>> points(0.0123), points(-0.5), points(0)
    ('+1.2', '−50.0', '0.0')
    """
    told = f"{abs(100 * difference):.1f}"
    sign = "" if float(told) == 0 else "+" if difference > 0 else "−"
    return sign + told


def _number(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"
