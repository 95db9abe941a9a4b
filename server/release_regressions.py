"""Release regressions: what the fits of logistic and Cox models ask of their sites, by the keys of their tables."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cohortium.common.study_analysis import CoxModel, LogisticModel
from cohortium.server.release_sizes import NOBODY, Release, Share
from cohortium.strategies import (
    firth,
    firth_cox,
    linear,
    logistic,
    meta_analysis,
    proportional_hazards,
    risk_sets,
    site_effects,
)
from cohortium.strategies.rows import Labelled, Survival

Asks = Callable[..., Release]


def logistic_fit(asks: Asks, purpose: str, model: LogisticModel) -> Iterator[Release]:
    """A logistic fit; `asks` makes a release of the model's design."""

    def at(p: int) -> Share:
        return _labelled(p), {"coefficients": np.zeros(p + 1)}

    if model.aggregation == "meta":
        yield asks(f"{purpose} locally", meta_analysis.able, lambda p: (_labelled(p), {}))
        between = lambda p: {"tau2": np.zeros(p + 1), "centre": np.zeros(p + 1)}  # noqa: E731
        yield asks(f"{purpose} locally", meta_analysis.sums, lambda p: (_labelled(p), between(p)))
        if model.tau2 == "reml":
            more = lambda p: between(p) | {"unit": np.ones(p + 1)}  # noqa: E731
            yield asks(f"{purpose} locally", meta_analysis.restricted, lambda p: (_labelled(p), more(p)))
    elif model.site_effects == "fixed":
        yield asks(purpose, site_effects.profile, lambda p: (_labelled(p), {"coefficients": np.zeros(p)}))
        asked = {"patients": 1}
        yield asks(purpose, site_effects.intercept, lambda p: (_labelled(p), asked | {"coefficients": np.zeros(p)}))
    elif model.penalty == "firth":
        yield asks(purpose, logistic.terms, at)
        yield asks(purpose, firth.correction, lambda p: (at(p)[0], at(p)[1] | {"covariance": np.zeros((p + 1, p + 1))}))
    else:
        yield asks(purpose, logistic.terms, at)
        if model.site_effects == "random":
            yield asks(purpose, site_effects.marginal, lambda p: (at(p)[0], at(p)[1] | {"log_sd": 0.0}))


def cox_extras(asks: Asks, purpose: str, model: CoxModel) -> Iterator[Release]:
    """What a Cox model asks beside the terms of its partial likelihood."""
    pooled = model.strata == "none"
    if model.penalty == "firth" and not pooled:
        yield asks(purpose, firth_cox.stratum, lambda p: (_survival(p), _penalised(p) | {"ties": model.ties}))
    elif model.penalty == "firth":
        grid = {"points": NOBODY.astype(np.int64), "deaths": NOBODY.astype(np.int64), "denominators": NOBODY}

        def moments(p: int) -> Share:
            known: dict[str, Any] = {"mean_x": np.zeros((0, p)), "ties": model.ties, "time_step": 1.0}
            return _survival(p), _penalised(p) | grid | known

        yield asks(purpose, firth_cox.moments, moments)
    if model.proportional_hazards != "none":
        against = {"transform": model.proportional_hazards, "centre": 0.0}
        purpose = f"{purpose}: proportional hazards"
        if pooled:
            asked = against | {"time_step": 1.0}
            yield asks(purpose, proportional_hazards.observed, lambda p: (_survival(p), asked))
        else:
            own = against | {"ties": model.ties}
            yield asks(
                purpose, proportional_hazards.stratum, lambda p: (_survival(p), own | {"coefficients": np.zeros(p)})
            )


def candidates(asks: Asks, purpose: str, kind: str, model: Any) -> Iterator[Release]:
    """Stepwise selection on an endpoint of this kind: the candidates' fits, whose columns are among the model's.

    A Cox model without strata asks for its own fit what its candidates ask.
    """
    if kind == "continuous":
        yield asks(purpose, linear.cross_products, lambda p: (_labelled(p), {}))
    elif kind == "binary":
        yield asks(purpose, logistic.terms, lambda p: (_labelled(p), {"coefficients": np.zeros(p + 1)}))
    elif getattr(model, "strata", "site") == "site":
        own = {"ties": getattr(model, "ties", "efron"), "time_step": None}
        yield asks(purpose, risk_sets.stratum, lambda p: (_survival(p), own | {"coefficients": np.zeros(p)}))


def _penalised(p: int) -> dict[str, Any]:
    return {"coefficients": np.zeros(p), "covariance": np.zeros((p, p))}


def _labelled(columns: int) -> Labelled:
    return Labelled(np.empty((0, columns)), NOBODY, NOBODY.astype(np.int64))


def _survival(columns: int) -> Survival:
    return Survival(np.empty((0, columns)), NOBODY, NOBODY)
