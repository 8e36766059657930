"""Every error that namefree raises on purpose, on one page.

    NamefreeError
    ├── UsageError        asked wrongly: a flag, a file, a setting        exit code 2
    ├── BadEvent          an event that does not say what it should       goes to the dead letters
    ├── BadData           a row, card or folder that cannot be read       exit code 1
    ├── BadBundle         a damaged or foreign bundle                     exit code 1
    ├── BrokerError       the broker is not there, died, or refused       exit code 1
    └── WorkerError       a worker cannot go on                           exit code 1

The command line catches `NamefreeError` and nothing wider: one line, then the exit code.
"""


class NamefreeError(Exception):
    """Base of all errors on purpose. `str(error)` is one sentence: what, where, and what to do."""

    exit_code = 1


class UsageError(NamefreeError):
    """It was asked wrongly: a flag, a setting, a file that is not there."""

    exit_code = 2


class BadEvent(NamefreeError):
    """An event that cannot be taken. `reason` is a short class for metrics, `str()` the sentence."""

    def __init__(self, message: str, reason: str = "malformed") -> None:
        super().__init__(message)
        self.reason = reason


class BadData(NamefreeError):
    """A row, a card or a data folder that cannot be read; the message names file and line."""


class BadBundle(NamefreeError):
    """A bundle that is damaged, cut, foreign or of an unknown format."""


class BrokerError(NamefreeError):
    """The broker cannot be reached, could not be started, or died."""


class WorkerError(NamefreeError):
    """A worker cannot go on; the message says what died and where it stood."""
