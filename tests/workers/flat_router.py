"""A router process with the flat selector: `namefree route`, but for the model. For tests that kill one.

Takes the options of `namefree route` after the settings, as JSON: SETTINGS OPTIONS
"""

import sys

import msgspec

from tests.workers.doubles import load_flat
from topics.errors import NamefreeError
from topics.settings import Settings
from workers.commands.route import print_commit
from workers.console import fail, start_logging
from workers.lifecycle import stop_on_signals
from workers.router_process import RouterOptions, run_router


def main() -> int:
    start_logging("info")
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    options = msgspec.json.decode(sys.argv[2], type=RouterOptions)
    try:
        with stop_on_signals() as stop:
            run_router(settings, options, load_flat, stop, print_commit)
    except NamefreeError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
