"""Where namefree keeps what outlives a command. The only place of `topics` that reads the environment."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """What can be fetched again: `NAMEFREE_CACHE`, else `XDG_CACHE_HOME/namefree`, else `~/.cache/namefree`."""
    return _folder("NAMEFREE_CACHE", "XDG_CACHE_HOME", ".cache")


def home_dir() -> Path:
    """What cannot: `NAMEFREE_HOME`, else `XDG_STATE_HOME/namefree`, else `~/.local/state/namefree`."""
    return _folder("NAMEFREE_HOME", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, base: str, fallback: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser().absolute()
    # The XDG specification has relative paths ignored.
    root = Path(os.environ.get(base, ""))
    return (root if root.is_absolute() else Path.home() / fallback) / "namefree"
