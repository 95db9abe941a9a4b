"""Locked database: a small SQLite file that processes share, for what a site must never forget.

Every change is one immediate transaction, on disk before it returns: no two processes see the same state and both go on
from it. A change raises the file's generation, which thereby tells an older copy of the file from a newer one.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SUFFIX = ".sqlite"
_WAIT_S = 30  # for another process's transaction


class LockedDatabase:
    """One file of tables.

    Parameters
    ----------
    path : Path
        Ends in `SUFFIX`; its folder exists.
    schema : str
        ``CREATE TABLE IF NOT EXISTS`` statements, separated by semicolons.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._schema = [statement for statement in schema.split(";") if statement.strip()]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the changes made inside, or none of them if it raises."""
        with closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as database:
            # a kept journal file saves the syncs of its folder; a commit still is on disk before it returns
            database.execute("PRAGMA journal_mode = PERSIST")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            try:
                for statement in self._schema:
                    database.execute(statement)
                before = database.total_changes
                yield database
                if database.total_changes > before:
                    # a field of the file's head that belongs to the application and commits with the rest
                    database.execute(f"PRAGMA user_version = {_generation(database) + 1}")
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def generation(path: Path) -> int:
    """How many changes a file has seen; 0 where there is none."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=_WAIT_S)) as database:
        return _generation(database)


def _generation(database: sqlite3.Connection) -> int:
    return database.execute("PRAGMA user_version").fetchone()[0]
