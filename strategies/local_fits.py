"""Local fits: every site fits the model on its own patients, and the coefficients are averaged; a baseline, not a fit.

This is what many federated studies publish as FedAvg of a regression (McMahan et al., AISTATS 2017, with one round of
local fits run to the end): the mean of the sites' coefficients, weighted by patients. It is not the pooled fit, however
many rounds are averaged; `distance` says how far it lies from it.

A local fit is the pooled algorithm on a federation of one site. Where it does not exist (one class, fewer than
`FEWEST` patients of a class, separation, a column that is constant there), the site counts as unable and has no weight.
The sites first say how many they are, so that an average of fewer than the study's minimum is never asked for. Whether
a site is able does not depend on where the question centres the columns or how it scales them: a scale at which the
coefficients of all but one are too large would leave that site's as the total (tests/attacks/test_local_fits.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, PooledSites, statistic
from cohortium.strategies import lasso, lasso_cox, logistic
from cohortium.strategies.rows import Array, Counts, FoldedSurvival, Labelled
from cohortium.strategies.standardised import to_raw

FEWEST = 5
"""Patients of each class, or events, without which a site fits nothing."""
LARGEST = 50.0
"""A coefficient beyond this, of a column of unit variance at the site, is a separation that the data only just deny."""
Kind = Literal["logistic", "lasso", "lasso_cox"]


class Able(NamedTuple):
    """Who can fit."""

    sites: Counts  # ()
    patients: Counts  # ()


class Shares(NamedTuple):
    """Parts of the average."""

    coefficients: Array  # (p + 1,), intercept first (Cox: 0), times the site's share of the patients


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("local_fits.able", adds_over="sites")
def able(rows: Labelled | FoldedSurvival, *, kind: Kind, settings: Mapping[str, Any]) -> Able:
    """Whether a local fit of the site exists, and on how many patients."""
    fitted = _local(rows, kind, settings) is not None
    return Able(np.asarray(int(fitted)), np.asarray(len(rows.x) if fitted else 0))


@statistic("local_fits.shares", adds_over="sites")
def shares(rows: Labelled | FoldedSurvival, *, kind: Kind, settings: Mapping[str, Any], patients: int) -> Shares:
    """The site's own coefficients, weighted with its share of the `patients` of all sites that can fit."""
    fitted = _local(rows, kind, settings)
    nothing = np.zeros(rows.x.shape[1] + 1)
    return Shares(nothing if fitted is None else fitted * (len(rows.x) / patients))


def _local(rows: Labelled | FoldedSurvival, kind: Kind, settings: Mapping[str, Any]) -> Array | None:
    """Coefficients of the model on one site's rows alone, (p + 1,); None where there is no such fit."""
    outcome = rows.y if isinstance(rows, Labelled) else rows.event
    classes = [outcome.sum()] if kind == "lasso_cox" else [outcome.sum(), (1 - outcome).sum()]
    if min(classes) < FEWEST:
        return None
    try:
        if isinstance(rows, Labelled) and kind == "logistic":
            return own_logistic(rows)[0]
        path = {"lasso": lasso, "lasso_cox": lasso_cox}[kind].fit(PooledSites([rows]), rows.x.shape[1], **settings)
    except NotIdentifiable:
        return None
    found = path.chosen
    return found if _moderate(found[0] + rows.x.mean(0) @ found[1:], found[1:] * rows.x.std(0)) else None


def own_logistic(rows: Labelled) -> tuple[Array, Array]:
    """A site's own logistic fit, coefficients (p + 1,) and covariance, fitted on columns of its own unit variance.

    Raises
    ------
    NotIdentifiable
        A column is constant or a combination of others, or the outcome is separated, or nearly.
    """
    if not np.ptp(rows.x, axis=0).all():
        raise NotIdentifiable("a column is constant at this site")
    centre, scale = rows.x.mean(0), rows.x.std(0)
    fitted = logistic.fit(PooledSites([rows._replace(x=(rows.x - centre) / scale)]), len(scale))
    if not _moderate(fitted.coefficients[0], fitted.coefficients[1:]):
        raise NotIdentifiable("the outcome is nearly separated")
    back = to_raw(centre, scale)
    return back @ fitted.coefficients, back @ fitted.covariance @ back.T


def _moderate(intercept: float, slopes: Array) -> bool:
    return bool(max(abs(intercept), np.abs(slopes).max(initial=0.0)) <= LARGEST)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Average:
    """The mean of local fits; coefficients (p + 1,), intercept first."""

    coefficients: Array
    sites: int
    patients: int


def asked_of(model: Any, endpoint_kind: str) -> dict[str, Any]:
    """What is asked of the sites for a [model.NAME] of kind logistic or lasso: `kind` and `settings`."""
    if model.kind == "logistic":
        return {"kind": "logistic", "settings": {}}
    settings = {"n_lambda": model.n_lambda, "folds": model.folds, "rule": model.lambda_, "mixing": model.mixing}
    return {"kind": "lasso_cox" if endpoint_kind == "survival" else "lasso", "settings": settings}


def fit(
    federation: Federation, *, kind: Kind, minimum_sites: int, settings: Mapping[str, Any] | None = None
) -> Average:
    """Average the local fits of all sites that have one, weighted by patients; two sums.

    Parameters
    ----------
    federation : Federation
        Of rows as the exact fit of `kind` takes them.
    kind : {"logistic", "lasso", "lasso_cox"}
    minimum_sites : int
        Fewer local fits than this are not averaged: their mean would be nearly a site's own.
    settings : mapping, optional
        Of a LASSO: n_lambda, folds, rule, mixing; each site chooses its own penalty by its own cross-validation.

    Raises
    ------
    NotIdentifiable
        Too few sites have a local fit.
    """
    asked = {"kind": kind, "settings": dict(settings or {})}
    found = federation.sum(able, **asked)
    sites, patients = int(found.sites), int(found.patients)
    if sites < minimum_sites:
        raise NotIdentifiable(
            f"FedAvg: {sites} sites have a local fit, minimum_sites = {minimum_sites} are needed for an average; "
            'use aggregation = "exact", which needs no local fit'
        )
    total = federation.sum(shares, patients=patients, **asked)
    return Average(coefficients=total.coefficients, sites=sites, patients=patients)


def distance(average: Array, exact: Array) -> dict[str, float | int]:
    """How far an average lies from the exact fit; both (p + 1,) on standardised columns, the intercept left out.

    Keys: ``relative_error`` (Euclidean length of the difference over that of the exact coefficients; left out where
    these are all zero), ``largest_difference``, ``nonzero``, ``nonzero_exact``, ``nonzero_both``.
    """
    ours, theirs = average[1:], exact[1:]
    difference, length = ours - theirs, float(np.linalg.norm(theirs))
    found: dict[str, float | int] = {
        "largest_difference": float(np.abs(difference).max(initial=0.0)),
        "nonzero": int(np.count_nonzero(ours)),
        "nonzero_exact": int(np.count_nonzero(theirs)),
        "nonzero_both": int(np.count_nonzero((ours != 0) & (theirs != 0))),
    }
    return {"relative_error": float(np.linalg.norm(difference)) / length, **found} if length > 0 else found
