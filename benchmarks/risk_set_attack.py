"""Risk-set attack: how many patients the sums over risk sets of a cross-validated Cox LASSO path would rebuild.

    python benchmarks/risk_set_attack.py

With one baseline hazard for all sites, every model of the path needs S(t; b) = sum of exp(x b) over all who are at risk
at each event time t, of its training set and, for the held-out loss, of all patients. The difference of the two, and
of two neighbouring times, is the sum of exp(x b) over the patients of one inner fold who leave in one interval, at
hundreds of known b: the path's penalties times its rounds. The columns x are solved for by nonlinear least squares
from random starts. The sums are rounded as in a federation of four sites; what else leaves (sums of x exp(x b)) is not
used, so this is a lower bound.

Rebuilt: every column within a twentieth of its standard deviation. docs/decisions/0013 rests on it.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from lifelines.datasets import load_gbsg2, load_rossi
from scipy.optimize import least_squares, linear_sum_assignment

from cohortium.common.federation import PooledSites
from cohortium.strategies import lasso_cox
from cohortium.strategies.rows import Array, Counts, FoldedSurvival

FOLDS, PENALTIES, STEP = 10, 50, 30
NEAR = 0.05
STARTS = 12
LARGEST = 10
ROUNDING = 2.0**-39
"""Step of a number in the sums of four sites."""
SITES = 4


def cohorts() -> Iterator[tuple[str, Array, Array, Array]]:
    """Name, standardised columns, times in days, events."""
    gbsg2 = load_gbsg2().rename(columns={"cens": "event"})
    gbsg2["horTh"], gbsg2["menostat"] = gbsg2["horTh"] == "yes", gbsg2["menostat"] == "Post"
    gbsg2["tgrade"] = gbsg2["tgrade"].map({"I": 1, "II": 2, "III": 3})
    rossi = load_rossi().rename(columns={"week": "time", "arrest": "event"}).astype(float)
    for name, frame, days in (("gbsg2", gbsg2, 1), ("rossi", rossi, 7)):
        x = frame.drop(columns=["time", "event"]).astype(float)
        yield name, ((x - x.mean()) / x.std()).to_numpy(), frame["time"].to_numpy() * days, frame["event"].to_numpy()


class Recorded(PooledSites):
    """Pooled patients, and every coefficient vector that their sums were asked at."""

    def __init__(self, rows: FoldedSurvival) -> None:
        super().__init__([rows])
        self.asked: list[tuple[int, Array]] = []

    def sum(self, what: Any, **parameters: Any) -> Any:
        if what is lasso_cox.terms:
            self.asked += zip(parameters["held_out"].tolist(), parameters["coefficients"], strict=True)
        return super().sum(what, **parameters)


def questions(x: Array, time: Array, event: Array, fold: Counts) -> list[Array]:
    """Coefficients at which the sums of each inner fold are known, (m, p) each, from the path on the grid of times."""
    pooled = Recorded(FoldedSurvival(x=x, time=np.floor(time / STEP), event=event, fold=fold))
    lasso_cox.fit(pooled, x.shape[1], n_lambda=PENALTIES, folds=FOLDS)
    return [np.unique([b for held_out, b in pooled.asked if held_out == f], axis=0) for f in range(FOLDS)]


def solve(coefficients: Array, sums: Array, patients: int, rng: np.random.Generator) -> Array | None:
    """Columns of `patients` rows whose sums of exp(x b) are these, (g, p); None where no start leads to such rows."""
    p = coefficients.shape[1]

    def residual(flat: Array) -> Array:
        return np.exp(np.clip(coefficients @ flat.reshape(patients, p).T, -50, 50)).sum(1) - sums

    def slope(flat: Array) -> Array:
        risk = np.exp(np.clip(coefficients @ flat.reshape(patients, p).T, -50, 50))
        return (risk[:, :, None] * coefficients[:, None, :]).reshape(len(sums), -1)

    for _ in range(STARTS):
        start = rng.standard_normal(patients * p)
        exactly: dict[str, Any] = {"jac": slope, "x_scale": "jac", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
        found = least_squares(residual, start, max_nfev=300, **exactly)
        if np.abs(found.fun).max() < 8 * SITES * ROUNDING:
            return found.x.reshape(patients, p)
    return None


def rebuilt(x: Array, coefficients: Array, rng: np.random.Generator) -> int:
    """Patients of a group whose columns follow from their sums."""
    noise = ROUNDING * rng.uniform(-0.5, 0.5, (SITES, len(coefficients))).sum(0)
    found = solve(coefficients, np.exp(coefficients @ x.T).sum(1) + noise, len(x), rng)
    if found is None:
        return 0
    away = np.abs(found[:, None] - x).max(axis=2)
    return int((away[linear_sum_assignment(away)] < NEAR).sum())


def main() -> None:
    """Print, for both cohorts, what groups of each size give away, and what the study's grid does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10, help="groups of each size")
    groups = parser.parse_args().groups
    for name, x, time, event in cohorts():
        rng = np.random.default_rng(1)
        fold = rng.permutation(np.arange(len(x)) % FOLDS)
        asked = questions(x, time, event, fold)
        print(f"{name}: {len(x)} patients, {x.shape[1]} columns, {[len(b) for b in asked]} coefficient vectors a fold")
        order = np.argsort(time, kind="stable")
        for size in range(1, LARGEST + 1):
            first = rng.choice(len(x) - size, groups, replace=False)
            found = sum(rebuilt(x[order[i : i + size]], asked[0], rng) for i in first)
            print(f"  groups of {size:2}: {found} of {groups * size} patients rebuilt", flush=True)
        points = np.unique(np.floor(time / STEP)[event == 1])
        interval = np.searchsorted(points, np.floor(time / STEP), side="right")
        cells = [np.flatnonzero((interval == k) & (fold == f)) for k in range(len(points) + 1) for f in range(FOLDS)]
        sizes = np.array([len(cell) for cell in cells])
        small = [(cell, fold[cell[0]]) for cell in cells if 0 < len(cell) <= 3]
        found = sum(rebuilt(x[cell], asked[f], rng) for cell, f in small)
        few = f"{(sizes == 1).sum()} patients leave alone, {sizes[sizes <= 3].sum()} in groups of three or fewer"
        grid = f"{len(points)} event times on a grid of {STEP} days, {FOLDS} inner folds"
        print(f"  {grid}: {few}; {found} of {len(x)} rebuilt from these")


if __name__ == "__main__":
    main()
