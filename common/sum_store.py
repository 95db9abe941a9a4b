"""Store: what a site must remember between the messages of its sums, and nothing else.

On disk for good: the highest number t a run has used, which survivor sums were answered and for which survivors they
were opened, for which survivors each round of a network was, and which patients were summed with which sites. In a
private runtime directory until the run ends: the run key. A sum's masks, shares and numbers are never written.
"""

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cohortium.common import masks, sum_cohort
from cohortium.common.errors import SumRefused
from cohortium.common.locked_database import LockedDatabase
from cohortium.common.sum_cohort import Cohort, Frozen

FILE = "sums.sqlite"
NEEDS_SETUP = "needs-setup"
"""`SumRefused.what` of a site that has no key for the run: a new hello mends it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (run TEXT PRIMARY KEY, study TEXT NOT NULL, last_t INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS masked (transcript BLOB PRIMARY KEY, survivors TEXT);
CREATE TABLE IF NOT EXISTS slot (slot BLOB PRIMARY KEY, survivors TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cohort (name BLOB PRIMARY KEY, part TEXT NOT NULL, roster BLOB NOT NULL, rows BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS secret (only INTEGER PRIMARY KEY CHECK (only = 1), value BLOB NOT NULL);
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

    def use(
        self, run: str, t: int, *, transcript: bytes | None = None, roster: bytes = b"", cohorts: Sequence[Cohort] = ()
    ) -> None:
        """Use the number t up and freeze the cohorts with the sites they are summed with, all of it or nothing.

        Parameters
        ----------
        transcript : bytes, optional
            Of a survivor sum, which may be opened from now on.
        roster : bytes
            Digest of the sites and their identity keys.

        Raises
        ------
        SumRefused
            The number is not above the last one; a cohort is not admitted beside the frozen ones.
        """
        ...

    def lock(self, transcript: bytes, survivors: Sequence[str], slots: Sequence[bytes] = ()) -> None:
        """Bind a sum, and what it may be asked of only once, to its survivors; the same ones again are fine.

        Raises
        ------
        SumRefused
            One of them is bound to others, or this site gave no masked answer to the sum.
        """
        ...

    def secret(self) -> bytes:
        """32 bytes that this site keys the digests of its patients with; made once, never sent."""
        ...

    def frozen(self) -> list[Frozen]:
        """The cohorts that were summed."""
        ...

    def close(self, run: str) -> None:
        """Delete the key of a run."""
        ...


class SumStore:
    """The store of a hospital: SQLite in the workspace, run keys in a runtime directory (tmpfs where there is one).

    Processes may overlap: every change is one immediate transaction, synced before it returns.
    """

    def __init__(self, workspace: Path, runtime: Path) -> None:
        workspace.mkdir(parents=True, exist_ok=True)
        self._database = LockedDatabase(workspace / FILE, _SCHEMA)
        self._keys = runtime / "run-keys"
        runtime.mkdir(parents=True, exist_ok=True)
        self._keys.mkdir(mode=0o700, exist_ok=True)

    def begin(self, study: str, run: str, key: bytes) -> None:
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO run VALUES (?, ?, 0)", (run, study))
            _same_study(database.execute("SELECT study FROM run WHERE run = ?", (run,)).fetchone()[0], study)
        path = self._key_path(run)
        draft = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(key)
        draft.replace(path)

    def key(self, study: str, run: str) -> bytes:
        with self._database.transaction() as database:
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
        with self._database.transaction() as database:
            row = database.execute("SELECT last_t FROM run WHERE run = ?", (run,)).fetchone()
        return row[0] if row else 0

    def use(
        self, run: str, t: int, *, transcript: bytes | None = None, roster: bytes = b"", cohorts: Sequence[Cohort] = ()
    ) -> None:
        with self._database.transaction() as database:
            changed = database.execute("UPDATE run SET last_t = ? WHERE run = ? AND last_t < ?", (t, run, t))
            if changed.rowcount != 1:
                raise used(t)
            for cohort in cohorts:
                name = sum_cohort.name_of(cohort.part, cohort.rows)
                if database.execute("SELECT 1 FROM cohort WHERE name = ? AND roster = ?", (name, roster)).fetchone():
                    continue
                sum_cohort.admit(cohort, roster, _frozen(database))
                database.execute(
                    "INSERT OR IGNORE INTO cohort VALUES (?, ?, ?, ?)", (name, cohort.part, roster, cohort.rows)
                )
            if transcript is not None:
                database.execute("INSERT INTO masked VALUES (?, NULL)", (transcript,))

    def lock(self, transcript: bytes, survivors: Sequence[str], slots: Sequence[bytes] = ()) -> None:
        names = json.dumps(list(survivors))
        with self._database.transaction() as database:
            row = database.execute("SELECT survivors FROM masked WHERE transcript = ?", (transcript,)).fetchone()
            if row is None:
                raise _not_masked()
            if row[0] not in (None, names):
                raise _locked(json.loads(row[0]))
            database.execute("UPDATE masked SET survivors = ? WHERE transcript = ?", (names, transcript))
            for slot in slots:
                database.execute("INSERT OR IGNORE INTO slot VALUES (?, ?)", (slot, names))
                row = database.execute("SELECT survivors FROM slot WHERE slot = ?", (slot,)).fetchone()
                if row[0] != names:
                    raise _locked(json.loads(row[0]))

    def secret(self) -> bytes:
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
            return database.execute("SELECT value FROM secret").fetchone()[0]

    def frozen(self) -> list[Frozen]:
        with self._database.transaction() as database:
            return _frozen(database)

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
        self._masked: dict[bytes, tuple[str, ...] | None] = {}
        self._slots: dict[bytes, tuple[str, ...]] = {}
        self._frozen: list[Frozen] = []
        self._secret = secrets.token_bytes(32)

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

    def use(
        self, run: str, t: int, *, transcript: bytes | None = None, roster: bytes = b"", cohorts: Sequence[Cohort] = ()
    ) -> None:
        with self._guard:
            if t <= self.last(run):
                raise used(t)
            for cohort in cohorts:
                sum_cohort.admit(cohort, roster, self._frozen)
            self._last[run] = t
            frozen = [Frozen(cohort.part, roster, cohort.rows) for cohort in cohorts]
            self._frozen += [cohort for cohort in frozen if cohort not in self._frozen]
            if transcript is not None:
                self._masked[transcript] = None

    def lock(self, transcript: bytes, survivors: Sequence[str], slots: Sequence[bytes] = ()) -> None:
        names = tuple(survivors)
        with self._guard:
            if transcript not in self._masked:
                raise _not_masked()
            for bound in (self._masked[transcript], *(self._slots.get(slot) for slot in slots)):
                if bound not in (None, names):
                    raise _locked(bound)
            self._masked[transcript] = names
            self._slots.update(dict.fromkeys(slots, names))

    def secret(self) -> bytes:
        return self._secret

    def frozen(self) -> list[Frozen]:
        return list(self._frozen)

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


def _frozen(database: sqlite3.Connection) -> list[Frozen]:
    return [Frozen(*row) for row in database.execute("SELECT part, roster, rows FROM cohort")]


def _not_masked() -> SumRefused:
    return SumRefused("secure sum", "this site gave no masked answer to this sum, so there is nothing to open")


def _locked(survivors: Sequence[str]) -> SumRefused:
    names = ", ".join(survivors)
    return SumRefused("secure sum", f"this was opened for other survivors ({names}); ask for the same ones")
