"""Decision curve: net benefit of treating by the model, against treating everyone, over risk thresholds.

Net benefit at threshold t is TP/n - FP/n * t / (1 - t) (Vickers & Elkin, Med Decis Making 2006). TP and FP are exact
counts of score >= t, which `cutoff.above` sums for all models and thresholds at once.
"""

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import cutoff
from cohortium.strategies.rows import Array, Counts

THRESHOLDS = tuple(k / 100 for k in range(1, 100))
"""Thresholds where a study names none."""


def curves(federation: Federation, models: int, thresholds: tuple[float, ...] = THRESHOLDS) -> tuple[Array, Array]:
    """Net benefit of every model (models, k) and of treating all (k,); one sum.

    Raises
    ------
    Undefined
        No patients.
    """
    sums = federation.sum(cutoff.above, thresholds=np.tile(cutoff.on_grid(np.array(thresholds)), (models, 1)))
    return net_benefit(sums.patients, sums.total, thresholds), treat_all(sums.total, thresholds)


def net_benefit(called: Counts, total: Counts, thresholds: tuple[float, ...]) -> Array:
    """Net benefit from the patients called positive, (..., 2, k) by outcome, among (2,) in all."""
    t = np.asarray(thresholds)
    return (called[..., 1, :] - called[..., 0, :] * t / (1 - t)) / _patients(total)


def treat_all(total: Counts, thresholds: tuple[float, ...]) -> Array:
    """Net benefit of calling everyone positive, (k,)."""
    t = np.asarray(thresholds)
    return (total[1] - total[0] * t / (1 - t)) / _patients(total)


def interventions_avoided(called: Counts, total: Counts, thresholds: tuple[float, ...]) -> Array:
    """Interventions that 100 patients are spared against treating all, with no event more left untreated, (..., k).

    (net benefit - that of treating all) (1 - t) / t * 100 (Vickers, van Calster & Steyerberg, Diagn Progn Res 2019):
    true negatives, less the false negatives at what a missed event costs.
    """
    t = np.asarray(thresholds)
    gained = net_benefit(called, total, thresholds) - treat_all(total, thresholds)
    return 100 * gained * (1 - t) / t


def _patients(total: Counts) -> int:
    if not total.sum():
        raise Undefined("a decision curve needs patients")
    return int(total.sum())
