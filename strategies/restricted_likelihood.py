"""Restricted likelihood: the variance between sites by REML, from sums that tell no site's estimate.

The restricted log-likelihood is climbed by Newton's method, by Fisher scoring where it is not concave, on the logarithm
of the whole variance of an estimate: of that it is nearly quadratic, so four or five steps are enough. Its derivatives
are sums over sites of weights, their squares and cubes, and of these times the estimates: one sum a step, all
coefficients (or figures) side by side. Estimates and variances are summed in a public unit that makes the weights about
1, so that fixed point serves effects of any size.

Viechtbauer, Journal of Educational and Behavioral Statistics 30:261, 2005 (the default of R's metafor).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cohortium.strategies.rows import Array

SETTLED = 1e-10
"""Largest last step, in shares of an estimate's variance."""
FLAT = 1e-9  # the curvature of one site, which says nothing of others, is rounding
MAX_ROUNDS = 30


class Restricted(NamedTuple):
    """Sums over sites of powers of w = 1 / (v + tau2) times powers of d = b - centre, in the unit; all of one shape."""

    weight: Array  # w
    first: Array  # w d
    second: Array  # w d^2
    square: Array  # w^2
    square_first: Array
    square_second: Array
    cube: Array  # w^3
    cube_first: Array
    cube_second: Array


Ask = Callable[[Array, Array, Array], Restricted]


def contribution(estimate: Array, variance: Array, tau2: Array, centre: Array, unit: Array) -> Restricted:
    """One site's part; `unit` is about the weight of an estimate."""
    weight = 1 / ((variance + tau2) * unit)
    apart = (estimate - centre) * np.sqrt(unit)
    return Restricted(*(weight**w * apart**d for w in (1, 2, 3) for d in (0, 1, 2)))


def maximise(ask: Ask, start: Array, centre: Array, variance: Array) -> tuple[Array, Restricted, Array]:
    """The variances between sites at the maximum, the sums there, and their unit; each (k,).

    Parameters
    ----------
    ask : callable
        ``ask(tau2, centre, unit)`` gives the sums, each (k,).
    start : (k,)
        Variances between sites to begin with.
    variance : (k,)
        About that of an estimate at its site.
    """
    tau2, low, high = start, np.zeros_like(start), np.full_like(start, np.inf)
    unit = 1 / (variance + tau2)
    at = ask(tau2, centre, unit)
    for _ in range(MAX_ROUNDS):  # which halve the bracket at worst
        score, curvature = _derivatives(at)
        low, high = np.where(score > 0, tau2, low), np.where(score < 0, tau2, high)
        step = np.divide(score, curvature, out=np.zeros_like(score), where=curvature > FLAT)
        tried = np.maximum((variance + tau2) * np.exp(step) - variance, 0.0)
        beyond = (tried < low) | (tried > high)
        tried = np.where(beyond, (low + np.minimum(high, tried)) / 2, tried)
        if (np.abs(tried - tau2) * unit).max(initial=0.0) <= SETTLED:
            break
        tau2, unit = tried, 1 / (variance + tried)
        at = ask(tau2, centre, unit)
    return tau2, at, unit


def _derivatives(at: Restricted) -> tuple[Array, Array]:
    """Score of the logarithm of an estimate's variance, and the curvature to divide it by.

    That is the observed one, where it is not much below the expected one.
    """
    mean = at.first / at.weight
    trace = at.weight - at.square / at.weight
    trace_of_square = at.square - 2 * at.cube / at.weight + (at.square / at.weight) ** 2
    squared = at.square_second - 2 * mean * at.square_first + mean**2 * at.square
    cubed = at.cube_second - 2 * mean * at.cube_first + mean**2 * at.cube
    cubed -= (at.square_first - mean * at.square) ** 2 / at.weight
    expected = trace_of_square / 2
    score = (squared - trace) / 2
    return score, np.maximum(cubed - expected - score, expected / 4)
