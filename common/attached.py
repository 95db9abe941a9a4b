"""Attached: runs one programme that ends when another process ends.

A federation on one machine is a handful of long-running processes. Those started by a person live until stopped; those
started by a test or by `simulate` must not outlive it, not even when it is killed. So every process is started as
`python -m cohortium.common.attached PID module:function ARGUMENT...`; with PID 0 it stands alone.
"""

import importlib
import os
import signal
import sys
import threading
import time

LOOK_EVERY_S = 0.5
GRACE_S = 5.0


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # exists, but belongs to somebody else
    return True


def _watch(pid: int) -> None:
    while _exists(pid):
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Run ``module:function`` with ``sys.argv`` set to it and its arguments."""
    pid, target, *rest = arguments
    if int(pid):
        threading.Thread(target=_watch, args=(int(pid),), daemon=True).start()
    module, function = target.split(":")
    sys.argv = [function.replace("_", "-"), *rest]
    getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main(sys.argv[1:])
