"""Where a release comes from: its line of descent, and the lines that say what made it.

Imports no networks: a list of releases is looked at without them.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from topics.events import Release

MOST_CHARS = 1_000  # of a line of a release's event
TOP1 = "decision_top1"
VERDICT = "verdict"  # in `provenance`: why it was published or refused
MODEL = Path(__file__).parent.parent / "model"


def line(releases: Sequence[Release], release: Release) -> list[Release]:
    """From the first ancestor that is known to `release` itself, by `parent`; a ring of parents ends where it
    closes."""
    known = {one.release: one for one in releases}
    found, seen, at = [release], {release.release}, known.get(release.parent)
    while at is not None and at.release not in seen:
        found.append(at)
        seen.add(at.release)
        at = known.get(at.parent)
    return found[::-1]


def draw(releases: Sequence[Release], release: Release, serving: str = "") -> list[str]:
    """The line of descent, one line of text a release, the first at the top; what else was grown from one of them
    stands indented below it. `serving`: the id that customers meet.

    ○ 166bbd2c0c39  2026-11-26 20:14Z  top-1 0.724          first of the autumn
    │ ├ 5a01…       2026-11-26 21:02Z  top-1 0.702  −0.022  refused: decision_top1 falls from …
    ● 8c20…         2026-11-26 22:00Z  top-1 0.744  +0.020  published: no measure fell by more than its bound
    """
    path = line(releases, release)
    on_it = {one.release for one in path}
    known = {one.release: one for one in releases}
    rows = []
    if path[0].parent:
        rows.append(f"┊ {path[0].parent}  not known here any more")
    for one in path:
        mark = "●" if one.release == release.release else "○"
        rows.append(f"{mark} {_told(one, known.get(one.parent), serving)}")
        beside = [other for other in releases if other.parent == one.release and other.release not in on_it]
        ahead = "│" if one is not path[-1] else " "
        rows += [f"{ahead} ├ {_told(other, one, serving)}" for other in sorted(beside, key=_time)]
    return rows


def _time(release: Release) -> tuple[int, str]:
    return release.event_time_ms, release.release


def _told(release: Release, parent: Release | None, serving: str) -> str:
    when = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(release.event_time_ms / 1000))
    serves = "serves" if release.release == serving else ""
    parts = (release.release, when, _measured(release, parent), serves, why(release))
    return "  ".join(part for part in parts if part)


def _measured(release: Release, parent: Release | None) -> str:
    mine = release.measures.get(TOP1)
    if mine is None:
        return ""
    theirs = parent.measures.get(TOP1) if parent else None
    if theirs is None:
        return f"top-1 {mine:.3f}"
    return f"top-1 {mine:.3f} {'−' if mine < theirs else '+'}{abs(mine - theirs):.3f}"


def why(release: Release) -> str:
    """Why it was published, refused or taken back, on one line: what its cycle said, then what was noted since."""
    return " ".join(f"{release.provenance.get(VERDICT, '')} {release.note}".split())


def code_version() -> str:
    """Which code trains: the package's version, and a digest over the sources of `model`, so that equal inputs and
    equal code give equal releases wherever they are checked out."""
    digest = hashlib.sha256()
    for path in sorted(MODEL.rglob("*.py"), key=lambda path: path.relative_to(MODEL).as_posix()):
        digest.update(f"{path.relative_to(MODEL).as_posix()}\0".encode())
        digest.update(path.read_bytes())
        digest.update(b"\0")
    return f"{version('namefree')}+{digest.hexdigest()[:12]}"


def offsets_line(offsets: Mapping[int, int]) -> str:
    """Offsets by partition as one line; of more partitions than fit, their number and a digest.

    >>> offsets_line({1: 98, 0: 120})
    '0:120,1:98'
    """
    told = ",".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items()))
    if len(told) <= MOST_CHARS:
        return told
    digest = hashlib.sha256(told.encode()).hexdigest()[:12]
    return f"{len(offsets)} partitions, {sum(offsets.values())} events, digest {digest}"
