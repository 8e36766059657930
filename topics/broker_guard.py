"""The embedded broker's last will: run as a process of its own, it acts when its owner is gone.

Reads one process id a line from the owner; the latest is the broker's. At the end of input, whether the owner
closed it or died (even of SIGKILL), it kills that process and removes the folder named on the command line.
Standard library only and no import of ours: it starts in milliseconds and outlives whatever breaks its owner.
"""

import os
import shutil
import signal
import sys
import time

# A killed Java of this size takes some 100 ms to leave; its folder cannot be emptied for good before.
LEAVES_WITHIN_S = 10.0


def main() -> None:
    pid = 0
    for line in sys.stdin:
        pid = int(line)
    if pid:
        _kill(pid)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def _kill(pid: int) -> None:
    ends = time.monotonic() + LEAVES_WITHIN_S
    try:
        while time.monotonic() < ends:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
