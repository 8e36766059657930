"""What is fed with rubbish: each parser of bytes from outside, seeds of real bytes, and what it may cost."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch

from model.bundle import FILES, Bundle, Manifest, read_bundle, read_catalogue, read_manifest, write_bundle
from model.catalogue import Catalogue
from model.evidence import Evidence, Learned
from model.exemplars import Exemplars
from model.reranker import Reranker, RerankerSettings
from model.shortlister import Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.text import TextSettings, Vocabulary
from model.wording import Wording
from topics import events
from topics.codec import Source, decode, encode
from topics.errors import BadBundle, BadEvent, NamefreeError, UsageError
from topics.settings import Settings
from workers.commands.dead_letters import _row, _summary, readable, since_in
from workers.dead_letters import dead_letter
from workers.fold_store import fold_in
from workers.joins import read_head
from workers.records import Record, read_decision, read_outcome
from workers.redrive import _letter, check_mended, marker_of, obstacle, place_in
from workers.releases import read_release
from workers.skills import read_card

KINDS: tuple[type[events.Event], ...] = (
    events.Utterance,
    events.Links,
    events.SkillCard,
    events.Decision,
    events.Outcome,
    events.StatisticsFold,
    events.LiveStatistics,
    events.Release,
    events.DeadLetter,
    events.Redriven,
)
SETTINGS = Settings()
GOLDEN = Path(__file__).parent.parent / "topics" / "golden"


@dataclass(frozen=True)
class Target:
    """`take` returns, or raises one of `refusals`, and nothing else, within `limit_ms` of processor time.

    `share`: how many of a run's cases are its, against the others'.
    """

    name: str
    seeds: tuple[bytes, ...]
    take: Callable[[bytes], object]
    refusals: tuple[type[NamefreeError], ...]
    limit_ms: float
    share: float


@dataclass
class Message:
    """A message as the client gives one."""

    data: bytes | None
    name: str = "utterances"
    head: Any = field(default_factory=list)

    def value(self) -> bytes | None:
        return self.data

    def key(self) -> bytes | None:
        return self.data[:20] if self.data else None

    def topic(self) -> str:
        return self.name

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def headers(self) -> Any:
        return self.head

    def error(self) -> None:
        return None


def _codec(kind: type[events.Event]) -> Callable[[bytes], object]:
    """What is taken can be written, and comes back the same."""

    def take(data: bytes) -> object:
        found = decode(data, kind, Source("t", 0, 7))
        with suppress(BadEvent):  # base64 and escapes may take more room than they came with
            if decode(encode(found), kind) != found:
                raise AssertionError("what was taken comes back as something else")
        return found

    return take


def _readers(data: bytes) -> None:
    """The workers' own ways to read a message: one refusal must not keep the others from it."""
    message: Any = Message(data)
    record = Record("decisions", 0, 7, 0, None, data)
    fold_in(b"key", data)
    read_head(message)
    for read in (read_release, read_card):
        with suppress(BadEvent):
            read(message)
    for read_one in (read_decision, read_outcome):
        with suppress(BadEvent):
            read_one(record)


def _letters(data: bytes) -> None:
    """Put aside, listed, shown, looked at before it is sent back."""
    message: Any = Message(data, head=[(data[:9].decode("utf-8", "replace"), data[9:20])])
    put_aside = dead_letter(message, BadEvent(data.decode("utf-8", "replace"), "malformed"))
    for one in (put_aside, data):
        letter = _letter(Message(one))  # type: ignore[arg-type]  # as the client's
        if letter is None:
            continue
        _row(letter, {})
        _summary(letter, {})
        readable(letter.event.source_value)
        marker_of(letter, {})
        obstacle(SETTINGS, letter, {}, mended=False, again=False)
        with suppress(UsageError):
            check_mended(SETTINGS, letter, data)


def _words(data: bytes) -> None:
    """What is typed behind `dead-letters`."""
    text = data.decode("utf-8", "replace")
    for read in (place_in, since_in):
        with suppress(UsageError):
            read(text)


def real_events() -> dict[str, bytes]:
    """What the codec is held to for good, by kind: one event of each, with all that it can carry."""
    return {path.name.partition(".")[0]: path.read_bytes().strip() for path in sorted(GOLDEN.glob("*.1.json"))}


def sample_cards() -> list[events.SkillCard]:
    slot = events.Slot(name="where", type="City", required=True, values=("Oslo",))
    ability = events.Ability(answer="YES", slots={"where": events.SlotAbility("YES", "MAYBE")})
    return [
        events.SkillCard(
            skill_id=f"rides:{name}",
            name=f"{name} rides",
            description="Cars that come.",
            phrases=("get me a car", f"{name} to the airport"),
            intents=(events.Intent(name="Go", slots=(slot,)),),
            can_fulfill={"Go": ability},
        )
        for name in ("acorn", "oak", "elm")
    ]


def tiny_bundle() -> Bundle:
    """As small as one can be, so that thousands a minute are read: made, not trained."""
    cards, width = sample_cards(), 8
    text = TextSettings(ngram_rows=16)
    shortlister = ShortlisterSettings(word_width=width, state_width=width, width=width)
    reranker = RerankerSettings(width=4)
    catalogue = Catalogue(cards)
    vocabulary = Vocabulary(["", "car", "airport"], np.array([0, 1, 1], dtype=np.float32), text)
    torch.manual_seed(0)
    network = Shortlister(shortlister, len(vocabulary), text.ngram_rows, len(cards)).eval()
    statistics = Statistics()
    learned = Learned(Wording(torch.zeros(4)), Exemplars(2, len(cards), width))
    return Bundle(
        manifest=Manifest(text=text, shortlister=shortlister, reranker=reranker),
        catalogue=catalogue,
        vocabulary=vocabulary,
        shortlister=network,
        evidence=Evidence(network, catalogue, vocabulary, statistics, learned),
        reranker=Reranker(reranker).eval(),
        statistics=statistics,
    )


class Forger:
    """Bundles with one file swapped, signed as if it belonged there: what a digest cannot find."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")  # noqa: S108 memory, where there is such a folder: files are written at each case
        self._root = Path(tempfile.mkdtemp(prefix="namefree-fuzz-", dir=shared if shared.is_dir() else None))
        self.folder = self._root / "bundle"
        write_bundle(tiny_bundle(), self.folder)
        self.real = {name: (self.folder / name).read_bytes() for name in (*FILES, "manifest.json")}
        self._manifest = read_manifest(self.folder)

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def take_manifest(self, data: bytes) -> object:
        """As it is: only one that says its own digest gets through."""
        (self.folder / "manifest.json").write_bytes(data)
        return read_manifest(self.folder)

    def take_signed_manifest(self, data: bytes) -> object:
        """With its digest set right, wherever it can be read at all."""
        (self.folder / "manifest.json").write_bytes(data)
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._sign(msgspec.json.decode(data, type=Manifest))
        return read_bundle(self.folder)

    def taking(self, name: str) -> Callable[[bytes], object]:
        def take(data: bytes) -> object:
            (self.folder / name).write_bytes(data)
            files = {**self._manifest.files, name: hashlib.sha256(data).hexdigest()}
            self._sign(msgspec.structs.replace(self._manifest, files=files))
            try:
                if name == "catalogue.jsonl":
                    read_catalogue(self.folder)
                return read_bundle(self.folder)
            finally:
                (self.folder / name).write_bytes(self.real[name])

        return take

    def _sign(self, manifest: Manifest) -> None:
        bare = msgspec.structs.replace(manifest, digest="")
        digest = hashlib.sha256(msgspec.json.encode(bare, order="deterministic")).hexdigest()
        signed = msgspec.structs.replace(manifest, digest=digest)
        (self.folder / "manifest.json").write_bytes(msgspec.json.encode(signed))


def load_tensors(data: bytes) -> object:
    """The parser alone, as the bundle calls it."""
    try:
        return safetensors.torch.load(data)
    except (
        safetensors.SafetensorError,
        LookupError,
        ValueError,
        RuntimeError,
        TypeError,
        ArithmeticError,
    ) as error:
        raise BadBundle(str(error)) from error  # what `read_bundle` makes of them


def targets(forger: Forger) -> list[Target]:
    """All of them. A forged bundle takes milliseconds, an event microseconds: hence the shares."""
    seeds = tuple(real_events().values())
    found = [
        Target(f"codec.{kind.__name__}", (seed, *seeds), _codec(kind), (BadEvent,), 50.0, 6.0)
        for kind, seed in zip(KINDS, seeds, strict=True)
    ]
    found += [
        Target("workers.readers", seeds, _readers, (), 100.0, 15.0),
        Target("dead_letters.letters", seeds, _letters, (), 100.0, 10.0),
        Target("dead_letters.words", (b"0:12", b"2h", b"2026-11-27T01:30"), _words, (), 20.0, 5.0),
        Target("bundle.manifest", (forger.real["manifest.json"],), forger.take_manifest, (BadBundle,), 50.0, 8.0),
        Target(
            "bundle.signed_manifest",
            (forger.real["manifest.json"],),
            forger.take_signed_manifest,
            (BadBundle,),
            2_000.0,
            0.4,
        ),
        Target(
            "safetensors.parser",
            (forger.real["shortlister.safetensors"], forger.real["reranker.safetensors"]),
            load_tensors,
            (BadBundle,),
            50.0,
            8.0,
        ),
    ]
    return found + [
        Target(f"bundle.{name}", (forger.real[name],), forger.taking(name), (BadBundle,), 2_000.0, 0.4)
        for name in FILES
    ]
