"""Items of fitted models."""

from typing import Any

import data
import numpy as np
import references_models as references
from item import Federate, Item
from scipy import stats

from cohortium.strategies import cox, lasso, logistic
from cohortium.strategies.rows import Labelled, Survival


def labelled_sites(columns: list[str]) -> list[Labelled]:
    """Rows of each site of breast_cancer, standardised; inner folds by place in the site."""
    frame = data.breast_cancer()
    x, y = data.standardised(frame, columns), frame["y"].to_numpy(float)
    at = [np.flatnonzero(frame["site"] == site) for site in sorted(frame["site"].unique())]
    return [Labelled(x=x[i], y=y[i], fold=np.arange(len(i)) % 5) for i in at]


def survival_sites(name: str, columns: list[str]) -> list[Survival]:
    """Rows of each site of a survival cohort, standardised."""
    frame = getattr(data, name)()
    x, time, event = data.standardised(frame, columns), frame["time"].to_numpy(), frame["event"].to_numpy(float)
    at = [np.flatnonzero(frame["site"] == site) for site in sorted(frame["site"].unique())]
    return [Survival(x=x[i], time=time[i], event=event[i]) for i in at]


def _logistic(federate: Federate) -> dict[str, Any]:
    fit = logistic.fit(federate(labelled_sites(references.SEVEN)), 7)
    se = np.sqrt(np.diag(fit.covariance))
    p = 2 * stats.norm.sf(np.abs(fit.coefficients / se))
    return {"coefficients": fit.coefficients, "se": se, "p": p, "log_likelihood": fit.log_likelihood}


def _lasso(federate: Federate) -> dict[str, Any]:
    path = lasso.fit(federate(labelled_sites(references.PATH)), 30, n_lambda=20, folds=5)
    return {"lambdas": path.lambdas, "coefficients": path.coefficients}


def _cox(name: str, columns: list[str], **how: Any) -> Any:
    def ours(federate: Federate) -> dict[str, Any]:
        fit = cox.fit(federate(survival_sites(name, columns)), len(columns), **how)
        return {"coefficients": fit.coefficients, "se": np.sqrt(np.diag(fit.covariance))}

    return ours


def _cox_item(name: str, columns: list[str], sites: str, strata: str) -> Item:
    stratified = strata == "site"
    kind = "stratified by site" if stratified else "one baseline"
    return Item(
        name=f"Cox, Efron's ties, {kind}: coefficients, SE", data=f"{name}, {sites}",
        ours=_cox(name, columns, strata=strata, time_step=None if stratified else 1.0),
        theirs=(references.cox_by_site if stratified else references.cox)(name, columns),
        reference="statsmodels PHReg" if stratified else "lifelines CoxPHFitter",
    )  # fmt: skip


BREAST = "breast_cancer, 4 sites"
ITEMS = (
    Item(name="logistic regression: coefficients, SE, p, log-likelihood", data=BREAST, ours=_logistic,
         theirs=references.logistic, reference="statsmodels Logit"),
    Item(name="logistic LASSO path, 20 penalties, with 5-fold cross-validation beside it", data=BREAST, ours=_lasso,
         theirs=references.lasso, reference="active-set Newton, KKT <= 1e-12", target=1e-7),
    *(_cox_item(*case, strata) for strata in ("site", "none") for case in (
        ("rossi", references.ROSSI, "4 sites"), ("gbsg2", references.GBSG2, "4 sites"),
        ("lung", references.LUNG, "9 institutions"))),
    Item(name="Cox, Efron's ties, one baseline, times cut to 30 days: coefficients, SE", data="gbsg2, 4 sites",
         ours=_cox("gbsg2", references.GBSG2, time_step=30.0), theirs=references.cox("gbsg2", references.GBSG2, 30.0),
         reference="lifelines CoxPHFitter"),
    Item(name="Cox, Breslow's ties, one baseline: coefficients, SE", data="gbsg2, 4 sites",
         ours=_cox("gbsg2", references.GBSG2, ties="breslow"), theirs=references.cox_breslow,
         reference="statsmodels PHReg"),
)  # fmt: skip
