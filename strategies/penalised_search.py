"""Penalised search: the maximum of a likelihood with Firth's penalty, and the ends of profile intervals around it.

The information is not the curvature of the penalised likelihood, so steps by it alone close in slowly, or never where
separation is wide; what successive scores tell of the curvature is added as in L-BFGS (Nocedal, Mathematics of
Computation 35:773, 1980). An end of a profile interval is where the likelihood, at its maximum over all other
directions, has lost half a quantile of chi-squared: Venzon & Moolgavkar, Applied Statistics 37:87, 1988, whose step
meets both conditions of a quadratic at once. All ends and tests of a model are searched side by side.

Heinze & Schemper, Statistics in Medicine 21:2409, 2002, section 3.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation
from cohortium.strategies.likelihood import ratio_test
from cohortium.strategies.rows import Array

SETTLED = 1e-9
"""Largest element of the last step, in standardised units: sums are rounded at 1e-12."""
LARGEST_STEP = 3.0  # in standardised units; the first steps from zero overshoot under separation
MAX_ROUNDS = 100


class Point(NamedTuple):
    """A penalised likelihood at some coefficients (k,)."""

    coefficients: Array
    penalised: float
    score: Array  # (k,), of likelihood and penalty
    information: Array  # (k, k)
    terms: Any  # of the likelihood, for the caller


Evaluate = Callable[[Array, Point | None], Point]
"""The point at some coefficients, given the one before it."""


def free(size: int, zero: Sequence[int]) -> Array:
    """Where `size` coefficients can go with those in `zero` held at zero, as `maximise` takes it."""
    return np.delete(np.eye(size), list(zero), axis=1)


def maximise(evaluate: Evaluate, basis: Array) -> tuple[Point, Point]:
    """The points at coefficients of zero and at the maximum over the span of `basis`.

    Parameters
    ----------
    evaluate : callable
    basis : (k, d)
        Orthonormal columns.

    Raises
    ------
    NotIdentifiable
        It does not settle.
    """
    start = at = evaluate(np.zeros(len(basis)), None)
    pairs: list[tuple[Array, Array]] = []
    for _ in range(MAX_ROUNDS):
        step = basis @ direction(basis.T @ at.information @ basis, at.score @ basis, pairs)
        moved = float(np.abs(step).max(initial=0.0))
        if moved <= SETTLED:
            return start, at
        step *= min(1.0, LARGEST_STEP / moved)
        worse = at.penalised - 1e-9 * (1 + abs(at.penalised))  # rounding of a sum is not a worse fit
        while (trial := evaluate(at.coefficients + step, at)).penalised < worse:
            step = step / 2
        pairs = [*pairs[-4:], (step @ basis, (at.score - trial.score) @ basis)]
        at = trial
    raise NotIdentifiable(
        f"the penalised likelihood did not settle in {MAX_ROUNDS} steps: the information nearly vanishes; name fewer "
        "predictors"
    )


def direction(information: Array, score: Array, pairs: Sequence[tuple[Array, Array]]) -> Array:
    """Quasi-Newton step: the inverse information, corrected by (step, loss of score) pairs of earlier steps."""
    useful = [(s, y, 1 / (s @ y)) for s, y in pairs if s @ y > 1e-10 * np.sqrt((s @ s) * (y @ y))]
    rest, parts = score.copy(), []
    for s, y, rho in reversed(useful):
        parts.append(rho * (s @ rest))
        rest -= parts[-1] * y
    step = np.asarray(np.linalg.solve(information, rest), dtype=np.float64)
    for (s, y, rho), part in zip(useful, reversed(parts), strict=True):
        step += (part - rho * (y @ step)) * s
    return step


def half_log_determinant(information: Array) -> float:
    """The penalty."""
    return float(np.linalg.slogdet(information)[1]) / 2


class Profile(NamedTuple):
    """Penalised likelihood intervals and tests of some combinations of coefficients, (c,) each; NaN: none was found."""

    low: Array
    high: Array
    p: Array
    """Of the likelihood-ratio test that the combination is zero."""


def profile(
    federation: Federation, evaluate: Evaluate, top: Point, contrasts: Array, *, level: float = 0.95
) -> Profile:
    """Intervals and tests of each contrast, all side by side: the rounds of the slowest.

    Parameters
    ----------
    top : Point
        The maximum.
    contrasts : (c, k)
        Weights of the coefficients, a combination a row.
    """
    tasks: list[Callable[[], float]] = []
    for contrast in contrasts:
        tasks += [lambda c=contrast, side=side: _end(evaluate, top, c, side, level) for side in (-1.0, 1.0)]
        tasks += [lambda c=contrast: _test(evaluate, top, c)]
    return Profile(*np.array(federation.together(tasks)).reshape(-1, 3).T)


def _end(evaluate: Evaluate, top: Point, contrast: Array, side: float, level: float) -> float:
    """One end of an interval."""
    target = top.penalised - stats.chi2.ppf(level, 1) / 2
    at, pairs = top, []
    for _ in range(MAX_ROUNDS):
        along = direction(at.information, contrast, pairs)
        climb = direction(at.information, at.score, pairs)
        ahead = max(2 * (at.penalised - target) + at.score @ climb, 0.0) / (contrast @ along)
        step = climb + side * np.sqrt(ahead) * along
        moved = float(np.abs(step).max())
        if moved <= SETTLED:
            return float(contrast @ at.coefficients)
        trial = evaluate(at.coefficients + step * min(1.0, LARGEST_STEP / moved), at)
        pairs = [*pairs[-9:], (trial.coefficients - at.coefficients, at.score - trial.score)]
        at = trial
    return np.nan


def _test(evaluate: Evaluate, top: Point, contrast: Array) -> float:
    """Penalised likelihood-ratio test that a contrast is zero; its p."""
    try:
        _, at = maximise(evaluate, linalg.null_space(contrast[None]))
    except NotIdentifiable:
        return np.nan
    return ratio_test(top.penalised, at.penalised, 1).p
