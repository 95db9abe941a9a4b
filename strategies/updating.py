"""Updating: does a model need to be recalibrated for these patients, and how much of it?

The closed test of Vergouwe et al., Stat Med 2017: nested logistic models of the outcome on the logit of the score (as
it is; intercept updated; intercept and slope updated) are compared by likelihood-ratio tests, from the richest down, so
that the chance of an update that is not needed stays at the level of one test. Everything follows from the
recalibration's Newton sums; patients are not asked again.
"""

from typing import Any

from cohortium.strategies.calibration import Updating
from cohortium.strategies.likelihood import ratio_test

LEVEL = 0.05


def closed_test(of: Updating, level: float = LEVEL) -> dict[str, Any]:
    """The tests, which update they choose, and its coefficients.

    Returns
    -------
    dict
        ``tests`` (each ``null``, ``alternative``, ``chi2``, ``df``, ``p``), ``chosen`` (``none``, ``intercept``,
        ``intercept_and_slope``), ``models`` (``log_likelihood``, ``intercept`` and ``slope`` of each)
    """
    as_it_is, large, both = of.log_likelihood
    tests = [
        _test("none", "intercept_and_slope", as_it_is, both, 2),
        _test("intercept", "intercept_and_slope", large, both, 1),
        _test("none", "intercept", as_it_is, large, 1),
    ]
    needed, slope_too = tests[0]["p"] < level, tests[1]["p"] < level
    intercept, slope = of.recalibrated
    return {
        "chosen": ("intercept_and_slope" if slope_too else "intercept") if needed else "none",
        "tests": tests,
        "models": {
            "none": {"log_likelihood": as_it_is, "intercept": 0.0, "slope": 1.0},
            "intercept": {"log_likelihood": large, "intercept": of.intercept, "slope": 1.0},
            "intercept_and_slope": {"log_likelihood": both, "intercept": intercept, "slope": slope},
        },
    }


def _test(null: str, alternative: str, smaller: float, larger: float, df: int) -> dict[str, Any]:
    return {"null": null, "alternative": alternative, **ratio_test(larger, smaller, df).plain()}
