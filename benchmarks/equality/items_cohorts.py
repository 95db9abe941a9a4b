"""Items on the reference cohorts: real hospitals and regions, real gaps; left out where the data is absent."""

from typing import Any

import data
import numpy as np
import references_cohorts as references
from federations import at_sites
from item import Federate, Item

from cohortium.strategies import cox, logistic, screening, table_one, validation
from cohortium.strategies.rows import Labelled, Matrix, Scored, ScoredSurvival, Survival
from cohortium.strategies.validation_settings import Settings
from cohortium.strategies.validation_survival import validate_survival

EXACT = Settings(score_resolution="exact")
BINNED = Settings()


def _table_one(federate: Federate) -> dict[str, Any]:
    frame = data.uci_heart()
    group = frame["y"].to_numpy(np.int64)
    sites = federate(at_sites(Matrix, frame, x=frame[references.NUMBERS].to_numpy(), group=group))
    found = table_one.continuous(sites, len(references.NUMBERS))
    pain = federate(at_sites(Matrix, frame, x=frame[["cp"]].to_numpy() - 1, group=group))
    test = table_one.independence(table_one.categorical(pain, 4).counts[:, 0])
    return {
        "n": [of.n for of in found.moments], "mean": [of.mean for of in found.moments],
        "sd": [of.sd for of in found.moments], "quartiles": np.moveaxis(found.quartiles, -1, 0),
        "p": screening.compare(*found.moments).p, "chi2_p": test[1],
    }  # fmt: skip


def _logistic(federate: Federate) -> dict[str, Any]:
    frame, x, _ = references.heart()
    y, fold = frame["y"].to_numpy(float), np.zeros(len(frame), np.int64)
    fit = logistic.fit(federate(at_sites(Labelled, frame, x=x, y=y, fold=fold)), x.shape[1])
    return {"coefficients": fit.coefficients, "se": fit.standard_errors, "log_likelihood": fit.log_likelihood}


def _auc(settings: Settings) -> Any:
    def ours(federate: Federate) -> dict[str, Any]:
        frame, _, risk = references.heart()
        y, fold = frame["y"].to_numpy(float), np.zeros(len(frame), np.int64)
        sites = federate(at_sites(Scored, frame, score=risk[:, None], y=y, fold=fold))
        found = validation.validate_binary(sites, ["a"], settings)["a"]["auc"]
        return {"auc": found["estimate"], "bound": found["bound"]}

    return ours


def _within_bound(ours: Any) -> dict[str, Any]:
    exact = references.auc(ours)["auc"]
    return {"auc": ours["auc"] if abs(ours["auc"] - exact) <= ours["bound"] else np.inf}


def _brca() -> dict[str, np.ndarray]:
    frame = data.tcga_brca()
    return {"time": frame["time"].to_numpy(), "event": frame["event"].to_numpy(float)}


def _cox(strata: Any, time_step: float | None) -> Any:
    def ours(federate: Federate) -> dict[str, Any]:
        frame = data.tcga_brca()
        sites = federate(at_sites(Survival, frame, x=data.standardised(frame, references.BRCA), **_brca()))
        fit = cox.fit(sites, len(references.BRCA), strata=strata, time_step=time_step)
        return {"coefficients": fit.coefficients, "se": fit.standard_errors}

    return ours


def _concordance(federate: Federate) -> dict[str, Any]:
    sites = at_sites(ScoredSurvival, data.tcga_brca(), score=references.score()[:, None], **_brca())
    return {"c": validate_survival(federate(sites), ["a"], EXACT)["a"]["c_index"]["estimate"]}


HEART, BRCA = "uci_heart, 4 hospitals", "tcga_brca, 7 regions"
ITEMS = (
    Item(name="Table 1 of columns with gaps: n, mean, SD, quartiles, t-test, chi-squared", data=HEART, ours=_table_one,
         theirs=references.table_one, reference="pandas, scipy; an order statistic is kept to 32 bits, hence 6e-7",
         target=6e-7, absent=data.without_reference),
    Item(name="logistic regression, gaps filled with the median", data=HEART, ours=_logistic,
         theirs=references.logistic, reference="scikit-learn SimpleImputer, statsmodels Logit",
         absent=data.without_reference),
    Item(name="AUC, exact scores", data=HEART, ours=_auc(EXACT), theirs=references.auc, reference="scikit-learn",
         absent=data.without_reference),
    Item(name="AUC of binned scores, inside its certified bound", data=HEART, ours=_auc(BINNED), theirs=_within_bound,
         reference="scikit-learn", target=0.0, absent=data.without_reference),
    Item(name="Cox, Efron's ties, one baseline: coefficients, SE", data=BRCA, ours=_cox("none", 1.0),
         theirs=references.cox, reference="lifelines CoxPHFitter", absent=data.without_reference),
    Item(name="Cox, Efron's ties, stratified by site: coefficients, SE", data=BRCA, ours=_cox("site", None),
         theirs=references.cox_by_region, reference="statsmodels PHReg", absent=data.without_reference),
    Item(name="Harrell's C, exact scores and days", data=BRCA, ours=_concordance, theirs=references.concordance,
         reference="lifelines concordance_index", absent=data.without_reference),
)  # fmt: skip
