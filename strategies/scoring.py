"""Scoring: the linear predictor of a published fit of any kind, on its standardised columns.

What was published says how: ``coefficients`` (intercept first), with a ``kernel`` laid over the columns or without;
``weights`` of a network, with its ``head`` (averaged, ReLU) or ``hidden`` layers (gradient sums, tanh); ``trees``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cohortium.common.heads import Head
from cohortium.strategies.rows import Array


def linear_predictor(fit: Mapping[str, Any], x: Array) -> Array:
    """Log-odds (of a Cox model the log relative hazard) of each patient of `x` (n, p); (n,).

    Modules of rarer kinds are imported when one is scored: most messages need none of them.
    """
    if "head" in fit:
        head = Head(inputs=x.shape[1], hidden=tuple(fit["head"]))
        return head.linear_predictor(np.asarray(fit["weights"]), x)
    if "hidden" in fit:
        from cohortium.strategies import mlp

        return mlp.linear_predictor(np.asarray(fit["weights"]), list(fit["hidden"]), x)
    if "trees" in fit:
        from cohortium.strategies import gradient_boosting

        trees = gradient_boosting.Trees(**{name: np.asarray(field) for name, field in fit["trees"].items()})
        return gradient_boosting.linear_predictor(trees, float(fit["base"]), x)
    coefficients = np.asarray(fit["coefficients"])
    if "kernel" in fit:
        from cohortium.strategies.random_features import Kernel, features

        x = features(x, Kernel(*fit["kernel"]))
    # summed column by column: one patient's score does not depend on which others are in the table
    return coefficients[0] + (x * coefficients[1:]).sum(axis=1)
