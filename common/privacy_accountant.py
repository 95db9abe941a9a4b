"""Privacy accountant: what noised answers a site has given, what they cost together, and the end of its budget.

Costs are in zero-concentrated differential privacy. Discrete Gaussian noise of standard deviation sigma on an integer
answer that one patient moves by at most D (Euclidean) costs rho = D^2 / (2 sigma^2); costs add, also of answers that
are chosen after seeing earlier ones; and rho is (alpha, alpha rho) Renyi differential privacy for every alpha > 1
(Bun & Steinke, TCC 2016). It is told to people as (epsilon, delta) by the conversion of Canonne, Kamath & Steinke
(NeurIPS 2020, proposition 12).

Patients of different parts of a study are different patients: a study costs what its costliest part costs.
"""

import functools
import math
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import SumRefused
from cohortium.common.locked_database import LockedDatabase

FILE = "privacy.sqlite"
_ORDERS = 1 + np.geomspace(1e-6, 1e9, 30_001)  # any order gives a valid epsilon; these reach the best within 1e-6
_SCHEMA = """
CREATE TABLE IF NOT EXISTS charge (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, study TEXT NOT NULL, part TEXT NOT NULL, statistic TEXT NOT NULL,
    query BLOB NOT NULL UNIQUE, rho REAL NOT NULL, answer BLOB NOT NULL)
"""


def cost(sensitivity: float, sigma: float) -> float:
    """Rho of one answer under discrete Gaussian noise; both in the units of the noise's grid."""
    return (sensitivity / sigma) ** 2 / 2


def epsilon(rho: float, delta: float) -> float:
    """Smallest epsilon known for rho and delta.

    Raises
    ------
    ValueError
        `rho` is negative, or `delta` is not strictly between 0 and 1.
    """
    if rho < 0 or not 0 < delta < 1:
        raise ValueError(f"rho = {rho:g} must be at least 0 and delta = {delta:g} between 0 and 1")
    if rho == 0:
        return 0.0
    bounds = rho * _ORDERS + np.log1p(-1 / _ORDERS) - np.log(delta * _ORDERS) / (_ORDERS - 1)
    return max(0.0, float(bounds.min()))


@functools.cache
def affordable(epsilon_: float, delta: float) -> float:
    """Largest rho whose `epsilon` at delta is at most `epsilon_`, found by halving."""
    low, high = 0.0, 1.0
    while epsilon(high, delta) <= epsilon_:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, delta) <= epsilon_ else (low, middle)
    return low


class Accountant:
    """A site's one account of all studies, in its workspace; it outlives runs and processes.

    A charge and the noised answer that it pays for are one transaction, synced before `answer` returns. The same query
    gets the kept answer again and costs nothing more. An answer is this site's noised share, which its masks hide from
    everyone else; it stays on the site's disk.

    Parameters
    ----------
    workspace : Path
    limit : float, optional
        Rho that all studies together may cost, whoever's patients they are about. Unset: each study's own budget alone.
    """

    def __init__(self, workspace: Path, limit: float | None = None) -> None:
        self._limit = limit
        workspace.mkdir(parents=True, exist_ok=True)
        self._database = LockedDatabase(workspace / FILE, _SCHEMA)

    def answer(
        self,
        query: bytes,
        *,
        study: str,
        part: str,
        statistic: str,
        rho: float,
        budget: float,
        make: Callable[[], Sequence[NDArray[np.int64]]],
    ) -> list[NDArray[np.int64]]:
        """The noised answer to a query: the kept one, or a new one if the study's budget still pays for it.

        Parameters
        ----------
        query : bytes
            Digest of everything the answer depends on: statistic, parameters, rows, sites.
        study, part, statistic : str
            What is charged; `study` is its hash.
        rho : float
            Cost of a new answer.
        budget : float
            What all answers of one part of the study may cost together.
        make : callable
            Gives a new answer, with fresh noise; called only if it is paid for.

        Raises
        ------
        SumRefused
            The budget does not pay for it, or the site's limit over all studies. Nothing was charged and nothing may
            leave.
        """
        with self._database.transaction() as database:
            known = database.execute("SELECT answer FROM charge WHERE query = ?", (query,)).fetchone()
            if known:
                return unpack(known[0])["arrays"]
            charged = [row[0] for row in database.execute(
                "SELECT rho FROM charge WHERE study = ? AND part = ?", (study, part))]  # fmt: skip
            if not rho > 0 or math.fsum([*charged, rho]) > budget:
                raise SumRefused(
                    "privacy budget",
                    f"{statistic} would cost more than is left of the epsilon that this site approved with the study "
                    f"for its {part} part; nothing was sent. What was answered can be asked again at no cost",
                )
            if self._limit is not None and _costs([*_charges(database), (study, part, rho)]) > self._limit:
                raise SumRefused(
                    "privacy budget",
                    f"{statistic} would cost more than is left of the epsilon that this site gives to all studies "
                    "together; nothing was sent. What was answered can be asked again at no cost",
                )
            arrays = list(make())
            kept = (datetime.now(UTC).isoformat(timespec="seconds"), study, part, statistic, query, rho)
            database.execute(
                "INSERT INTO charge (time, study, part, statistic, query, rho, answer) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*kept, pack({"arrays": arrays})),
            )
            return arrays

    def spent(self, study: str | None = None) -> float:
        """Rho charged for a study: that of its costliest part. Unset: all studies together."""
        with self._database.transaction() as database:
            charged = _charges(database)
        return _costs([charge for charge in charged if study in (None, charge[0])])

    def charges(self) -> list[dict[str, Any]]:
        """Every charge in order: ``{time, study, part, statistic, rho}``; no answers."""
        columns = ("time", "study", "part", "statistic", "rho")
        with self._database.transaction() as database:
            found = database.execute(f"SELECT {', '.join(columns)} FROM charge ORDER BY number").fetchall()
        return [dict(zip(columns, row, strict=True)) for row in found]


def _charges(database: sqlite3.Connection) -> list[tuple[str, str, float]]:
    return database.execute("SELECT study, part, rho FROM charge").fetchall()


def _costs(charged: Sequence[tuple[str, str, float]]) -> float:
    """Rho of charges (study, part, rho): of every study that of its costliest part, added over the studies."""
    by_part: dict[str, dict[str, list[float]]] = {}
    for study, part, rho in charged:
        by_part.setdefault(study, {}).setdefault(part, []).append(rho)
    return math.fsum(max(map(math.fsum, parts.values())) for parts in by_part.values())
