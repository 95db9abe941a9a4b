"""Processes: the long-running programmes of a federation: started, looked at and stopped by name, in one folder.

Each programme has `NAME.pid` (process id and start time, so that a recycled id is never signalled) and `NAME.log`.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cohortium.common.errors import SiteError

FLOWER_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # s; its default of 1 s would be paid at every message
}
"""Nothing phones home, nothing is installed at run time, and no process naps longer than it must."""

_CHILDREN: list[subprocess.Popen[bytes]] = []  # Python warns of a forgotten child that still runs, as ours are meant to


def environment(flower_home: Path) -> dict[str, str]:
    """Environment of a Flower process whose own files live in ``flower_home``."""
    programmes = str(Path(sys.executable).parent)  # Flower starts `flwr-serverapp` by name
    path = os.pathsep.join([programmes, os.environ.get("PATH", "")])
    return os.environ | FLOWER_SWITCHES | {"FLWR_HOME": str(flower_home), "PATH": path, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(
    folder: Path, name: str, target: str, arguments: Sequence[str], *, flower_home: Path, while_pid: int = 0
) -> None:
    """Start ``module:function`` in the background, in a process group of its own.

    Parameters
    ----------
    while_pid : int
        End when this process ends; 0 to stand alone.

    Raises
    ------
    SiteError
        A programme of this name already runs from this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if running(folder, name):
        raise SiteError(f"{name} already runs from {folder}; stop it first")
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cohortium.common.attached", str(while_pid), target, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment(flower_home),
            start_new_session=True,
        )
    _CHILDREN.append(process)
    (folder / f"{name}.pid").write_text(f"{process.pid} {_started(process.pid)}\n")


def running(folder: Path, name: str) -> bool:
    """Whether the programme that `start` noted under this name is alive."""
    return _pid(folder / f"{name}.pid") is not None


def clear(folder: Path, names: Sequence[str]) -> None:
    """Make room for a fresh start of programmes that work together: stop what a crash of another left behind.

    Raises
    ------
    SiteError
        All of them run.
    """
    if all(running(folder, name) for name in names):
        raise SiteError(f"{' and '.join(names)} already run from {folder}; stop them first")
    stop(folder)


def stop(folder: Path, *, grace_s: float = 10.0) -> list[str]:
    """Stop every programme of the folder: a polite signal to its group, then a hard one.

    Returns
    -------
    list of str
        Names of those that were running.
    """
    pids = {file: pid for file in sorted(folder.glob("*.pid")) if (pid := _pid(file)) is not None}
    for pid in pids.values():
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(_pid(file) for file in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids.values():
        _signal(pid, signal.SIGKILL)  # also whatever the group left behind
    for file in folder.glob("*.pid"):
        file.unlink()
    for child in _CHILDREN:
        child.poll()  # so that it does not stay a zombie
    return [file.stem for file in pids]


def last_lines(folder: Path, name: str, count: int = 5) -> str:
    """End of a programme's log, for an error message on the machine that wrote it."""
    log = folder / f"{name}.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""


def _started(pid: int) -> str:
    """Start time of a process as the kernel tells it (field 22 of /proc/PID/stat); empty for none or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _pid(file: Path) -> int | None:
    try:
        pid, started = file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
