"""Imputed: what chained equations make of the columns of one replicate, and one fit of several imputed data sets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.study_data import Imputation
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns, joined
from cohortium.server.stages.fitted import Fit
from cohortium.strategies import chained, moments, rubin
from cohortium.strategies.moments import Moments


def filled(federation: StudyFederation, rows: dict[str, Any], columns: Columns, known: Moments) -> tuple[Columns, ...]:
    """The columns with the equations that fill them, once an imputation; as they are where nothing is chained.

    Parameters
    ----------
    columns : Columns
        All terms of the replicate, with what fills gaps at first.
    known : Moments
        Of the known values of these columns.
    """
    variables = federation.study.variables
    chained_ones = [
        i for i, column in enumerate(columns.columns) if _is_chained(variables, column.variable, column.name)
    ]
    if not chained_ones:
        return (columns,)
    settings = federation.study.imputation or Imputation()

    def imputation(index: int) -> Columns:
        return _one(federation, rows, columns, known, np.array(chained_ones), settings, index)

    tasks: list[Callable[[], Columns]] = [
        lambda index=index: imputation(index) for index in range(settings.imputations)
    ]
    return tuple(federation.together(tasks))


def _explained(notes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Explained variance and residual deviation of least squares over imputations; nothing of other models.

    R2 as the square of a correlation, averaged on Fisher's scale (Harel, Journal of Applied Statistics 36:1109, 2009).
    """
    told: dict[str, float] = {}
    for key in ("r_squared", "adjusted_r_squared"):
        if all(key in one for one in notes):
            roots = np.sqrt([max(one[key], 0.0) for one in notes])
            told[key] = float(np.tanh(np.mean(np.arctanh(np.minimum(roots, np.nextafter(1.0, 0.0))))) ** 2)
    if all("residual_sd" in one for one in notes):
        told["residual_sd"] = float(np.sqrt(np.mean([one["residual_sd"] ** 2 for one in notes])))
    return told


def _is_chained(variables: dict[str, Any], variable: str, term: str) -> bool:
    return variables[variable].missing == "chained" and term in variables[variable].terms


def _one(
    federation: StudyFederation,
    rows: dict[str, Any],
    columns: Columns,
    known: Moments,
    targets: Any,
    settings: Imputation,
    index: int,
) -> Columns:
    rows = {**rows, "patients": known.patients}  # public by now; sites hold the number of columns against it
    terms = list(columns.names)
    rng = None
    if settings.imputations > 1:
        # every replicate draws anew, and the same in every run
        rng = np.random.default_rng([federation.study.study.seed, index, *(1 + fold for fold in rows["without"])])
    view = {"kind": "incomplete", "rows": rows, "blocks": [{"terms": terms}]}
    chain = chained.fit(federation.rows(view), known, columns.fill, targets, settings.cycles, rng=rng, imputation=index)
    digest = federation.publish({"terms": terms, "equations": chain._asdict()})
    blocks = [{"terms": terms, "chain": digest}]
    done = moments.fit(federation.rows({"kind": "matrix", "rows": rows, "blocks": blocks}), len(terms))
    sources = tuple(replace(column, source=("terms", column.name, digest)) for column in columns.columns)
    return Columns(columns=sources, centre=done.mean, scale=done.sd, fill=done.mean)


def pooled(fits: Sequence[Fit], patients: int) -> Fit:
    """One fit of the fits of several imputations, by Rubin's rules; its score is the mean of their linear predictors.

    Raises
    ------
    NotIdentifiable
        The imputations do not have the same terms.
    """
    first, m = fits[0], len(fits)
    if any(fit.terms != first.terms for fit in fits) or first.covariance is None:
        raise NotIdentifiable("a column is constant in some imputations and not in others; leave it out, or fill it in")
    units = first.notes.get("events", patients)  # of a Cox model events count, as in R's df.residual
    covariances = np.stack([fit.covariance for fit in fits if fit.covariance is not None])
    result = rubin.pool(np.stack([fit.estimates for fit in fits]), covariances, max(units - len(first.terms), 1))
    weights = [fit.published["coefficients"] for fit in fits]
    together = joined([fit.columns for fit in fits])
    mean = np.concatenate([[np.mean([one[0] for one in weights])], *(one[1:] / m for one in weights)])
    # what one data set alone says, its likelihood and tests, is not what all of them say
    notes = {key: value for key, value in first.notes.items() if all(fit.notes.get(key) == value for fit in fits)}
    notes |= _explained([fit.notes for fit in fits])
    if "baseline" in first.notes:  # of a patient with score 0, on the one grid of times
        hazards = [fit.notes["baseline"]["cumulative_hazard"] for fit in fits]
        notes["baseline"] = {**first.notes["baseline"], "cumulative_hazard": np.mean(hazards, axis=0).tolist()}
    notes["imputation"] = {
        "imputations": m,
        "within": result.within.tolist(),
        "between": result.between.tolist(),
        "degrees_of_freedom": result.degrees_of_freedom.tolist(),
        "missing_information": result.missing_information.tolist(),
    }
    return replace(
        first,
        published={**together.recipe, "coefficients": mean},
        estimates=result.estimates,
        covariance=result.covariance,
        degrees_of_freedom=result.degrees_of_freedom,
        notes=notes,
    )
