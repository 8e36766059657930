"""A bundle: all that a router needs to decide, in a folder that cannot run code.

    manifest.json            format, digest, settings, measures, provenance
    shortlister.safetensors  weights
    reranker.safetensors     weights
    catalogue.jsonl          the skills' cards, by row; null where a skill has left
    vocabulary.json          words and their weights
    statistics.json          the counts whose features are fed in

The digest covers the bytes of every file and the manifest's own fields. A damaged, cut or foreign bundle is
refused with one sentence; a folder appears whole or not at all.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
from msgspec import Struct
from safetensors import SafetensorError
from torch import Tensor, nn

from model.catalogue import Catalogue
from model.evidence import Evidence, Learned
from model.exemplars import Exemplars
from model.habits import Habits
from model.policy import Costs
from model.reranker import Reranker, RerankerSettings
from model.shortlister import Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.text import TextSettings, Vocabulary
from model.wording import Wording
from topics.errors import BadBundle, BadData
from topics.events import MAX_CANDIDATES, SkillCard

FORMAT = "namefree-bundle/2"
OLDER = ("namefree-bundle/1",)  # their rerankers looked at other features
MAX_FILE_BYTES = 4 * 1024**3  # 50,000 skills take 0.1 GB; more than this is no bundle of ours
MAX_MANIFEST_BYTES = 4 * 1024**2  # measures and provenance of a cycle take some kilobytes
# What sizes a manifest may name, so that one that lies costs neither memory nor time: far above what is useful.
# Those that grow with words and skills are held against the weights that are there instead.
MOST = {
    "shortlister": {"word_width": 1_024, "state_width": 1_024, "width": 1_024},
    "text": {"max_words": 10_000},
    "reranker": {"candidates": MAX_CANDIDATES, "width": 256, "heads": 64, "layers": 16},
}
MAX_NGRAM = 64  # characters
FILES = (
    "shortlister.safetensors",
    "reranker.safetensors",
    "catalogue.jsonl",
    "vocabulary.json",
    "statistics.json",
)
# what Python, torch and the parsers raise where parts of a bundle contradict each other, or themselves
MISFITS = (
    ArithmeticError,
    AssertionError,
    BadData,
    LookupError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    msgspec.DecodeError,
)


class Manifest(Struct, frozen=True, kw_only=True):
    """What the bundle is and where it comes from. `provenance`: seed, rows, parent, statistics."""

    format: str = FORMAT
    digest: str = ""
    skills: int = 0
    text: TextSettings = TextSettings()
    shortlister: ShortlisterSettings = ShortlisterSettings()
    reranker: RerankerSettings = RerankerSettings()
    costs: Costs = Costs()
    provenance: dict[str, str | int | float] = {}
    measures: dict[str, float] = {}
    files: dict[str, str] = {}

    @property
    def release(self) -> str:
        """The id under which the bundle is released: the digest's first 12 hex digits."""
        return self.digest[:12]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle in memory."""

    manifest: Manifest
    catalogue: Catalogue
    vocabulary: Vocabulary
    shortlister: Shortlister
    evidence: Evidence
    reranker: Reranker
    statistics: Statistics


def write_bundle(bundle: Bundle, folder: Path) -> Manifest:
    """Writes the bundle to `folder`, replacing a bundle that is there, and returns its manifest.

    Raises BadBundle where the folder is something else than a bundle.
    """
    if folder.exists() and not (folder / "manifest.json").exists():
        raise BadBundle(f"{folder} exists and is no bundle: name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        manifest = _write_files(bundle, part)
        if folder.exists():
            shutil.rmtree(folder)
        part.chmod(0o755)  # a router may run as another user; mkdtemp is for its owner alone
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _write_files(bundle: Bundle, folder: Path) -> Manifest:
    cards = (msgspec.json.encode(card) for card in bundle.catalogue.rows())
    words = {"words": bundle.vocabulary.words, "weights": bundle.vocabulary.weights.tolist()}
    learned = bundle.evidence.learned
    reranker = {
        **_prefixed("network.", bundle.reranker),
        **_prefixed("exemplars.", learned.exemplars),
        **_prefixed("habits.", bundle.evidence.habits),
        "wording.weights": learned.wording.weights,
        "sources": bundle.evidence.sources.clone(),
    }
    contents = {
        "shortlister.safetensors": safetensors.torch.save(_tensors(bundle.shortlister)),
        "reranker.safetensors": safetensors.torch.save(reranker),
        "catalogue.jsonl": b"".join(card + b"\n" for card in cards),
        "vocabulary.json": msgspec.json.encode(words),
        "statistics.json": bundle.statistics.to_json(),
    }
    for name, data in contents.items():
        _write_synced(folder / name, data)
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = msgspec.structs.replace(bundle.manifest, files=files, skills=len(bundle.catalogue))
    manifest = msgspec.structs.replace(manifest, digest=_digest(msgspec.to_builtins(manifest)))
    _write_synced(folder / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return manifest


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in _tensors(module).items()}


def _digest(said: Mapping[str, Any]) -> str:
    """Of the fields that a manifest tells, as it tells them: one from before a setting was there keeps its own."""
    free = {name: dict(sorted(said[name].items())) for name in ("provenance", "measures", "files") if name in said}
    return hashlib.sha256(msgspec.json.encode({**said, **free, "digest": ""})).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, its own digest checked. Raises BadBundle."""
    path = folder / "manifest.json"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadBundle(f"{path} is larger than {MAX_MANIFEST_BYTES:,} bytes: it is no manifest of ours")
        said = msgspec.json.decode(data)
        manifest = msgspec.convert(said, Manifest)
    except OSError as error:
        raise BadBundle(f"{folder} holds no bundle: {path.name} cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBundle(f"{path} is no manifest: {error}") from error
    if manifest.format != FORMAT:
        remedy = "train it again" if manifest.format in OLDER else "upgrade"
        raise BadBundle(f"{folder} has format {manifest.format!r}, this version reads {FORMAT!r}: {remedy}")
    if manifest.digest != _digest(said):
        raise BadBundle(f"{path} does not have its own digest: it was changed by hand or damaged")
    return manifest


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, every file's digest checked. Raises BadBundle."""
    manifest = read_manifest(folder)
    contents = {name: _checked(folder / name, manifest) for name in FILES}
    try:
        return _build(manifest, contents)
    except MISFITS as error:
        said = f"{type(error).__name__} {error}".splitlines()[0]
        raise BadBundle(f"the bundle in {folder} does not fit together: {said}") from error


def read_catalogue(folder: Path) -> Catalogue:
    """The skills of the bundle in `folder` alone. Raises BadBundle."""
    lines = _checked(folder / "catalogue.jsonl", read_manifest(folder))
    try:
        return _catalogue(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadData) as error:
        raise BadBundle(f"the catalogue in {folder} cannot be read: {error}") from error


def _catalogue(lines: bytes) -> Catalogue:
    return Catalogue(msgspec.json.Decoder(SkillCard | None).decode_lines(lines))


def _checked(path: Path, manifest: Manifest) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadBundle(f"{path} is larger than {MAX_FILE_BYTES:,} bytes: it is no file of a bundle")
        data = path.read_bytes()
    except OSError as error:
        raise BadBundle(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != manifest.files.get(path.name):
        raise BadBundle(f"{path} does not have the digest that its manifest names: the bundle is damaged")
    return data


def _build(manifest: Manifest, contents: dict[str, bytes]) -> Bundle:
    _check_sizes(manifest)
    catalogue = _catalogue(contents["catalogue.jsonl"])
    words = msgspec.json.decode(contents["vocabulary.json"], type=_Words)
    if len(words.words) != len(words.weights):
        raise ValueError(f"the vocabulary has {len(words.words)} words and {len(words.weights)} weights")
    with np.errstate(over="ignore"):
        weights = np.asarray(words.weights, dtype=np.float32)
    if not np.isfinite(weights).all():
        raise ValueError("the vocabulary has weights that are beyond all numbers")
    vocabulary = Vocabulary(words.words, weights, manifest.text)
    shortlister = _shortlister(
        safetensors.torch.load(contents["shortlister.safetensors"]), manifest, len(vocabulary), len(catalogue)
    )
    tensors = safetensors.torch.load(contents["reranker.safetensors"])
    reranker = Reranker(manifest.reranker)
    reranker.load_state_dict(_unprefixed("network.", tensors))
    statistics = Statistics.from_json(contents["statistics.json"])
    if shortlister.present.tolist() != catalogue.present().tolist():
        raise ValueError("weights and catalogue differ about which skills have left")
    width = manifest.shortlister.width
    learned, habits = _learned(len(catalogue), width, tensors), _habits(len(catalogue), width, tensors)
    evidence = Evidence(shortlister.eval(), catalogue, vocabulary, statistics, learned, tensors["sources"], habits)
    return Bundle(
        manifest=manifest,
        catalogue=catalogue,
        vocabulary=vocabulary,
        shortlister=shortlister.eval(),
        evidence=evidence,
        reranker=reranker.eval(),
        statistics=statistics,
    )


class _Words(Struct, frozen=True):
    """vocabulary.json."""

    words: list[str]
    weights: list[float]


def _check_sizes(manifest: Manifest) -> None:
    """Raises ValueError where the manifest names a size that costs without bounds."""
    for part, bounds in MOST.items():
        for name, most in bounds.items():
            if not 1 <= (size := getattr(getattr(manifest, part), name)) <= most:
                raise ValueError(f"{part}.{name} is {size}: it is 1 to {most:,}")
    lengths = manifest.text.ngram_lengths
    if len(lengths) > MAX_NGRAM or not all(1 <= length <= MAX_NGRAM for length in lengths):
        raise ValueError(f"text.ngram_lengths are {len(lengths)} numbers from 1 to {MAX_NGRAM}")


def _shortlister(tensors: dict[str, Tensor], manifest: Manifest, words: int, skills: int) -> Shortlister:
    """The first network, with these weights. Raises ValueError where they have other shapes than it."""
    width, word_width = manifest.shortlister.width, manifest.shortlister.word_width
    expected = {
        "encoder.word.weight": (words, word_width),
        "encoder.ngram.weight": (manifest.text.ngram_rows, word_width),
        "rows": (skills, width),
    }
    for name, shape in expected.items():  # the large ones: no memory is taken before they are known to be there
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, and not {shape}")
    made = Shortlister(manifest.shortlister, words, manifest.text.ngram_rows, skills)
    made.load_state_dict(tensors)
    return made


def _learned(skills: int, width: int, tensors: dict[str, Tensor]) -> Learned:
    """What was learned of skills' requests; a file in which it does not fit together raises ValueError."""
    exemplars = Exemplars(len(tensors["exemplars.vectors"]), skills, width)
    exemplars.load_state_dict(_unprefixed("exemplars.", tensors))
    sources = tensors["sources"]
    if int(exemplars.index.min()) < -1 or int(exemplars.index.max()) >= len(exemplars.vectors):
        raise ValueError("a skill has an exemplar that is not there")
    if sources.shape != (skills,) or int(sources.min()) < -1 or int(sources.max()) >= skills:
        raise ValueError("a skill has learned from a row that is not there")
    return Learned(Wording(tensors["wording.weights"]), exemplars)


def _habits(skills: int, width: int, tensors: dict[str, Tensor]) -> Habits:
    """As they were found: what skills borrowed from one that has left stays theirs."""
    habits = Habits(skills, len(tensors["habits.anchors"]), width)
    habits.load_state_dict(_unprefixed("habits.", tensors))
    return habits


def _unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
