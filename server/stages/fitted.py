"""Fitted: what the fit of one replicate leaves, for the sites that score with it and for people who read it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.server.stages.columns import Columns

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fitted replicate.

    `published` is what a site scores with (recipe and coefficients, on the standardised scale, intercept first; or a
    head's weights). `estimates` is for people: terms, estimates and covariance in study units, empty for networks.
    `notes` are for the report; ``"left_out"`` names candidates of one value only, or known in too few.
    """

    columns: Columns
    published: dict[str, Any]
    terms: tuple[str, ...] = ()
    estimates: Array = field(default_factory=lambda: np.empty(0))
    covariance: Array | None = None
    degrees_of_freedom: Array | None = None  # of each estimate, where intervals and tests are Student's
    notes: dict[str, Any] = field(default_factory=dict)
    no_errors: str = "a penalised estimate has no standard error"
    """Why, where there is no covariance."""


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A model with all its replicates: its public name on the wire, and its final fit."""

    digest: str
    final: Fit
    replicates: dict[tuple[int, ...], Fit]


def labelled(rows: dict[str, Any], columns: Columns, **more: Any) -> dict[str, Any]:
    """View of a binary endpoint's design on some patients."""
    return {"kind": "labelled", "rows": rows, "endpoint": rows["endpoint"], **columns.recipe, **more}


def in_study_units(columns: Columns, coefficients: Array, covariance: Array) -> tuple[Array, Array]:
    """Coefficients (intercept first) and covariance of the raw columns, from those of the standardised ones."""
    back = np.eye(len(coefficients))
    back[1:, 1:] = np.diag(1 / columns.scale)
    back[0, 1:] = -columns.centre / columns.scale
    return back @ coefficients, back @ covariance @ back.T
