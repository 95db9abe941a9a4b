"""Meter: how many numbers have left a site for a study, counted on the site's disk across runs.

A question is charged once: asked again, in another run or after a lost answer, it has the same answer and tells nothing
new. It is charged before its answer leaves.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from cohortium.common.errors import SumRefused
from cohortium.common.locked_database import LockedDatabase

FILE = "released.sqlite"
RULE = "released_numbers"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS released (study TEXT, question BLOB, numbers INTEGER, PRIMARY KEY (study, question))
"""


class Meter:
    """One study's meter at one site.

    Parameters
    ----------
    workspace : Path
    study : str
        Its hash: every study has a budget of its own.
    limit : int or None
        ``[privacy] released_numbers``; without one nothing is counted and nothing refused.
    """

    def __init__(self, workspace: Path, study: str, limit: int | None) -> None:
        self._database = LockedDatabase(workspace / FILE, _SCHEMA)
        self._study = study
        self.limit = limit

    def released(self) -> int:
        """Numbers that have left so far."""
        with self._database.transaction() as database:
            return self._spent(database)

    def beyond(self, questions: Mapping[bytes, int]) -> dict[bytes, SumRefused]:
        """Which of some questions the budget has no room for, taken in their order.

        Parameters
        ----------
        questions : digest of each to the numbers of its answer
        """
        if self.limit is None:
            return {}
        refused = {}
        with self._database.transaction() as database:
            spent, fresh = self._spent(database), self._fresh(database, questions)
        for digest, numbers in fresh.items():
            if spent + numbers > self.limit:
                refused[digest] = self._full(spent, numbers)
            else:
                spent += numbers
        return refused

    def charge(self, questions: Mapping[bytes, int]) -> None:
        """Count the answers to some questions; on disk when this returns.

        Raises
        ------
        SumRefused
            They do not all fit; nothing was counted.
        """
        if self.limit is None:
            return
        with self._database.transaction() as database:
            spent, fresh = self._spent(database), self._fresh(database, questions)
            if fresh and spent + sum(fresh.values()) > self.limit:
                raise self._full(spent, sum(fresh.values()))
            rows = [(self._study, digest, numbers) for digest, numbers in fresh.items()]
            database.executemany("INSERT INTO released VALUES (?, ?, ?)", rows)

    def _spent(self, database: sqlite3.Connection) -> int:
        return database.execute(
            "SELECT coalesce(sum(numbers), 0) FROM released WHERE study = ?", (self._study,)
        ).fetchone()[0]

    def _fresh(self, database: sqlite3.Connection, questions: Mapping[bytes, int]) -> dict[bytes, int]:
        known = "SELECT 1 FROM released WHERE study = ? AND question = ?"
        return {
            digest: numbers
            for digest, numbers in questions.items()
            if database.execute(known, (self._study, digest)).fetchone() is None
        }

    def _full(self, spent: int, numbers: int) -> SumRefused:
        return SumRefused(
            RULE,
            f"{spent} of {RULE} = {self.limit} numbers have left this site in this study, and this asks for {numbers} "
            "more; ask for fewer, or agree on a study with a larger budget",
        )
