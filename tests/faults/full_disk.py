"""A release store on a disk that is full."""

import resource
import sys
from pathlib import Path

from topics.errors import NamefreeError
from topics.settings import Settings
from workers.releases import publish


def publish_on_full_disk(settings: Settings, bundle: Path, store: Path) -> None:
    """In a process of its own: no file may grow beyond four bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
    try:
        publish(settings, bundle, store, "", {}, "full disk")
    except NamefreeError as error:
        sys.exit(error.exit_code)
