"""Bundles: whole or refused, with one sentence."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import safetensors.torch
import torch
from torch import Tensor

from model.bundle import FILES, Bundle, read_bundle, read_manifest, write_bundle
from model.selector import Request, Selector
from topics.errors import BadBundle

RELEASE = "714b3cbeeee6"
Tensors = dict[str, Tensor]
REQUESTS = [Request("get me a car", ("rides:acorn",)), Request("will it rain"), Request("zeppelin")]


def test_a_bundle_read_back_decides_as_the_one_in_memory(small_bundle: Bundle, small_folder: Path) -> None:
    assert Selector(small_bundle).decide(REQUESTS) == Selector.load(small_folder).decide(REQUESTS)


def test_writing_twice_gives_one_digest_and_replaces_the_folder(small_bundle: Bundle, tmp_path: Path) -> None:
    first = write_bundle(small_bundle, tmp_path / "bundle")
    second = write_bundle(small_bundle, tmp_path / "bundle")
    assert first.digest == second.digest == read_manifest(tmp_path / "bundle").digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_manifest_from_before_a_setting_was_there_is_whole_and_means_its_default() -> None:
    """Written before `enable` was a cost: who updates namefree keeps the releases that serve."""
    found = read_manifest(Path(__file__).parent / "golden")
    assert (found.release, found.costs.wrong_enable, found.costs.enable) == (RELEASE, 1.0, 0.0)


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


def older(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("namefree-bundle/2", "namefree-bundle/1"))


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
        (foreign, "has format 'other/9', this version reads 'namefree-bundle/2': upgrade"),
        (older, "has format 'namefree-bundle/1', this version reads 'namefree-bundle/2': train it again"),
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


def too_high(tensors: Tensors) -> None:
    tensors["exemplars.index"][3, 0] = len(tensors["exemplars.vectors"])


def below_none(tensors: Tensors) -> None:
    tensors["exemplars.index"][3, 0] = -2


def narrow(tensors: Tensors) -> None:
    tensors["exemplars.vectors"] = tensors["exemplars.vectors"][:, 1:].contiguous()


def few(tensors: Tensors) -> None:
    tensors["exemplars.index"] = tensors["exemplars.index"][1:].contiguous()


def learned_elsewhere(tensors: Tensors) -> None:
    tensors["sources"][0] = len(tensors["sources"])


def learned_below(tensors: Tensors) -> None:
    tensors["sources"][0] = -2


def fewer_sources(tensors: Tensors) -> None:
    tensors["sources"] = tensors["sources"][1:].contiguous()


def odd(tensors: Tensors) -> None:
    tensors["wording.weights"] = torch.zeros(3)


def no_wording(tensors: Tensors) -> None:
    del tensors["wording.weights"]


def fewer_habits(tensors: Tensors) -> None:
    tensors["habits.odds"] = tensors["habits.odds"][1:].contiguous()


def narrow_network(tensors: Tensors) -> None:
    tensors["network.own.weight"] = tensors["network.own.weight"][:, 1:].contiguous()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (too_high, "a skill has an exemplar that is not there"),
        (below_none, "a skill has an exemplar that is not there"),
        (narrow, "does not fit together"),
        (few, "does not fit together"),
        (learned_elsewhere, "a skill has learned from a row that is not there"),
        (learned_below, "a skill has learned from a row that is not there"),
        (fewer_sources, "a skill has learned from a row that is not there"),
        (odd, "3 weights are no power of two"),
        (no_wording, "wording.weights"),
        (fewer_habits, "does not fit together"),
        (narrow_network, "does not fit together"),
    ],
)
def test_what_the_second_network_knows_is_refused_where_it_does_not_fit(
    damage: Callable[[Tensors], None], says: str, small_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(small_folder, folder)
    path = folder / "reranker.safetensors"
    tensors = safetensors.torch.load_file(path)
    damage(tensors)
    safetensors.torch.save_file(tensors, path)
    _sign_again(folder, path.name)
    with pytest.raises(BadBundle, match=says) as refused:
        read_bundle(folder)
    assert "\n" not in str(refused.value)


def test_all_that_the_second_network_knows_is_read_as_it_was_written(
    small_bundle: Bundle, small_folder: Path
) -> None:
    again = read_bundle(small_folder)
    for one, other in (
        (small_bundle.reranker, again.reranker),
        (small_bundle.evidence.habits, again.evidence.habits),
        (small_bundle.evidence.learned.exemplars, again.evidence.learned.exemplars),
    ):
        theirs = other.state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())
    wording = [bundle.evidence.learned.wording.weights for bundle in (small_bundle, again)]
    assert torch.equal(*wording)
    assert torch.equal(small_bundle.evidence.sources, again.evidence.sources)


def _sign_again(folder: Path, name: str) -> None:
    manifest = read_manifest(folder)
    files = {**manifest.files, name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    manifest = msgspec.structs.replace(manifest, files=files, digest="")
    digest = hashlib.sha256(msgspec.json.encode(manifest, order="deterministic")).hexdigest()
    (folder / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, digest=digest)))
