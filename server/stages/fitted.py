"""Fitted: what the fit of one replicate leaves, for the sites that score with it and for people who read it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.study import Study
from cohortium.server.stages.columns import Columns
from cohortium.strategies.penalised_search import Profile
from cohortium.strategies.standardised import to_raw
from cohortium.strategies.view_patients import fold_numbers, further_repeats, left_out_number

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
    profile: Profile | None = None  # of each estimate, in study units
    notes: dict[str, Any] = field(default_factory=dict)
    no_errors: str = "a penalised estimate has no standard error"
    """Why, where there is no covariance."""


@dataclass(frozen=True)
class Unfitted:
    """A replicate that could not be fitted: why, where, and the remedy."""

    why: str


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A model with all its replicates: its public name on the wire, its final fit, and the fits that are not there.

    A final fit that fails stops the run. Of another replicate only the scores that it would give are missing.
    """

    digest: str
    final: Fit
    replicates: dict[tuple[int, ...], Fit]
    unfitted: dict[tuple[int, ...], Unfitted] = field(default_factory=dict)

    def unscored(self, study: Study, of: str) -> str | None:
        """Why this model has no scores `of` patients it has not seen (view_patients.unseen); None where it has them."""
        repeats = ["out_of_fold", *further_repeats(study)]
        if of in repeats:
            numbers = set(fold_numbers(study, repeats.index(of)))
        else:
            numbers = {left_out_number(study, site) for site in study.split.train if of == "left_out_site"}
        whys = [
            missing.why for without, missing in self.unfitted.items() if len(without) == 1 and numbers >= {*without}
        ]
        return "; ".join(whys) or None


def labelled(rows: dict[str, Any], columns: Columns, **more: Any) -> dict[str, Any]:
    """View of a binary endpoint's design on some patients."""
    return {"kind": "labelled", "rows": rows, "endpoint": rows["endpoint"], **columns.recipe, **more}


def in_study_units(columns: Columns, coefficients: Array, covariance: Array) -> tuple[Array, Array]:
    """Coefficients (intercept first) and covariance of the raw columns, from those of the standardised ones."""
    back = to_study_units(columns)
    return back @ coefficients, back @ covariance @ back.T


def to_study_units(columns: Columns) -> Array:
    """Coefficients (intercept first) of the raw columns from those of the standardised ones, (p + 1, p + 1)."""
    return to_raw(columns.centre, columns.scale)
