"""References on the reference cohorts uci_heart and tcga_brca: pandas, scikit-learn, statsmodels, lifelines, scipy."""

import data
import numpy as np
import pandas as pd
import statsmodels.api as sm
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from scipy import stats
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from statsmodels.duration.hazard_regression import PHReg

NUMBERS = ["age", "trestbps", "chol", "thalach", "oldpeak"]
HEART = ["age", "sex", "pain", "thalach", "oldpeak"]
BRCA = ["age", "T2", "T3", "IIIA"]


def table_one(ours):
    """Known values, mean, SD, quartiles by outcome with Student's p, of columns with gaps; chi-squared of the pain."""
    del ours
    frame = data.uci_heart()
    groups = frame.groupby("y")[NUMBERS]
    known = [[frame.loc[frame.y == y, name].dropna() for y in (0, 1)] for name in NUMBERS]
    return {
        "n": groups.count().to_numpy(), "mean": groups.mean().to_numpy(), "sd": groups.std(ddof=1).to_numpy(),
        "quartiles": np.stack([groups.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75)]),
        "p": [stats.ttest_ind(*pair).pvalue for pair in known],
        "chi2_p": stats.chi2_contingency(pd.crosstab(frame["y"], frame["cp"]), correction=False).pvalue,
    }  # fmt: skip


def heart():
    """Five columns, gaps filled with the median of all, standardised; a risk on the grid of 1e-4 of no fit."""
    frame = data.uci_heart()
    x = SimpleImputer(strategy="median").fit_transform(frame[HEART])
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    risk = np.rint(1e4 / (1 + np.exp(-x @ [0.4, 0.6, 1.0, -0.5, 0.6]))) / 1e4
    return frame, x, risk


def logistic(ours):
    """Maximum likelihood on the filled columns."""
    del ours
    frame, x, _ = heart()
    fit = sm.Logit(frame["y"], sm.add_constant(x)).fit(method="newton", tol=1e-14, disp=False)
    return {"coefficients": fit.params, "se": fit.bse, "log_likelihood": fit.llf}


def auc(ours):
    """Area under the curve of a given risk."""
    del ours
    frame, _, risk = heart()
    return {"auc": roc_auc_score(frame["y"], risk)}


def cox(ours):
    """One baseline for all regions: Efron's ties on days."""
    del ours
    frame = data.tcga_brca()
    x = pd.DataFrame(data.standardised(frame, BRCA), columns=BRCA).assign(time=frame["time"], event=frame["event"])
    options = {"precision": 1e-14, "r_precision": 1e-16, "max_steps": 200}
    fit = CoxPHFitter().fit(x, "time", "event", fit_options=options)
    return {"coefficients": fit.params_.to_numpy(), "se": fit.standard_errors_.to_numpy()}


def cox_by_region(ours):
    """A baseline for each region."""
    del ours
    frame = data.tcga_brca()
    model = PHReg(
        frame["time"], data.standardised(frame, BRCA), status=frame["event"], strata=frame["site"], ties="efron"
    )
    fit = model.fit(method="newton", tol=1e-14, disp=False)
    return {"coefficients": fit.params, "se": fit.bse}


def score():
    """A log relative hazard of no fit, on the grid of 1e-4."""
    return np.rint(data.standardised(data.tcga_brca(), BRCA) @ [0.7, 0.1, 0.1, 0.4] * 1e4) / 1e4


def concordance(ours):
    """Harrell's C of it."""
    del ours
    frame = data.tcga_brca()
    return {"c": concordance_index(frame["time"], -score(), frame["event"])}
