"""Release explanations: what ``[validation] explain`` asks of the training sites for one model."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from cohortium.common.federation import Statistic
from cohortium.common.study import Study
from cohortium.server.release_sizes import NOBODY, Release, Share
from cohortium.strategies import explanation, permutation, quantiles, shapley
from cohortium.strategies.rows import Matrix

NOT_LINEAR = ("network", "mlp", "rff_svm", "gradient_boosting")
"""Kinds of models whose score no coefficients of columns give."""


class Design(Protocol):
    """The candidate columns of one model."""

    def asks(self, purpose: str, what: Statistic, share: Callable[..., Share], more: str = "") -> Release:
        """A release of ``share(columns, **values of more letters)``."""
        ...


def explanations(design: Design, purpose: str, study: Study, kind: str) -> Iterator[Release]:
    """Contributions; the marginals of the columns; patients by cell with each variable replaced."""
    asked = set(study.validation.explain)
    drawn = kind in NOT_LINEAR
    values = 2 + explanation.VALUES

    def contributions(p: int) -> Share:
        return _matrix(p), {"coefficients": np.zeros(p), "centre": np.zeros(p), "group": np.arange(p)}

    def next_bytes(p: int) -> Share:
        return _matrix(p), {"groups": 1, "cells": np.arange(p * 2 * values), "depth": 1}

    def replaced(p: int, c: int) -> Share:
        one: dict[str, Any] = {"columns": np.zeros(1, np.int64), "values": np.zeros((1, 1)), "weights": np.ones(1)}
        return _matrix(p), {"coefficients": np.zeros(1 + p), "edges": [np.arange(c)], "replacements": [one] * p}

    def replaced_of_any(p: int, c: int) -> Share:
        _, asked = replaced(p, c)
        rows = permutation.Judged(np.empty((0, p)), NOBODY.astype(np.int64), NOBODY.astype(np.int64))
        return rows, {"fit": {"coefficients": asked.pop("coefficients")}, **asked, "halvings": 0}

    def sampled_values(p: int) -> Share:
        fit = {"coefficients": np.zeros(1 + p)}
        one = {"fit": fit, "group": np.arange(p), "background": np.zeros((1, p)), "orders": np.arange(p)[None]}
        return shapley.Keyed(np.empty((0, p)), NOBODY.astype(np.int64)), {**one, "halvings": 0}

    if drawn and not asked & {"shap", "permutation"}:
        return
    yield design.asks(purpose, explanation.contributions, contributions)
    if drawn or asked & {"permutation", "nomogram"}:
        yield design.asks(purpose, quantiles.top_bytes, lambda p: (_matrix(p), {"groups": 1}))
        yield design.asks(purpose, quantiles.next_bytes, next_bytes)
    if drawn and "shap" in asked:
        yield design.asks(purpose, shapley.values, sampled_values)
    if "permutation" in asked:
        yield (
            design.asks(purpose, permutation.replaced, replaced_of_any, "c")
            if drawn
            else design.asks(purpose, explanation.replaced, replaced, "c")
        )


def _matrix(columns: int) -> Matrix:
    return Matrix(np.empty((0, columns)), NOBODY.astype(np.int64))
