"""View continuous: rows of an endpoint that is a number: the outcome itself, standardised, and beside predictions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.strategies import views
from cohortium.strategies.rows import Array, Matrix
from cohortium.strategies.view_patients import Context, selected


def values(context: Context, endpoint: str) -> Array:
    """The endpoint of every patient of the table in its unit, (n,); NaN = missing.

    Raises
    ------
    SumRefused
        Times and classes leave in other ways, under rules of their own.
    """
    if context.study.endpoint[endpoint].kind != "continuous":
        raise SumRefused("outcome", f"endpoint {endpoint} is no number; ask for what the study approved")
    return context.table.columns[f"endpoint.{endpoint}"]


def standardised(context: Context, view: Mapping[str, Any]) -> Array:
    """The outcome less the view's ``outcome.centre``, over its ``outcome.scale``; (n,)."""
    known = view["outcome"]
    return (values(context, view["endpoint"]) - known["centre"]) / known["scale"]


def outcome(view: Mapping[str, Any], context: Context) -> Matrix:
    """The outcome as a column, (n, 1)."""
    return _matrix(values(context, view["endpoint"])[:, None], view, context)


def predicted(view: Mapping[str, Any], context: Context) -> Matrix:
    """Outcome, predictions and their errors side by side, (n, 1 + 3 m + pairs).

    Columns: the outcome; the m models' predictions; their errors (prediction less outcome); the errors without their
    signs; and for each of the view's ``pairs`` (a, b) of models how much larger the error of a is without its sign.
    """
    y = values(context, view["endpoint"])
    scores = views.scores(view, context)
    error = scores - y[:, None]
    pairs = np.asarray(view.get("pairs", ()), dtype=np.int64).reshape(-1, 2)
    larger = np.abs(error)[:, pairs[:, 0]] - np.abs(error)[:, pairs[:, 1]]
    return _matrix(np.column_stack([y, scores, error, np.abs(error), larger]), view, context)


def _matrix(x: Array, view: Mapping[str, Any], context: Context) -> Matrix:
    x = x[selected(context, view["rows"])]
    return Matrix(x=x, group=np.zeros(len(x), dtype=np.int64))
