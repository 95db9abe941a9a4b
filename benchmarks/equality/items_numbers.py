"""Items of numbers: least squares over imputations and in steps, figures between sites by REML, ICC of measurements."""

from collections.abc import Sequence
from typing import Any

import data
import numpy as np
import references_further as further
import references_numbers as references
import references_selection as selection
from federations import at_sites
from item import Federate, Item
from references_validation import scores

from cohortium.strategies import heterogeneity, icc, linear, rubin, stepwise, triangle
from cohortium.strategies.icc import Repeated
from cohortium.strategies.rows import Labelled, Matrix, Scored

MODELS = ("a", "b")


def _rows(frame: Any, x: np.ndarray, y: np.ndarray) -> list[Labelled]:
    return at_sites(Labelled, frame, x=x, y=y, fold=np.zeros(len(y), np.int64))


def _rubin(federate: Federate) -> dict[str, Any]:
    frame, designs = selection.imputed_designs()
    y = data.standardised(frame, ["x20"])[:, 0]
    fits = [linear.fit(federate(_rows(frame, x, y)), 3) for x in designs]
    found = rubin.pool(
        np.array([fit.coefficients for fit in fits]), np.array([fit.covariance for fit in fits]), len(y) - 4
    )
    return {
        "estimates": found.estimates, "se": np.sqrt(np.diag(found.covariance)),
        "degrees_of_freedom": found.degrees_of_freedom,
    }  # fmt: skip


def _stepwise(federate: Federate) -> dict[str, Any]:
    """As a run does: one sum of cross products, from which every candidate is solved."""
    frame, names = data.diabetes(), references.TEN
    x, y = data.standardised(frame, names), data.standardised(frame, ["y"])[:, 0]
    total = federate(_rows(frame, x, y)).sum(linear.cross_products)
    products = triangle.symmetric(total.products)

    def one(chosen: stepwise.Variables) -> stepwise.Fitted:
        inside = [0, *(1 + k for k, name in enumerate(names) if name in chosen), len(names) + 1]
        fit = linear.solve(int(total.patients), products[np.ix_(inside, inside)], sorted(chosen))
        return stepwise.Fitted(fit.log_likelihood, len(inside) - 1)

    def fits(sets: Sequence[stepwise.Variables]) -> list[stepwise.Fitted | None]:
        return [one(chosen) for chosen in sets]

    found = stepwise.by_aic(fits, names)
    return {"kept": [name in found.variables for name in names], "aic": [step["aic"] for step in found.steps]}


def _summary(found: Any, figures: Sequence[str]) -> dict[str, Any]:
    return {
        f"{figure} {key}": [found[name][figure][key] for name in MODELS]
        for figure in figures
        for key in ("tau2", "estimate", "ci_hartung_knapp", "prediction_interval")
    }


def _between_risks(federate: Federate) -> dict[str, Any]:
    frame, (score, y) = data.breast_cancer(), scores()
    sites = federate(at_sites(Scored, frame, score=score, y=y.astype(float), fold=np.zeros(len(y), np.int64)))
    asked = {"minimum_count": 5, "minimum_sites": 3, "between": "reml"}
    return _summary(heterogeneity.summarise(sites, MODELS, heterogeneity.BINARY, **asked), references.BINARY)


def _between_numbers(federate: Federate) -> dict[str, Any]:
    frame, y, predicted = further.predictions()
    error = predicted - y[:, None]
    x = np.column_stack([y, predicted, error, np.abs(error)])
    sites = federate(at_sites(Matrix, frame, x=x, group=np.zeros(len(y), np.int64)))
    asked = {"minimum_count": 5, "minimum_sites": 3, "between": "reml", "error_sd": list(error.std(0, ddof=1))}
    figures = heterogeneity.CONTINUOUS
    return _summary(heterogeneity.summarise(sites, MODELS, figures, **asked), figures)


def _icc(federate: Federate) -> dict[str, Any]:
    frame, x = data.repeated()
    found = icc.fit(federate(at_sites(Repeated, frame, x=x)), x.mean((0, 2)), x.std((0, 2)))
    return {"icc": found.icc_1_1, "ci": found.ci_1_1}


BREAST, ROOT = "breast_cancer, 4 sites", "scipy root of the restricted score"
ITEMS = (
    Item(name="Rubin's rules for least squares over 5 imputations: estimates, SE, degrees of freedom", data=BREAST,
         ours=_rubin, theirs=references.rubin, reference="statsmodels OLS, Rubin's formulas"),
    Item(name="stepwise linear regression by AIC, both ways: the model, AIC of each step", data="diabetes, 4 sites",
         ours=_stepwise, theirs=references.stepwise, reference="statsmodels OLS, model after model"),
    Item(name="heterogeneity of AUC and calibration between sites by REML: tau2, mean, intervals",
         data="breast_cancer, 4 sites of which 3 have five of each class", ours=_between_risks,
         theirs=references.between_risks, reference=f"DeLong pair by pair, statsmodels GLM, {ROOT}"),
    Item(name="heterogeneity of numbers as outcome between sites by REML: R squared, errors, slope", data=BREAST,
         ours=_between_numbers, theirs=references.between_numbers, reference=f"statsmodels OLS, {ROOT}"),
    Item(name="ICC(1,1) of three measurements with its interval", data="breast_cancer (every sixth), 4 sites",
         ours=_icc, theirs=references.icc, reference="scipy.stats.f_oneway"),
)  # fmt: skip
