"""What a run of the learning experiment leaves behind, and where finished runs, releases and their measures are
kept: under the hash of all that made them, so that nothing is computed twice."""

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

import model
import workers
from model.bundle import Bundle, read_bundle, write_bundle
from model.cells import without_remarks, write_whole
from topics.errors import BadBundle
from topics.events import Action, OutcomeKind
from workers.crowd import Met

log = logging.getLogger("namefree.learning")
T = TypeVar("T")
RUN_CODE = (
    *("behaviour", "crowd", "customers", "worlds", "learning_run", "trainer", "gathering", "experience"),
    *("folding", "aggregator", "fold_store", "router", "deciding", "skills", "live"),
)
SLICES = 10  # of a part, for what happens within it
TAKEN = (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED)


class Measured(Struct, frozen=True):
    """A release on dev rows that are never asked. By condition one bit a row: whether the decision's first, or one
    of the shortlist's first three, was what is meant."""

    release: str
    rows: int
    top1: dict[str, str]
    top3: dict[str, str]


class Sums(Struct, frozen=True):
    """What customers met over some requests: decided by whom is told where these stand."""

    requests: int
    not_accepted: int
    not_taken: int  # neither accepted nor enabled
    failing: int  # a skill that fails was opened: launched or suggested
    failing_launched: int
    cheater: int  # the cheater was opened


class Part(Struct, frozen=True):
    """One part of a world: what was asked, and the cycle after it. `met`: SLICES sums of equal stretches, by who
    decided: `live` (what happened), `static` (the first release alone; aside), `serving` (the release that served,
    without live statistics; aside)."""

    asked: int
    seconds: float
    decisions_per_s: float
    outcomes: dict[str, int]
    habits: dict[str, int]
    met: dict[str, list[Sums]]
    cycle: dict[str, Any]
    cycle_s: float


class Run(Struct, frozen=True):
    """A world, with one thing off or nothing. `measured`: the first release, then what serves after each cycle."""

    world: str
    variant: str
    seed: int
    skills: int
    taught: int
    joining: int
    failing: int
    changes: int | None
    cheater: str | None
    parts: list[Part]
    measured: list[Measured]


def packed(hits: NDArray[np.bool_]) -> str:
    """Bits as text, (N,)."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def unpacked(text: str, rows: int) -> NDArray[np.float64]:
    """The bits of `packed`, (rows,)."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=rows)
    return bits.astype(np.float64)


def sliced(met: Met, failing: Mapping[str, str], cheater: str | None) -> list[Sums]:
    """The sums of SLICES equal stretches of what customers met."""
    edges = np.linspace(0, len(met.happened), SLICES + 1).astype(int).tolist()
    return [_sums(met, slice(*ends), failing, cheater) for ends in pairwise(edges)]


def _sums(met: Met, part: slice, failing: Mapping[str, str], cheater: str | None) -> Sums:
    happened, opened, actions = met.happened[part], met.opened[part], met.actions[part]
    fails = [skill in failing for skill in opened]
    return Sums(
        requests=len(happened),
        not_accepted=sum(kind is not OutcomeKind.ACCEPTED for kind in happened),
        not_taken=sum(kind not in TAKEN for kind in happened),
        failing=sum(fails),
        failing_launched=sum(
            found and action is Action.LAUNCH for found, action in zip(fails, actions, strict=True)
        ),
        cheater=sum(skill is not None and skill == cheater for skill in opened),
    )


def added(sums: Sequence[Sums]) -> Sums:
    """All of them together."""
    columns = zip(*(msgspec.structs.astuple(one) for one in sums), strict=True)
    return Sums(*map(sum, columns))


def digest(*parts: object) -> str:
    """The name of what these make: 16 hex digits."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else msgspec.json.encode(part, enc_hook=str, order="deterministic")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()[:16]


@cache
def model_code() -> str:
    """A hash of what the model's modules do; remarks have no part in it."""
    return digest([without_remarks(path) for path in sorted(Path(model.__file__).parent.glob("*.py"))])


@cache
def run_code() -> str:
    """The same of the workers' modules that make a run what it is."""
    folder = Path(workers.__file__).parent
    return digest([without_remarks(folder / f"{name}.py") for name in RUN_CODE])


class Kept:
    """A folder of runs, measures and releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, key: str) -> Run | None:
        """The run under `key`; None where there is none, or none that is whole."""
        return self._read(self.folder / "runs" / f"{key}.json", Run)

    def keep_run(self, key: str, run: Run) -> None:
        """Writes a run, whole or not at all. Raises UsageError where it cannot."""
        write_whole(self.folder / "runs" / f"{key}.json", msgspec.json.encode(run))

    def measured(self, key: str) -> Measured | None:
        """The measures under `key`; None where there are none."""
        return self._read(self.folder / "measured" / f"{key}.json", Measured)

    def keep_measured(self, key: str, measured: Measured) -> None:
        """Writes measures, whole or not at all. Raises UsageError where it cannot."""
        write_whole(self.folder / "measured" / f"{key}.json", msgspec.json.encode(measured))

    def place(self, key: str) -> Path:
        """Where the bundle under `key` stands, if it does."""
        return self.folder / "bundles" / key

    def bundle(self, key: str) -> Bundle | None:
        """The bundle under `key`; None where there is none, or none that is whole."""
        if not self.place(key).exists():
            return None
        try:
            return read_bundle(self.place(key))
        except BadBundle as error:
            log.warning("%s, and is trained again", error)
            return None

    def keep_bundle(self, key: str, bundle: Bundle) -> None:
        """Writes a bundle. Raises UsageError where it cannot."""
        write_bundle(bundle, self.place(key))

    def _read(self, path: Path, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s is not whole and is computed again: %s", path, error)
            return None
