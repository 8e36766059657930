"""Bundles: whole or refused, with one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model.bundle import FILES, Bundle, read_bundle, read_manifest, write_bundle
from model.selector import Request, Selector
from topics.errors import BadBundle

REQUESTS = [Request("get me a car", ("rides:acorn",)), Request("will it rain"), Request("zeppelin")]


def test_a_bundle_read_back_decides_as_the_one_in_memory(small_bundle: Bundle, small_folder: Path) -> None:
    assert Selector(small_bundle).decide(REQUESTS) == Selector.load(small_folder).decide(REQUESTS)


def test_writing_twice_gives_one_digest_and_replaces_the_folder(small_bundle: Bundle, tmp_path: Path) -> None:
    first = write_bundle(small_bundle, tmp_path / "bundle")
    second = write_bundle(small_bundle, tmp_path / "bundle")
    assert first.digest == second.digest == read_manifest(tmp_path / "bundle").digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_not_overwritten(small_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(BadBundle, match="is no bundle: name another folder"):
        write_bundle(small_bundle, tmp_path)


def cut(folder: Path) -> None:
    path = folder / "shortlister.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def flip(folder: Path) -> None:
    path = folder / "reranker.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def lose(folder: Path) -> None:
    (folder / "catalogue.jsonl").unlink()


def edit(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"wrong": 1.0', '"wrong": 0.1'))


def foreign(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": "other/9"}))


def rubbish(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\x00")


def empty(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "the bundle is damaged"),
        (flip, "the bundle is damaged"),
        (lose, "catalogue.jsonl cannot be read"),
        (edit, "does not have its own digest"),
        (foreign, "has format 'other/9'"),
        (rubbish, "is no manifest"),
        (empty, "holds no bundle"),
    ],
)
def test_a_damaged_bundle_is_refused_with_one_sentence(
    damage: Callable[[Path], None], says: str, small_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(small_folder, folder)
    damage(folder)
    with pytest.raises(BadBundle, match=says) as refused:
        read_bundle(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_bundle_is_refused_even_under_a_right_digest(
    name: str, small_bundle: Bundle, small_folder: Path, tmp_path: Path
) -> None:
    """Whoever can write digests can still not make a router load what does not fit."""
    folder = tmp_path / "bundle"
    shutil.copytree(small_folder, folder)
    (folder / name).write_bytes(b'{"words": 3, "decisions": "many"}')
    _sign_again(folder, name)
    with pytest.raises(BadBundle):
        read_bundle(folder)


def _sign_again(folder: Path, name: str) -> None:
    import hashlib

    import msgspec

    manifest = read_manifest(folder)
    files = {**manifest.files, name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    manifest = msgspec.structs.replace(manifest, files=files, digest="")
    digest = hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()
    (folder / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, digest=digest)))
