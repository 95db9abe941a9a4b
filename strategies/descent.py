"""Descent: minimise a smooth objective whose value and gradient are one sum over sites, never its curvature.

Limited-memory BFGS (Liu & Nocedal, Mathematical Programming 45, 1989, 503-528) as scipy has it, at the server. Used
where second derivatives must not leave: a hinge or a hidden unit is active for some patients only, and two matrices of
products of active patients that differ by one patient are that patient's row.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize

from cohortium.strategies.rows import Array

MEMORY = 100
"""Steps that the curvature is guessed from; with as many as there are coefficients it is nearly Newton's method."""

FLAT = 1e-15
"""Relative fall of the objective that ends a descent: rounding."""

Evaluate = Callable[[Array], tuple[float, Array]]


class Descent(NamedTuple):
    """Where a descent ended."""

    at: Array  # (p,)
    value: float
    gradient: float  # largest absolute element
    values: tuple[float, ...]  # of the objective, one a sum


def minimise(evaluate: Evaluate, start: Array, *, sums: int, tolerance: float) -> Descent:
    """Descend from `start`; one sum an evaluation.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(coefficients)`` gives the objective and its gradient (p,), which is one sum.
    start : (p,)
    sums : int
        About as many are asked for at most: the last line search is finished.
    tolerance : float
        Largest absolute element of the gradient at which the descent ends.
    """
    values: list[float] = []

    def noted(coefficients: Array) -> tuple[float, Array]:
        value, gradient = evaluate(coefficients)
        values.append(value)
        return value, gradient

    options = {
        "maxcor": min(MEMORY, max(len(start), 1)),
        "maxfun": sums,
        "maxiter": sums,
        "ftol": FLAT,
        "gtol": tolerance,
    }
    found = optimize.minimize(noted, start, jac=True, method="L-BFGS-B", options=options)
    return Descent(np.asarray(found.x), float(found.fun), float(np.abs(found.jac).max(initial=0.0)), tuple(values))
