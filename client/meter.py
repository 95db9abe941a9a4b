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
MISFITS = 32
"""Questions of a study without an answer at a site, after which it answers no sum of it. Honest runs have few."""
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
        self._path = workspace / FILE
        self._database = LockedDatabase(self._path, _SCHEMA)
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

    def misfit(self, question: bytes) -> None:
        """Count a question whose answer is too large for its sum, or no number; on disk when this returns.

        That is told of this site alone: with a scale or a bound chosen anew each time, it is a search for a value.
        """
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO released VALUES (?, ?, 0)", (self._misfits, question))

    def check_misfits(self) -> None:
        """Refuse a study of which `MISFITS` questions had no answer; `SumRefused`."""
        if not self._path.exists():
            return
        count = "SELECT count(*) FROM released WHERE study = ?"
        with self._database.transaction() as database:
            if database.execute(count, (self._misfits,)).fetchone()[0] >= MISFITS:
                raise SumRefused(
                    "misfits",
                    f"{MISFITS} questions of this study had an answer here that is too large or no number, and every "
                    "such refusal tells something of this site alone; agree on a study whose columns fit its sums",
                )

    @property
    def _misfits(self) -> str:
        return f"misfits of {self._study}"

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
