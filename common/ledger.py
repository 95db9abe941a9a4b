"""Ledger: what left a site and what it agreed to, a line each, chained so that no line can be changed unseen.

An append-only file of JSON lines in the site's workspace. A line says what a message was about, its size and the digest
of its bytes, and under whose approval it left; it holds no number of the message. Every line carries its own number and
the digest of all that stands before it (Haber and Stornetta, J. Cryptology 1991), and a second small file keeps the
last digest: a line that was changed, inserted, moved, removed or cut off is found.

    digest of a line = SHA-256 of (the digest before it, as 64 hexadecimal digits) + (the line, with its newline)

The chain has no secret. Whoever may write both files can write a whole new chain; a digest that the site noted
elsewhere finds that too (`Ledger.holds`).

A line also keeps how far the site's databases had come when it was written (locked_database, generations). One that is
put back from a backup is behind its ledger then (`Ledger.set_back`); one that is ahead only means that a message came
to nothing between the two.
"""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cohortium.common.errors import SiteError
from cohortium.common.locked_database import SUFFIX, generation

FILE = "ledger.jsonl"
HEAD_FILE = "ledger.head"
START = "0" * 64
"""The digest before the first line."""
_UNFINISHED = b" (unfinished: this message never left)\n"
_HEAD_BYTES = 160  # always as long and within one sector: rewriting it in place leaves the old or the new, never a part


@dataclass(frozen=True)
class Head:
    """Where a ledger stands: how many lines, the digest of the last, the length of the file in bytes so far."""

    lines: int = 0
    digest: str = START
    length: int = 0

    def after(self, line: bytes) -> "Head":
        """With one more line of the file; one that a crash cut short is chained as any other, but not counted."""
        digest = hashlib.sha256(self.digest.encode() + line).hexdigest()
        return Head(self.lines + (not line.endswith(_UNFINISHED)), digest, self.length + len(line))

    def packed(self) -> bytes:
        """As the head file holds it."""
        return json.dumps(asdict(self), sort_keys=True).ljust(_HEAD_BYTES - 1).encode() + b"\n"


class Ledger:
    """A site's ledger.

    Parameters
    ----------
    workspace : Path
        The ledger is `FILE` in it, its head `HEAD_FILE`.
    """

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / FILE
        self.head_path = workspace / HEAD_FILE

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line; it is on disk when this returns. Processes may append at the same time.

        A ledger that was tampered with is written on, from where its head says it was: the site goes on answering, and
        the break stays for `entries` to find.

        Parameters
        ----------
        entry : mapping
            ``time`` (ISO 8601, UTC), ``study``, ``kind``, ``approved_by``, and what else a kind of line has; JSON
            values only. ``number``, ``previous`` and ``stores`` are added.
        """
        _json(entry)  # what is no JSON makes no file
        is_new = not (self.path.exists() and self.head_path.exists())
        with self._locked(os.O_RDWR | os.O_APPEND | os.O_CREAT, fcntl.LOCK_EX) as descriptor:
            head, torn = self._end(descriptor)
            sealed = head.after(torn + _UNFINISHED) if torn else head
            chained = {**entry, "number": sealed.lines + 1, "previous": sealed.digest}
            if stores := self._generations(descriptor):
                chained["stores"] = stores
            line = _json(chained).encode() + b"\n"
            _write_all(descriptor, (_UNFINISHED if torn else b"") + line)
            os.fsync(descriptor)
            # no sync of its own: a power failure may leave an older head, and the lines beyond it then speak for
            # themselves by following from it
            self._write_head(sealed.after(line))
        if is_new:
            _sync(self.head_path)
            _sync(self.path.parent)  # a new file's name must survive a power failure as its content does

    def entries(self) -> Iterator[dict[str, Any]]:
        """Lines, oldest first, each once the chain is found whole up to it.

        A line that a crash cut short is passed over: its message never left.

        Raises
        ------
        SiteError
            The chain breaks; names the first line of the file where it does.
        """
        content, kept = self._read()
        at, number, met = Head(), 0, kept == Head()
        for number, line in enumerate(_lines(content), 1):
            entry, at = _following(at, line, number)
            met = met or at == kept
            if entry is not None:
                yield entry
        if kept is None:
            raise _broken(number + 1, f"{HEAD_FILE} is missing or was changed, lines may be missing from here on")
        if at.lines < kept.lines:
            raise _broken(number + 1, f"is missing; by {HEAD_FILE} the ledger had {kept.lines} lines")
        if not met:
            raise _broken(number, f"is not the one that {HEAD_FILE} knows; it or the head was changed")

    def set_back(self) -> list[str]:
        """Databases of the workspace that are older than the ledger knows them, or are gone; their names."""
        if not self.path.exists():
            return []
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as descriptor:
            noted = _noted(descriptor)
        return [name for name, least in noted.items() if generation(self.path.with_name(name)) < least]

    def head(self) -> Head:
        """Where the ledger stands after its last line; its digest is what a site may note elsewhere."""
        *_, last = self._heads()
        return last

    def holds(self, digest: str) -> bool:
        """Whether a digest that was noted elsewhere is that of a line: up to there nothing was written anew."""
        return any(digest == head.digest for head in self._heads())

    def _heads(self) -> Iterator[Head]:
        at = Head()
        yield at
        for line in _lines(self._read()[0]):
            at = at.after(line)
            yield at

    def _read(self) -> tuple[bytes, Head | None]:
        """The file and what is kept as its head, at one moment."""
        if not self.path.exists():
            return b"", self._kept_head() if self.head_path.exists() else Head()
        with self._locked(os.O_RDONLY, fcntl.LOCK_SH):
            return self.path.read_bytes(), self._kept_head()

    def _generations(self, descriptor: int) -> dict[str, int]:
        """Of every database, the highest there was: what was put back stays behind, whatever is written since."""
        found = {path.name: generation(path) for path in self.path.parent.glob(f"*{SUFFIX}")}
        noted = _noted(descriptor)
        return {name: max(found.get(name, 0), noted.get(name, 0)) for name in sorted({*found, *noted})}

    def _end(self, descriptor: int) -> tuple[Head, bytes]:
        """Where the chain goes on, and what a crash has left of a last line."""
        size = os.fstat(descriptor).st_size
        kept = self._kept_head()
        at = kept or Head()
        if size < at.length:  # cut off: the line to come must neither follow from what is left nor be swallowed by it
            whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            return Head(at.lines, at.digest, size), b"" if whole else b"?"
        tail = os.pread(
            descriptor, size - at.length, at.length
        )  # empty unless a crash came before its head was written
        for line in _lines(tail):
            try:
                _, at = _following(at, line, 0)
            except SiteError:
                break
        if kept is None and at.lines > 1:  # a crash loses the head of a first line only
            at = Head()
        torn = tail.rpartition(b"\n")[2]
        return Head(at.lines, at.digest, size - len(torn)), torn

    def _kept_head(self) -> Head | None:
        """What the head file says; None where it is missing or was changed."""
        try:
            packed = self.head_path.read_bytes()
            head = Head(**json.loads(packed))
            return head if head.packed() == packed and head.length >= 0 else None
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None

    def _write_head(self, head: Head) -> None:
        descriptor = os.open(self.head_path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, head.packed(), 0)
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, lock)
            yield descriptor
        finally:
            os.close(descriptor)


def _noted(descriptor: int) -> dict[str, int]:
    """Generations in the last line that is whole; only the end of the file is read."""
    size, reach = os.fstat(descriptor).st_size, 1 << 14
    while True:
        start = max(0, size - reach)
        lines = os.pread(descriptor, size - start, start).split(b"\n")
        for line in reversed(lines[start > 0 : -1]):  # the first may lack its beginning, the last its end
            try:
                stores = json.loads(line).get("stores", {})
                return {name: number for name, number in stores.items() if type(number) is int}
            except (ValueError, RecursionError, AttributeError, TypeError):
                continue  # cut short by a crash, or tampered with, which `entries` finds
        if start == 0:
            return {}
        reach *= 4


def _following(at: Head, line: bytes, number: int) -> tuple[dict[str, Any] | None, Head]:
    """What one line says (nothing if a crash cut it short), once it is found to follow from those before it."""
    if line.endswith(_UNFINISHED):
        return None, at.after(line)
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise _broken(number, "is not readable")
    if (entry.get("number"), entry.get("previous")) != (at.lines + 1, at.digest):
        raise _broken(number, "does not follow from the one before: one of them was changed, or others put in or out")
    return entry, at.after(line)


def _broken(number: int, how: str) -> SiteError:
    return SiteError(f"ledger, line {number} {how}; the ledger was tampered with, compare it with a backup")


def _lines(content: bytes) -> Iterator[bytes]:
    """Finished lines, newlines included."""
    return (line for line in io.BytesIO(content) if line.endswith(b"\n"))


def _json(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
