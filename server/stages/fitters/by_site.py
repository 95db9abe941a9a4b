"""By site: logistic models that let sites differ: an intercept each (fixed or random), or a fit each (meta-analysis).

A site that took no part is scored with the mean intercept: of fixed effects the mean over patients, of random ones the
intercept of the middle site, of a meta-analysis the pooled one. So are the sites that took part, as a hospital that
reads the paper would.
"""

from typing import Any

import numpy as np

from cohortium.common.study_analysis import LogisticModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, in_study_units, labelled
from cohortium.strategies import meta_analysis, site_effects


def fit(federation: StudyFederation, model: LogisticModel, rows: dict[str, Any], columns: Columns) -> Fit:
    """The fit that `site_effects` or `aggregation` asks for, in study units."""
    sums = federation.rows(labelled(rows, columns))
    least = federation.least_sites
    if model.aggregation == "meta":
        found = meta_analysis.fit(sums, len(columns), minimum_sites=least, between=model.tau2)
        return _pooled(columns, found, meta_analysis.METHODS[model.tau2])
    if model.site_effects == "fixed":
        return _fixed(columns, site_effects.fit_fixed(sums, len(columns), names=columns.names, minimum_sites=least))
    return _random(columns, site_effects.fit_random(sums, len(columns), names=columns.names))


def _fixed(columns: Columns, fitted: site_effects.FixedEffects) -> Fit:
    return Fit(
        columns=columns,
        published=_published(columns, np.append(fitted.mean_intercept, fitted.coefficients)),
        terms=columns.names,
        estimates=fitted.coefficients / columns.scale,
        covariance=fitted.covariance / np.outer(columns.scale, columns.scale),
        notes={
            "log_likelihood": fitted.log_likelihood,
            "patients": fitted.patients,
            "site_effects": {
                "kind": "fixed",
                "sites": fitted.sites,
                "mean_intercept": _raw_intercept(columns, fitted.mean_intercept, fitted.coefficients),
            },
        },
    )


def _random(columns: Columns, fitted: site_effects.RandomIntercept) -> Fit:
    estimates, covariance = in_study_units(columns, fitted.coefficients, fitted.covariance)
    return Fit(
        columns=columns,
        published=_published(columns, fitted.coefficients),
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        notes={
            "log_likelihood": fitted.log_likelihood,
            "patients": fitted.without.patients,
            "site_effects": {
                "kind": "random",
                "sd": fitted.sd,
                "on_the_edge": fitted.sd == 0,
                "intraclass_correlation": fitted.intraclass_correlation,
                "median_odds_ratio": fitted.median_odds_ratio,
                "heterogeneity": fitted.heterogeneity.plain(),
            },
        },
    )


def _pooled(columns: Columns, found: meta_analysis.Meta, method: str) -> Fit:
    scale = columns.scale
    estimates = found.coefficients[1:] / scale
    ranges = found.prediction_interval()[1:] / scale[:, None]
    terms = [
        {
            "term": term,
            "q": float(found.q[1 + i]),
            "df": found.sites - 1,
            "p": float(found.q_p_values[1 + i]),
            "i2": float(found.i2[1 + i]),
            "tau2": float(found.tau2[1 + i] / scale[i] ** 2),
            "prediction_interval": ranges[i].tolist(),
            "common": float(found.common[1 + i] / scale[i]),
            "common_se": float(found.common_errors[1 + i] / scale[i]),
        }
        for i, term in enumerate(columns.names)
    ]
    return Fit(
        columns=columns,
        published=_published(columns, found.coefficients),
        terms=columns.names,
        estimates=estimates,
        covariance=np.diag((found.standard_errors[1:] / scale) ** 2),
        notes={
            "patients": found.patients,
            "meta_analysis": {
                "sites": found.sites,
                "method": method,
                "intercept": _raw_intercept(columns, found.coefficients[0], found.coefficients[1:]),
                "terms": terms,
            },
        },
    )


def _published(columns: Columns, coefficients: Any) -> dict[str, Any]:
    return {**columns.recipe, "coefficients": np.asarray(coefficients)}


def _raw_intercept(columns: Columns, intercept: float, slopes: Any) -> float:
    """Intercept of the raw columns."""
    return float(intercept - np.sum(slopes * columns.centre / columns.scale))
