"""Bootstrap: intervals of everything that follows from counts of scores, by the Poisson bootstrap of the patients.

Each patient enters a replicate Poisson(1) times, independently (Hanley & MacGibbon, Comput Methods Programs Biomed
2006; Chamandy et al. 2012). A cell of n patients then holds a sum of n such numbers, which is Poisson(n) whoever the
patients are: replicates of the histogram are drawn from the histogram, exactly as if every site had weighted its own
patients. So the bootstrap asks for nothing, and nothing more leaves a site.

What needs the patients themselves (the optimism of a model that is fitted anew, pairs of models) is not here.
"""

from collections.abc import Callable

import numpy as np

from cohortium.strategies.rows import Array, Counts

_CELLS_AT_ONCE = 4_000_000

Replicated = Callable[[Counts], Array]


def percentile_interval(
    figure: Replicated, patients: Counts, *, replicates: int, seed: int, level: float = 0.95
) -> tuple[Array, Array] | None:
    """Percentile interval of a figure of counts.

    Parameters
    ----------
    figure : callable
        ``figure(counts)`` with counts (r, 2, cells) gives (r, ...) values, NaN where a replicate has none.
    patients : (2, cells)
        By outcome and cell.
    seed : int
        Public: the replicates hold nothing that the counts do not.

    Returns
    -------
    low, high : arrays of one figure's shape; None where one replicate in ten or more has no figure
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // patients.size)
    values = np.concatenate(
        [
            figure(rng.poisson(patients, size=(min(at_once, replicates - done), *patients.shape)))
            for done in range(0, replicates, at_once)
        ]
    )
    missing = np.isnan(values).reshape(replicates, -1).any(axis=1)
    if missing.mean() >= 0.1:
        return None
    low, high = np.quantile(values[~missing], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def auc(patients: Counts) -> Array:
    """AUC of each replicate, (r,), NaN where it lacks a class; ties count one half. `patients`: (r, 2, cells)."""
    below = np.cumsum(patients[:, 0], axis=-1) - patients[:, 0] / 2
    pairs = patients.sum(-1, dtype=np.float64).prod(-1)
    return np.divide((patients[:, 1] * below).sum(-1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(patients: Counts) -> Array:
    """Average precision of each replicate, (r,), NaN where it lacks the outcome."""
    called = np.cumsum(patients[..., ::-1], axis=-1)
    share = called[:, 1] / np.maximum(called.sum(1), 1)
    events = patients[:, 1].sum(-1)
    summed = (share * patients[:, 1, ::-1]).sum(-1)
    return np.divide(summed, events, out=np.full(len(events), np.nan), where=events > 0)


def net_benefit(thresholds: tuple[float, ...]) -> Replicated:
    """Net benefit at each threshold, from patients between them: cell k holds thresholds[k-1] <= score < thresholds[k].

    Cells are one more than thresholds.
    """
    odds = np.array([t / (1 - t) for t in thresholds])

    def of(patients: Counts) -> Array:
        called = np.cumsum(patients[..., ::-1], axis=-1)[..., -2::-1]  # at or above each threshold
        n = np.maximum(patients.sum((1, 2)), 1)[:, None]
        return (called[:, 1] - called[:, 0] * odds) / n

    return of
