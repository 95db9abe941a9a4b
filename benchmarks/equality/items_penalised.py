"""Items of linear and penalised models and of the published baseline that averages local fits."""

from typing import Any

import data
import numpy as np
import references_penalised as references
from federations import at_sites
from item import Federate, Item

from cohortium.strategies import lasso, lasso_cox, linear, local_fits
from cohortium.strategies.rows import FoldedSurvival, Labelled

PATH = {"n_lambda": 12, "folds": references.FOLDS}


def _labelled(columns: list[str], outcome: str = "y") -> list[Labelled]:
    frame = data.breast_cancer()
    y = frame["y"].to_numpy(float) if outcome == "y" else data.standardised(frame, [outcome])[:, 0]
    return at_sites(Labelled, frame, x=data.standardised(frame, columns), y=y, fold=references.folds(frame))


def _cross_validated(mixing: float) -> Any:
    def ours(federate: Federate) -> dict[str, Any]:
        path = lasso.fit(federate(_labelled(references.EIGHT)), 8, mixing=mixing, **PATH)
        kept = ("lambdas", "coefficients", "cv_deviance", "cv_se", "index_min", "index_1se")
        return {name: getattr(path, name) for name in kept}

    return ours


def _linear(federate: Federate) -> dict[str, Any]:
    sites = federate(_labelled(references.EIGHT, "x20"))
    path = lasso.fit(sites, 8, family="linear", mixing=references.MIXING, **PATH)
    plain = lasso.fit(sites, 8, family="linear", penalty_weights=np.zeros(8), **PATH)
    return {"lambdas": path.lambdas, "coefficients": path.coefficients, "least_squares": plain.chosen}


def _least_squares(federate: Federate) -> dict[str, Any]:
    fit = linear.fit(federate(_labelled(references.EIGHT, "x20")), 8)
    return {
        "coefficients": fit.coefficients, "se": fit.standard_errors, "p": fit.p_values, "r_squared": fit.r_squared,
        "adjusted": fit.adjusted_r_squared, "f": fit.f_test["f"],
    }  # fmt: skip


def _cox(federate: Federate) -> dict[str, Any]:
    frame = data.gbsg2()
    sites = at_sites(
        FoldedSurvival, frame, x=data.standardised(frame, references.GBSG2), time=frame["time"].to_numpy(),
        event=frame["event"].to_numpy(), fold=references.folds(frame),
    )  # fmt: skip
    path = lasso_cox.fit(federate(sites), 8, **PATH)
    return {"lambdas": path.lambdas, "coefficients": path.coefficients[:, 1:]}


def _average(federate: Federate) -> dict[str, Any]:
    found = local_fits.fit(federate(_labelled(references.THREE)), kind="logistic", minimum_sites=3)
    return {"coefficients": found.coefficients}


def _average_lasso(federate: Federate) -> dict[str, Any]:
    sites = federate(_labelled(references.EIGHT))
    settings = {**PATH, "rule": "min", "mixing": 1.0}
    exact = lasso.fit(sites, 8, **settings)
    average = local_fits.fit(sites, kind="lasso", minimum_sites=3, settings=settings)
    return {"coefficients": average.coefficients, "penalty": exact.lambdas[exact.index]}


BREAST = "breast_cancer, 4 sites"
DESCENT = "scikit-learn ElasticNet inside Newton steps, KKT <= 1e-11"
NOT_EQUAL = "; another estimator than the pooled one, here to show how far it lies"
ITEMS = (
    Item(name="logistic LASSO, 5-fold cross-validation: path, deviance, lambda.min, lambda.1se", data=BREAST,
         ours=_cross_validated(1.0), theirs=references.cross_validated(1.0), reference=DESCENT, target=1e-7),
    Item(name="logistic elastic net, 5-fold cross-validation: path, deviance, chosen penalties", data=BREAST,
         ours=_cross_validated(references.MIXING), theirs=references.cross_validated(references.MIXING),
         reference=DESCENT, target=1e-7),
    Item(name="linear regression: coefficients, SE, p, R squared, F", data=BREAST, ours=_least_squares,
         theirs=references.least_squares, reference="statsmodels OLS"),
    Item(name="linear elastic net path, and least squares", data=BREAST, ours=_linear, theirs=references.linear_net,
         reference="scikit-learn ElasticNet, KKT <= 1e-11; statsmodels OLS", target=1e-7),
    Item(name="Cox LASSO path, stratified by site", data="gbsg2, 4 sites", ours=_cox, theirs=references.cox,
         reference="scikit-learn ElasticNet in Newton steps on statsmodels PHReg", target=1e-7),
    Item(name="FedAvg of local logistic fits (baseline)", data=BREAST, ours=_average, theirs=references.local_average,
         reference="statsmodels Logit at each site, averaged"),
    Item(name="FedAvg of local logistic fits, NOT equal: its distance from the pooled fit", data=BREAST,
         ours=_average, theirs=references.exact, reference=f"statsmodels Logit{NOT_EQUAL}"),
    Item(name="FedAvg of local LASSO fits, NOT equal: its distance from the pooled LASSO", data=BREAST,
         ours=_average_lasso, theirs=references.exact_lasso, reference=DESCENT + NOT_EQUAL, target=1e-7),
)  # fmt: skip
