"""Store: what a site must remember between the messages of its sums, and nothing else.

On disk for good: the highest number t a run has used, and for which survivors a sum was opened. In a private runtime
directory until the run ends: the run key. A sum's masks, shares and numbers are never written.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from cohortium.common import masks
from cohortium.common.errors import SumRefused

NEEDS_SETUP = "needs-setup"
"""`SumRefused.what` of a site that has no key for the run: a new hello mends it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (run TEXT PRIMARY KEY, study TEXT NOT NULL, last_t INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS opened (transcript BLOB PRIMARY KEY, survivors TEXT NOT NULL);
"""


class Store(Protocol):
    """A site's memory of its sums; every method that changes something has it on disk when it returns."""

    def begin(self, study: str, run: str, key: bytes) -> None:
        """Keep the key of a run, instead of an earlier one. The numbers that the run has used stay used.

        Raises
        ------
        SumRefused
            The run belongs to another study.
        """
        ...

    def key(self, study: str, run: str) -> bytes:
        """Key of a run.

        Raises
        ------
        SumRefused
            There is none (`NEEDS_SETUP`), or the run belongs to another study.
        """
        ...

    def last(self, run: str) -> int:
        """Highest number that the run has used, 0 for none."""
        ...

    def use(self, run: str, t: int) -> None:
        """Use the number t up.

        Raises
        ------
        SumRefused
            It is not above the last one.
        """
        ...

    def lock(self, transcript: bytes, survivors: Sequence[str]) -> None:
        """Bind a sum to its survivors; the same ones again are fine.

        Raises
        ------
        SumRefused
            It is bound to others.
        """
        ...

    def close(self, run: str) -> None:
        """Delete the key of a run."""
        ...


class SumStore:
    """The store of a hospital: SQLite in the workspace, run keys in a runtime directory (tmpfs where there is one).

    Processes may overlap: every change is one immediate transaction, synced before it returns.
    """

    def __init__(self, workspace: Path, runtime: Path) -> None:
        self._database = workspace / "sums.sqlite"
        self._keys = runtime / "run-keys"
        workspace.mkdir(parents=True, exist_ok=True)
        runtime.mkdir(parents=True, exist_ok=True)
        self._keys.mkdir(mode=0o700, exist_ok=True)
        with self._transaction() as database:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                database.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._database, timeout=30, isolation_level=None)) as database:
            # a kept journal file saves the syncs of its folder; a commit still is on disk before it returns
            database.execute("PRAGMA journal_mode = PERSIST")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def begin(self, study: str, run: str, key: bytes) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO run VALUES (?, ?, 0)", (run, study))
            _same_study(database.execute("SELECT study FROM run WHERE run = ?", (run,)).fetchone()[0], study)
        path = self._key_path(run)
        draft = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(key)
        draft.replace(path)

    def key(self, study: str, run: str) -> bytes:
        with closing(sqlite3.connect(self._database, timeout=30)) as database:
            row = database.execute("SELECT study FROM run WHERE run = ?", (run,)).fetchone()
        try:
            key = self._key_path(run).read_bytes() if row else None
        except FileNotFoundError:
            key = None
        if row is None or key is None:
            raise _needs_setup(run)
        _same_study(row[0], study)
        return key

    def last(self, run: str) -> int:
        with closing(sqlite3.connect(self._database, timeout=30)) as database:
            row = database.execute("SELECT last_t FROM run WHERE run = ?", (run,)).fetchone()
        return row[0] if row else 0

    def use(self, run: str, t: int) -> None:
        with self._transaction() as database:
            changed = database.execute("UPDATE run SET last_t = ? WHERE run = ? AND last_t < ?", (t, run, t))
            if changed.rowcount != 1:
                raise used(t)

    def lock(self, transcript: bytes, survivors: Sequence[str]) -> None:
        names = json.dumps(list(survivors))
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO opened VALUES (?, ?)", (transcript, names))
            row = database.execute("SELECT survivors FROM opened WHERE transcript = ?", (transcript,)).fetchone()
            if row[0] != names:
                raise _locked()

    def close(self, run: str) -> None:
        self._key_path(run).unlink(missing_ok=True)

    def _key_path(self, run: str) -> Path:
        # a run's name comes from the coordinator: it must not become a path
        return self._keys / f"{masks.digest('run', run).hex()[:32]}.key"


class MemoryStore:
    """The store of a site that lives no longer than its process: simulations and tests."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._runs: dict[str, str] = {}
        self._keys: dict[str, bytes] = {}
        self._last: dict[str, int] = {}
        self._opened: dict[bytes, tuple[str, ...]] = {}

    def begin(self, study: str, run: str, key: bytes) -> None:
        with self._guard:
            _same_study(self._runs.setdefault(run, study), study)
            self._keys[run] = key

    def key(self, study: str, run: str) -> bytes:
        with self._guard:
            if run not in self._keys:
                raise _needs_setup(run)
            _same_study(self._runs[run], study)
            return self._keys[run]

    def last(self, run: str) -> int:
        return self._last.get(run, 0)

    def use(self, run: str, t: int) -> None:
        with self._guard:
            if t <= self.last(run):
                raise used(t)
            self._last[run] = t

    def lock(self, transcript: bytes, survivors: Sequence[str]) -> None:
        with self._guard:
            if self._opened.setdefault(transcript, tuple(survivors)) != tuple(survivors):
                raise _locked()

    def close(self, run: str) -> None:
        with self._guard:
            self._keys.pop(run, None)


def used(t: int) -> SumRefused:
    """Refusal of a sum whose number is not above the last one."""
    return SumRefused("secure sum", f"number {t} of this run was answered or passed over; ask with a higher number")


def _needs_setup(run: str) -> SumRefused:
    return SumRefused(NEEDS_SETUP, f"this site holds no key of run {run}; make the set-up again")


def _same_study(known: str, study: str) -> None:
    if known != study:
        raise SumRefused("secure sum", "this run belongs to another study; begin a new run")


def _locked() -> SumRefused:
    return SumRefused("secure sum", "this sum was opened for other survivors; ask for the same ones, or for a new sum")
