"""Averaged: coefficients of local fits, averaged (aggregation = "fedavg"), with the exact fit and the distance to it.

The averaged model is what the study asked for, and what is validated; the exact one stands in its notes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, to_study_units
from cohortium.strategies import local_fits
from cohortium.strategies.rows import Array

Exact = TypeVar("Exact")
NO_ERRORS = "an average of local fits has no standard error"


def beside_average(
    federation: StudyFederation, name: str, view: dict[str, Any], exact: Callable[[], Exact]
) -> tuple[Exact, local_fits.Average]:
    """The exact fit, and the mean of the local fits of a model over the rows of a view, side by side."""
    study = federation.study
    asked = local_fits.asked_of(study.model[name], study.endpoint_of(name).kind)

    def average() -> local_fits.Average:
        return local_fits.fit(federation.rows(view), minimum_sites=federation.least_sites, **asked)

    tasks: list[Callable[[], Any]] = [exact, average]
    fitted, mean = federation.together(tasks)
    return fitted, mean


def averaged(columns: Columns, exact: Fit, exact_coefficients: Array, mean: local_fits.Average) -> Fit:
    """The averaged model beside the exact one.

    Parameters
    ----------
    columns : Columns
        All that were fitted, (p,).
    exact : Fit
        The exact fit, as it would be reported.
    exact_coefficients : (p + 1,)
        Of all columns, standardised, intercept first.
    mean : Average
    """
    kept = np.flatnonzero(mean.coefficients[1:])
    some = columns.take(kept)
    coefficients = mean.coefficients[np.concatenate([[0], kept + 1])]
    first = 0 if "(Intercept)" in exact.terms else 1
    if first:  # of a survival endpoint: the score is the linear predictor of the raw columns
        coefficients[0] = np.sum(coefficients[1:] * some.centre / some.scale)
    estimates = to_study_units(some) @ coefficients
    beside = {
        "sites": mean.sites,
        "patients": mean.patients,
        **local_fits.distance(mean.coefficients, exact_coefficients),
        "exact": [
            {"term": term, "estimate": float(value)} for term, value in zip(exact.terms, exact.estimates, strict=True)
        ],
    }
    return Fit(
        columns=some,
        published={**some.recipe, "coefficients": coefficients},
        terms=("(Intercept)", *some.names)[first:],
        estimates=estimates[first:],
        notes={**exact.notes, "fedavg": beside},
        no_errors=NO_ERRORS,
    )
