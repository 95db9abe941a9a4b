"""Penalised quadratic: the inner problem of LASSO Newton steps, solved for many models at once at the server.

Minimises, for each of m models of q coordinates,

    gradient . (x - origin) + (x - origin)' curvature (x - origin) / 2 + sum_j penalty_j |x_j|

by coordinate descent (Friedman, Hastie & Tibshirani, J. Stat. Softw. 33:1, 2010) until the signs settle, and then by
one linear solve on the coordinates that are not zero (the active-set step of Osborne et al., IMA J. Numer. Anal.
20:389, 2000), which ends where descent would creep. Small models are advanced together, without a numpy call a model.
"""

import numpy as np

from cohortium.strategies.rows import Array

SWEEPS = 3  # of coordinate descent between two active-set steps
MAX_STEPS = 25
"""Strongly correlated columns would need more while the outer iteration is still far away; it comes back anyway."""
LARGE = 100
"""Coordinates from which it is cheaper to solve model by model, for those that are not zero."""
ROUNDING = 1e-13
"""Left-over gradient relative to the terms it is made of that is rounding."""
RIDGE = 1e-10
"""Added to the diagonal (standardised columns have about 0.1): pulls towards the origin, so that equal columns have one
answer and vanishing curvature bounds the step; a Newton iteration's fixed point does not move."""


def solve(curvature: Array, gradient: Array, origin: Array, penalty: Array) -> Array:
    """Minimisers, (m, q), as exact as a Newton iteration that starts at `origin` can use.

    Parameters
    ----------
    curvature : (m, q, q)
        Symmetric, positive semidefinite.
    gradient, origin, penalty : (m, q)
        penalty >= 0; infinite keeps a coordinate at zero (padding of models that have fewer than q).
    """
    curvature = curvature + RIDGE * np.eye(gradient.shape[1])
    constant = gradient - _times(curvature, origin)  # gradient at x is constant + curvature x
    # an outer violation of v falls to about v^2 with an exact answer: exact to less than that is exact enough
    enough = 1e-2 * violation(gradient, origin, penalty) ** 1.5
    x = origin.copy()
    todo = np.arange(len(x))
    for _ in range(MAX_STEPS):
        h, c, lam = curvature[todo], constant[todo], penalty[todo]
        x[todo] = _active_set_step(h, c, lam, _descend(h, c, lam, x[todo]))
        rounding = ROUNDING * np.maximum(np.abs(c), np.abs(_times(h, np.abs(x[todo])))).max(axis=1)
        left = violation(c + _times(h, x[todo]), x[todo], lam)
        todo = todo[left > np.maximum(enough[todo], rounding)]
        if not todo.size:
            break
    return x


def violation(gradient: Array, x: Array, penalty: Array) -> Array:
    """Largest violation of the optimality (KKT) conditions of each model, (m,); gradient of the smooth part at x."""
    finite = np.where(np.isfinite(penalty), penalty, 0.0)
    at_zero = np.maximum(np.abs(gradient) - penalty, 0.0)
    return np.where(x != 0, np.abs(gradient + np.sign(x) * finite), at_zero).max(axis=1, initial=0.0)


def _times(matrices: Array, vectors: Array) -> Array:
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])


def _descend(curvature: Array, constant: Array, penalty: Array, x: Array) -> Array:
    """A few sweeps of coordinate descent."""
    x = x.copy()
    slope = constant + _times(curvature, x)
    for _ in range(SWEEPS):
        for j in range(x.shape[1]):
            bend = curvature[:, j, j]
            wanted = bend * x[:, j] - slope[:, j]
            moved = np.sign(wanted) * np.maximum(np.abs(wanted) - penalty[:, j], 0.0) / bend
            change = moved - x[:, j]
            if change.any():
                slope += curvature[:, :, j] * change[:, None]
                x[:, j] = moved
    return x


def _active_set_step(curvature: Array, constant: Array, penalty: Array, x: Array) -> Array:
    """Minimum for the present signs; short of it where a coordinate would change sign, which then becomes zero."""
    active = (x != 0) | (penalty == 0)
    pull = np.where(active, constant + np.sign(x) * np.where(active, penalty, 0.0), 0.0)
    if x.shape[1] > LARGE:
        target = np.zeros_like(x)
        for model, some in enumerate(active):
            target[model, some] = np.linalg.solve(curvature[model][np.ix_(some, some)], -pull[model, some])
    else:
        both = active[:, :, None] & active[:, None, :]
        target = np.linalg.solve(np.where(both, curvature, np.eye(x.shape[1])), -pull[:, :, None])[:, :, 0]
    crossing = active & (penalty > 0) & (np.sign(target) != np.sign(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(crossing, x / (x - target), 1.0)
    step = reach.min(axis=1, initial=1.0, keepdims=True)
    moved = np.where(step < 1, x + step * (target - x), target)
    return np.where(crossing & (reach <= step), 0.0, moved)
