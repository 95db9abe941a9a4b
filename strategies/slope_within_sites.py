"""Slope within sites: calibration slope of survival scores by a Cox model stratified by site.

Two numbers a model and Newton step leave a site (gradient and information of its own partial likelihood), so a study
with binned scores has a slope too. Each site keeps a baseline hazard of its own.
van Houwelingen, Stat Med 2000; Efron, JASA 1977 (ties).
"""

from typing import NamedTuple

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, ScoredSurvival
from cohortium.strategies.survival import at_risk, time_cell
from cohortium.strategies.survival_calibration import Estimate

STEPS = 30
_LARGEST = 300.0  # of an exponent: sums of its square stay inside doubles

# --- at each site ---------------------------------------------------------------------------------------------


class Terms(NamedTuple):
    """Derivatives of a site's own log partial likelihood in the slope of each model."""

    gradient: Array  # (models,)
    information: Array  # (models,)


@statistic("slope_within_sites.terms", adds_over="sites")
def terms(rows: ScoredSurvival, *, slopes: Array, time_step: float) -> Terms:
    """Gradient and information at the slopes (models,), among the site's own patients."""
    gradient, information = np.zeros(len(slopes)), np.zeros(len(slopes))
    if not rows.event.any():
        return Terms(gradient, information)
    times, interval = np.unique(time_cell(rows.time, time_step), return_inverse=True)
    died = rows.event == 1
    deaths = np.bincount(interval[died], minlength=len(times))
    index = np.repeat(np.arange(len(times)), deaths)
    passed = np.concatenate([np.arange(d) / d for d in deaths if d])[:, None]  # deaths of this time gone before
    for m, slope in enumerate(slopes):
        x = rows.score[:, m] - rows.score[:, m].mean()
        weight = np.exp(np.clip(slope * x, -_LARGEST, _LARGEST))
        powers = np.stack([weight, weight * x, weight * x * x])
        leaving = np.stack([np.bincount(interval, p, len(times)) for p in powers])
        dying = np.stack([np.bincount(interval[died], p[died], len(times)) for p in powers])
        sums = at_risk(leaving).T[index] - passed * dying.T[index]
        mean = sums[:, 1] / sums[:, 0]
        gradient[m] = x[died].sum() - mean.sum()
        information[m] = (sums[:, 2] / sums[:, 0] - mean**2).sum()
    return Terms(gradient, information)


# --- at the server --------------------------------------------------------------------------------------------


def slopes(federation: Federation, models: int, *, time_step: float) -> list[Estimate | Undefined]:
    """Slope of each model, by Newton's method from 1; about 4 sums for all models together."""
    slope, error, done = np.ones(models), np.zeros(models), np.zeros(models, bool)
    lost = np.zeros(models, bool)
    for _ in range(STEPS):
        gradient, information = federation.sum(terms, slopes=slope, time_step=time_step)
        lost |= ~done & ((information <= 1e-7) | (np.abs(slope) > 1e3))
        step = np.clip(np.divide(gradient, information, out=np.zeros(models), where=information > 1e-7), -1, 1)
        moving = ~done & ~lost
        slope[moving] += step[moving]
        error[moving] = information[moving] ** -0.5
        done |= moving & (np.abs(step) < 1e-10 * np.maximum(1, np.abs(slope)))
        if (done | lost).all():
            break
    why = Undefined("the slope is not finite: no events, scores that are alike, or events in order without a fault")
    return [
        Estimate(value=float(s), standard_error=float(e)) if ok else why
        for s, e, ok in zip(slope, error, done, strict=True)
    ]
