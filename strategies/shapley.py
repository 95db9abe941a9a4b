"""Shapley: what each variable adds to a patient's score, for models of any kind, by sampled permutations.

Strumbelj & Kononenko (Knowledge and Information Systems 41, 2014), algorithm 1: start at a background row and switch
the variables to the patient's values one after the other in a random order; what a switch changes is what its variable
adds. Each background row is walked in one order and in its reverse (antithetic, as in shap's PermutationExplainer), and
the mean is taken. The walks telescope: contributions add up to the score less the mean score of the background rows,
whatever was drawn, and of a linear score they are beta (x - mean of the background rows).

No patient is background: rows are drawn variable by variable from marginals over all sites that are public anyway.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.explanation import Replacement
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.scoring import linear_predictor

BACKGROUND = 100
"""Background rows; a pair of permutations each."""
MOST_VARIABLES = 100
"""Of a model that is explained: the work grows with their number times that of the columns."""
MOST_SWITCHES = 20_000
"""Patients times variables; a study with more explains a half, a quarter, ... of its patients."""
BATCH = 1024  # rows that are scored at a time: memory, not results


class Keyed(NamedTuple):
    """Standardised columns x (n, p) beside key (n,) int64, a keyed hash of the patient that stays at the site."""

    x: Array
    key: Counts


class Background(NamedTuple):
    """What patients are compared with, all public."""

    group: Counts  # (p,), columns of one variable share a number, from 0
    rows: Array  # (b, p), standardised
    orders: Counts  # (b, groups), a permutation of the groups for each row


def contributions(fit: Mapping[str, Any], x: Array, background: Background) -> Array:
    """Contribution of each group of columns to the linear predictor of each patient of `x` (n, p); (n, groups).

    Parameters
    ----------
    fit : mapping
        As `scoring.linear_predictor` takes it.
    """
    group, rows, orders = background
    groups = orders.shape[1]
    found = np.zeros((len(x), groups))
    step = max(1, BATCH // (2 * groups))
    starts = linear_predictor(fit, rows)
    for first in range(0, len(x), step):
        part = x[first : first + step]
        ends = linear_predictor(fit, part)
        for row, start, order in zip(rows, starts, orders, strict=True):
            for walked, changes in _walks(fit, part, ends, (row, start), group, order):
                found[first : first + step, walked] += changes
    return found / (2 * len(rows))


def _walks(
    fit: Mapping[str, Any], x: Array, ends: Array, row: tuple[Array, float], group: Counts, order: Counts
) -> list[tuple[Counts, Array]]:
    """Changes (n, groups) of the score along an order and along its reverse, from a background row to each patient."""
    groups, n = len(order), len(x)
    place = np.argsort(order)[group]  # of each column's group in the order
    switches = np.arange(1, groups)[:, None]
    switched = np.vstack([place < switches, groups - 1 - place < switches])  # (2 (groups - 1), p)
    states = np.where(switched[:, None], x, row[0])
    between = linear_predictor(fit, states.reshape(-1, x.shape[1])).reshape(2, groups - 1, n)
    start = np.full((1, n), row[1])
    return [
        (walked, np.diff(np.vstack([start, scores, ends[None]]), axis=0).T)
        for walked, scores in zip((order, order[::-1]), between, strict=True)
    ]


# --- at each site ---------------------------------------------------------------------------------------------


class Values(NamedTuple):
    """Sums over the patients that are explained."""

    patients: Counts  # ()
    score: Array  # (), of the linear predictor
    total: Array  # (groups,) of the contributions
    absolute: Array  # (groups,)


@statistic("shapley.values", adds_over="rows")
def values(
    rows: Keyed, *, fit: Mapping[str, Any], group: Counts, background: Array, orders: Counts, halvings: int
) -> Values:
    """Sum contributions over a 2**-halvings part of a site's patients, the same part in every run.

    Parameters
    ----------
    group, background, orders : (p,), (b, p), (b, groups)
        The fields of `Background`.
    """
    x = rows.x[rows.key % 2**halvings == 0]
    found = contributions(fit, x, Background(group, background, orders))
    score = linear_predictor(fit, x).sum()
    return Values(np.array(len(x)), np.asarray(score, dtype=np.float64), found.sum(0), np.abs(found).sum(0))


# --- at the server --------------------------------------------------------------------------------------------


class Sampled(NamedTuple):
    """Over the patients that were explained, on the scale of the linear predictor.

    `expected` + the sum of `mean` = `score`, exactly.
    """

    patients: int
    mean: Array  # (groups,)
    mean_absolute: Array  # (groups,)
    score: float  # mean of the patients
    expected: float  # mean of the background rows


def halvings(patients: int, groups: int, most: int = MOST_SWITCHES) -> int:
    """How often the patients of all sites are halved: the fewest times that leave `most` at most."""
    times = 0
    while (patients >> times) * groups > most:
        times += 1
    return times


def draw(marginals: Sequence[Replacement], group: Counts, rng: np.random.Generator) -> Background:
    """Background rows whose variables are independent, each as even over its marginal as so many rows can be.

    A Latin hypercube (McKay, Beckman & Conover, Technometrics 21, 1979): evenly spaced quantiles, shuffled by variable.

    Parameters
    ----------
    marginals : one of each group
    """
    rows = np.zeros((BACKGROUND, len(group)))
    at = (np.arange(BACKGROUND) + 0.5) / BACKGROUND
    for marginal in marginals:
        through = np.cumsum(marginal["weights"])
        # the last value has whatever rounding leaves of the whole
        which = np.searchsorted(through[:-1] / through[-1], at, side="right")
        rows[:, marginal["columns"]] = marginal["values"][rng.permutation(which)]
    orders = rng.permuted(np.tile(np.arange(len(marginals)), (BACKGROUND, 1)), axis=1)
    return Background(np.asarray(group), rows, orders)


def sampled(federation: Federation, fit: Mapping[str, Any], background: Background, patients: int) -> Sampled:
    """Mean contributions of each group of columns. One sum.

    Parameters
    ----------
    federation : Federation
        Of `Keyed` rows.
    patients : int
        Of all sites.
    """
    group, rows, orders = background
    part = halvings(patients, orders.shape[1])
    sums = federation.sum(values, fit=fit, group=group, background=rows, orders=orders, halvings=part)
    n = max(int(sums.patients), 1)
    expected = float(np.mean(linear_predictor(fit, rows)))
    return Sampled(int(sums.patients), sums.total / n, sums.absolute / n, float(sums.score) / n, expected)
