"""Nomogram: a linear predictor as points to add up, for the report and the bedside.

The variable whose contribution spans most gets 100 points (Harrell, Regression Modeling Strategies, section 5.3). Axes
of continuous variables end at low and high percentiles and not at the extremes, which are single patients' values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

POINTS = 100.0
MOST_AXES = 40
"""Variables that a nomogram can be drawn for."""
END = 2.326
"""Standard deviations from the mean at which axes end where no percentiles were asked for: 1 % of a normal variable."""
RISKS = (0.01, 0.05, *(k / 10 for k in range(1, 10)), 0.95, 0.99)


def nomogram(
    intercept: float, axes: Mapping[str, Sequence[tuple[Any, float]]], *, risks: Sequence[float] = RISKS
) -> dict[str, Any]:
    """Points of every variable, and total points of some risks.

    Parameters
    ----------
    intercept : float
    axes : variable -> [(value or level, contribution to the linear predictor)]
        Contributions between two values of a continuous variable are on a straight line.

    Returns
    -------
    dict
        ``axes``: ``variable``, ``points`` [[value, points]]; ``points_per_unit`` of the linear predictor; ``lowest``,
        the linear predictor at 0 points; ``highest_total``; ``risk`` [[total points, risk]] within reach
    """
    spans = {name: max(c for _, c in at) - min(c for _, c in at) for name, at in axes.items()}
    largest = max(spans.values(), default=0.0)
    unit = POINTS / largest if largest > 0 else 0.0
    least = {name: min(c for _, c in at) for name, at in axes.items()}
    lowest = intercept + sum(least.values())
    highest = unit * sum(spans.values())
    totals = [(unit * (float(special.logit(risk)) - lowest), risk) for risk in risks]
    return {
        "axes": [
            {"variable": name, "points": [[value, unit * (c - least[name])] for value, c in at]}
            for name, at in axes.items()
        ],
        "points_per_unit": unit,
        "lowest": lowest,
        "highest_total": highest,
        "risk": [[total, risk] for total, risk in totals if unit and 0 <= total <= highest],
    }


def percentiles(patients: int, minimum_count: int) -> tuple[float, float]:
    """Shares at which axes end: 1 % and 99 %, or further in, so that `minimum_count` patients lie beyond."""
    share = float(np.clip(minimum_count / max(patients, 1), 0.01, 0.5))
    return share, 1 - share
