"""The release store: a folder that publishers and routers share, with one bundle in it for each release."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from model.bundle import Manifest, read_manifest
from topics.errors import BadBundle, UsageError

MANIFEST = "manifest.json"


def default_store() -> Path:
    """`NAMEFREE_STORE`, else `XDG_DATA_HOME/namefree/releases`, else `~/.local/share/namefree/releases`."""
    if chosen := os.environ.get("NAMEFREE_STORE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local/share") / "namefree" / "releases"


def store_bundle(bundle: Path, store: Path) -> tuple[Manifest, Path]:
    """Copies `bundle` into `store` under its release id, whole or not at all; returns its manifest and place.

    A bundle that is there already is left alone if it is whole, and replaced if it is not. Raises BadBundle for
    a damaged `bundle` and UsageError where the store cannot be written.
    """
    manifest = read_whole(bundle)
    target = store.expanduser().absolute() / manifest.release
    try:
        if not _holds(target, manifest.digest):
            _copy(bundle, manifest, target)
    except OSError as error:
        raise UsageError(f"release store {store} cannot be written ({error.strerror}): use --store") from error
    return manifest, target


def read_whole(folder: Path) -> Manifest:
    """The manifest of a bundle whose files all have the digests that it names. Raises BadBundle."""
    manifest = read_manifest(folder)
    for name, digest in manifest.files.items():
        if Path(name).name != name:
            raise BadBundle(f"{folder / MANIFEST} names {name!r}, which is no file of its own folder")
        if _digest(folder / name) != digest:
            raise BadBundle(f"{folder / name} does not have the digest that its manifest names: it is damaged")
    return manifest


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadBundle(f"{path} cannot be read: {error.strerror}") from error


def _holds(folder: Path, digest: str) -> bool:
    try:
        return read_whole(folder).digest == digest
    except BadBundle:
        return False


def _copy(bundle: Path, manifest: Manifest, target: Path) -> None:
    """The bundle's own files to a folder beside the target, checked there, then renamed to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as folder:
        copy = Path(folder) / manifest.release
        copy.mkdir()
        for name in (MANIFEST, *manifest.files):
            shutil.copyfile(bundle / name, copy / name)
        if not _holds(copy, manifest.digest):
            raise BadBundle(f"bundle {bundle} changed while it was copied to {target.parent}: publish it again")
        if target.exists():  # a damaged one of that name; it goes with the temporary folder
            target.rename(Path(folder) / "damaged")
        copy.rename(target)
