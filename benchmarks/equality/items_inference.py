"""Items of logistic and Cox inference."""

from collections.abc import Sequence
from typing import Any

import data
import numpy as np
import references_inference as references
from federations import Part, at_sites
from item import Federate, Item

from cohortium.common.errors import NotIdentifiable
from cohortium.strategies import (
    cox,
    firth,
    firth_cox,
    likelihood,
    logistic,
    meta_analysis,
    proportional_hazards,
    site_effects,
    stepwise,
)
from cohortium.strategies.rows import Labelled, Survival


def _labelled(frame: Any, x: np.ndarray) -> list[Labelled]:
    return at_sites(Labelled, frame, x=x, y=frame["y"].to_numpy(float), fold=np.zeros(len(frame), np.int64))


def _breast(columns: Sequence[str]) -> list[Labelled]:
    frame = data.breast_cancer()
    return _labelled(frame, data.standardised(frame, list(columns)))


def _survival(frame: Any, x: np.ndarray) -> list[Survival]:
    return at_sites(Survival, frame, x=x, time=frame["time"].to_numpy(), event=frame["event"].to_numpy(float))


def _rossi() -> list[Survival]:
    return _survival(data.rossi(), data.standardised(data.rossi(), references.ROSSI))


def _criteria(federate: Federate) -> dict[str, Any]:
    fit = logistic.fit(federate(_breast(references.FOUR)), 4)
    inflation = likelihood.variance_inflation(likelihood.correlation_of(fit.gram), {str(k): [k] for k in range(4)})
    test = fit.likelihood_ratio
    return {"chi2": test.chi2, "p": test.p, "aic": fit.aic, "bic": fit.bic, "vif": list(inflation.values())}


def _stepwise(federate: Federate) -> dict[str, Any]:
    sites = federate(_breast(references.SEVEN))

    def one(names: stepwise.Variables) -> stepwise.Fitted | None:
        columns = [k for k, name in enumerate(references.SEVEN) if name in names]
        try:
            fit = logistic.fit(Part(sites, columns), len(columns))
        except NotIdentifiable:
            return None
        return stepwise.Fitted(fit.log_likelihood, len(columns) + 1)

    def fits(sets: Sequence[stepwise.Variables]) -> list[stepwise.Fitted | None]:
        return sites.together([lambda names=names: one(names) for names in sets])

    chosen = stepwise.by_aic(fits, references.SEVEN)
    return {"kept": [name in chosen.variables for name in references.SEVEN], "aic": chosen.steps[-1]["aic"]}


def _firth(federate: Federate) -> dict[str, Any]:
    frame, x = references.separated()
    fit = firth.fit(federate(_labelled(frame, x)), x.shape[1])
    return {
        "coefficients": fit.coefficients, "se": fit.standard_errors,
        "penalised_log_likelihood": fit.penalised_log_likelihood,
    }  # fmt: skip


def _firth_cox(federate: Federate) -> dict[str, Any]:
    frame, x = references.marked()
    fit = firth_cox.fit(federate(_survival(frame, x)), x.shape[1])
    return {"coefficients": fit.coefficients, "penalised_log_likelihood": fit.log_likelihood}


def _fixed(federate: Federate) -> dict[str, Any]:
    fit = site_effects.fit_fixed(federate(_breast(references.FOUR)), 4)
    return {"coefficients": fit.coefficients, "se": fit.standard_errors, "log_likelihood": fit.log_likelihood}


def _random(federate: Federate) -> dict[str, Any]:
    fit = site_effects.fit_random(federate(_breast(references.FOUR)), 4)
    return {"coefficients": fit.coefficients, "sd": fit.sd, "log_likelihood": fit.log_likelihood}


def _meta(federate: Federate) -> dict[str, Any]:
    fit = meta_analysis.fit(federate(_breast(references.FOUR[:3])), 3)
    names = ("q", "tau2", "i2", "common", "coefficients")
    return {name: getattr(fit, name) for name in names} | {"se": fit.standard_errors}


def _hazards(federate: Federate) -> dict[str, Any]:
    sites = federate(_rossi())
    test = proportional_hazards.examine(
        sites, cox.fit(sites, 7), transform="identity", ties="efron", time_step=1.0, scale=26.0
    )
    return {"chi2": test.chi2, "p": test.p}


def _cox(federate: Federate) -> dict[str, Any]:
    fit = cox.fit(federate(_rossi()), 7)
    test = fit.likelihood_ratio
    return {"chi2": test.chi2, "p": test.p, "aic": fit.aic, "score": fit.score.chi2}


BREAST, ROSSI = "breast_cancer, 4 sites", "rossi, 4 sites"
ITEMS = (
    Item(name="logistic regression: likelihood-ratio test, AIC, BIC, VIF", data=BREAST, ours=_criteria,
         theirs=references.criteria, reference="statsmodels Logit, variance_inflation_factor"),
    Item(name="stepwise logistic regression by AIC, both ways: the model, its AIC", data=BREAST, ours=_stepwise,
         theirs=references.stepwise, reference="statsmodels Logit, model after model"),
    Item(name="Firth's logistic regression where the likelihood has no maximum", data=BREAST, ours=_firth,
         theirs=references.firth, reference="Newton steps on Firth's modified score"),
    Item(name="Firth's Cox model where the likelihood has no maximum", data="rossi (every third), 4 sites",
         ours=_firth_cox, theirs=references.firth_cox, reference="scipy root of the penalised score"),
    Item(name="logistic regression, sites as fixed effects", data=BREAST, ours=_fixed, theirs=references.dummies,
         reference="statsmodels Logit with dummies"),
    Item(name="logistic regression, random intercept of sites", data=BREAST, ours=_random,
         theirs=references.random_intercept, reference="scipy root of the marginal score, trapezoid rule"),
    Item(name="meta-analysis of local logistic fits: Q, I2, tau2, common and random effects",
         data="breast_cancer, 4 sites of which 3 can fit", ours=_meta, theirs=references.meta_analysis,
         reference="statsmodels Logit, combine_effects"),
    Item(name="test of proportional hazards", data=ROSSI, ours=_hazards, theirs=references.hazards_test,
         reference="lifelines proportional_hazard_test"),
    Item(name="Cox: likelihood-ratio and score test, AIC", data=ROSSI, ours=_cox, theirs=references.cox_tests,
         reference="lifelines CoxPHFitter, statsmodels PHReg"),
)  # fmt: skip
