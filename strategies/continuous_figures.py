"""Continuous figures: how well numbers are predicted, for one cohort: explained variance, errors, calibration, limits.

All follow from means and standard deviations of five kinds of columns (`view_continuous.predicted`), which `moments`
adds exactly whatever the unit: two sums for any number of models, at the coordinator or at a single site alike. The
covariance of outcome and prediction is half of what their variances have more than that of the error.

Limits of agreement: Bland & Altman, Stat Methods Med Res 8:135, 1999. Calibration: the outcome regressed on the
prediction (Steyerberg, Clinical Prediction Models, 2019, chapter 15).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import moments, multiplicity
from cohortium.strategies.rows import Array
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined, withheld

CONTINUOUS_FIGURES = (
    "n", "r_squared", "rmse", "mae", "mae_ci", "correlation", "correlation_ci", "calibration", "bland_altman",
)  # fmt: skip
LEVEL = 0.95
NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))

Found = tuple[dict[str, dict[str, Figure]], list[dict[str, Any]]]


def validate_continuous(
    federation: Federation, models: Sequence[str], pairs: Sequence[tuple[str, str]], settings: Settings
) -> Found:
    """All figures of every model on one cohort, and the comparison of each pair; two sums.

    Parameters
    ----------
    federation : Federation
        Of `Matrix` rows with the columns of `view_continuous.predicted`.
    models : sequence of str
        Names, in the order of the columns.
    pairs : sequence of pairs of models
        In the order of the columns.
    settings : Settings
        Only its ``minimum_count`` matters.

    Returns
    -------
    figures : dict of model to `CONTINUOUS_FIGURES`, as under COHORT in results.json
    comparisons : list of entries of ``comparisons``, without ``cohort``
    """
    m = len(models)
    known = moments.fit(federation, 1 + 3 * m + len(pairs))
    heads = [{"a": a, "b": b, "test": "absolute_error"} for a, b in pairs]
    if known.patients < settings.minimum_count:
        least = settings.minimum_count
        compared = [head | withheld(("difference", "ci", "z", "p"), least) for head in heads]
        return {name: withheld(CONTINUOUS_FIGURES, least) for name in models}, compared
    n = known.patients
    figures = {
        name: _figures(n, known.mean[[0, i, i + m, i + 2 * m]], known.sd[[0, i, i + m, i + 2 * m]])
        for i, name in enumerate(models, start=1)
    }
    compared = [
        head | _difference(n, float(known.mean[i]), float(known.sd[i])) for i, head in enumerate(heads, start=1 + 3 * m)
    ]
    return figures, multiplicity.adjusted(compared) if compared else []


def _figures(n: int, mean: Array, sd: Array) -> dict[str, Figure]:
    """Figures of one model from means and deviations of outcome, prediction, error and absolute error, (4,) each."""
    squares = (n - 1) * sd**2 + n * mean**2  # sums of squares about zero
    variance = sd**2

    def explained() -> float:
        if not sd[0] > 0:
            raise Undefined("all patients have one value of the outcome")
        return float(1 - squares[2] / ((n - 1) * variance[0]))

    def correlation() -> float:
        if not (sd[0] > 0 and sd[1] > 0):
            raise Undefined("the outcome or the prediction has one value")
        return float(np.clip(_covariance(variance) / (sd[0] * sd[1]), -1, 1))

    r = defined(correlation)
    return {
        "n": n,
        "r_squared": defined(explained),
        "rmse": float(np.sqrt(squares[2] / n)),
        "mae": float(mean[3]),
        "mae_ci": _interval(n, float(mean[3]), float(sd[3]) / np.sqrt(n)),
        "correlation": r,
        "correlation_ci": r if isinstance(r, dict) else defined(lambda: _fisher(n, r)),
        "calibration": _calibration(n, mean, variance),
        "bland_altman": _agreement(n, float(mean[2]), float(sd[2])),
    }


def _covariance(variance: Array) -> float:
    return float(variance[0] + variance[1] - variance[2]) / 2


def _calibration(n: int, mean: Array, variance: Array) -> dict[str, Figure]:
    """Intercept and slope of the outcome regressed on the prediction, with Student's intervals."""
    names = ("intercept", "intercept_ci", "intercept_se", "slope", "slope_ci", "slope_se")
    if n < 3 or not variance[1] > 0:
        return dict.fromkeys(names, undefined("fewer than three patients, or one value predicted for all"))
    slope = _covariance(variance) / float(variance[1])
    intercept = float(mean[0] - slope * mean[1])
    left = max(float(variance[0] - slope**2 * variance[1]), 0.0) / (n - 2)  # residual variance / sum of squares of s
    slope_se = np.sqrt(left / variance[1])
    intercept_se = np.sqrt(left * ((n - 1) / n + mean[1] ** 2 / variance[1]))
    found = {"intercept": (intercept, float(intercept_se)), "slope": (slope, float(slope_se))}
    return {
        key: figure
        for name, (value, se) in found.items()
        for key, figure in (
            (name, value),
            (f"{name}_ci", _interval(n, value, se, lost=2)),
            (f"{name}_se", se),
        )
    }


def _agreement(n: int, mean: float, sd: float) -> dict[str, Figure]:
    """Mean of prediction less outcome, and the limits between which 95 % of the errors lie if they are normal."""
    root = float(np.sqrt(n))
    of_a_limit = sd * float(np.sqrt(1 / n + NORMAL**2 / (2 * max(n - 1, 1))))
    figures = {"mean_difference": (mean, sd / root)}
    figures |= {"lower": (mean - NORMAL * sd, of_a_limit), "upper": (mean + NORMAL * sd, of_a_limit)}
    found: dict[str, Figure] = {"sd": sd}
    for name, (value, se) in figures.items():
        found |= {name: value, f"{name}_ci": _interval(n, value, se)}
    return found


def _interval(n: int, value: float, se: float, lost: int = 1) -> Figure:
    if n <= lost:
        return undefined("too few patients for an interval")
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - lost)) * float(se)
    return [value - half, value + half]


def _fisher(n: int, r: float) -> list[float]:
    if n < 4 or abs(r) == 1:
        raise Undefined("an interval of a correlation needs four patients that are not on one line")
    z, half = np.arctanh(r), NORMAL / np.sqrt(n - 3)
    return [float(np.tanh(z - half)), float(np.tanh(z + half))]


def _difference(n: int, mean: float, sd: float) -> dict[str, Figure]:
    """Paired test that two models' mean absolute errors are equal."""
    if not sd > 0:
        return {"difference": mean} | dict.fromkeys(("ci", "z", "p"), undefined("the errors differ by one value"))
    se = sd / float(np.sqrt(n))
    z = mean / se
    ci = [mean - NORMAL * se, mean + NORMAL * se]
    return {"difference": mean, "ci": ci, "z": z, "p": float(2 * stats.norm.sf(abs(z)))}
