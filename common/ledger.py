"""Ledger: one line for every message that left a site, written down and synced before it leaves.

An append-only file of JSON lines in the site's workspace. A line says what a message was about, its size and the
digest of its bytes, and under whose approval it left; it holds no number of the message.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cohortium.common.errors import SiteError

FILE = "ledger.jsonl"
_UNFINISHED = " (unfinished: this message never left)"


class Ledger:
    """A site's ledger.

    Parameters
    ----------
    workspace : Path
        The ledger is `FILE` in it.
    """

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / FILE

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line; it is on disk when this returns. Processes may append at the same time.

        Parameters
        ----------
        entry : mapping
            ``time`` (ISO 8601, UTC), ``study``, ``run``, ``kind``, ``statistics``, ``bytes``, ``sha256``,
            ``approved_by``, and whatever else a kind of message needs; JSON values only.
        """
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write_all(descriptor, (_seal(descriptor) + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(self.path.parent)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Lines, oldest first. A line that a crash cut short is passed over: its message never left.

        Raises
        ------
        SiteError
            A line is not readable; names its number.
        """
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n") or line.endswith(_UNFINISHED + "\n"):
                    continue
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = None
                if not isinstance(entry, dict):
                    raise SiteError(
                        f"ledger, line {number} is not readable: the file was changed; compare with a backup"
                    )
                yield entry


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _seal(descriptor: int) -> str:
    """End of a last line that a crash cut short; nothing otherwise. What is written stays as it is."""
    size = os.fstat(descriptor).st_size
    return f"{_UNFINISHED}\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else ""


def _sync_folder(folder: Path) -> None:
    """A new file's name must survive a power failure as its content does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
