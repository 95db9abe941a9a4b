"""References of numbers: statsmodels OLS, scipy's roots and analysis of variance on pooled rows; nothing of ours."""

import data
import numpy as np
import statsmodels.api as sm
from references_binary import _logit_auc, _slope
from references_further import predictions
from references_selection import imputed_designs
from references_validation import scores
from scipy import special, stats
from scipy.optimize import brentq

TEN = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
BINARY = ("auc", "calibration.intercept", "calibration.slope")


def rubin(ours):
    """Rubin's rules over OLS fits, and Barnard and Rubin's degrees of freedom, by their formulas."""
    del ours
    frame, designs = imputed_designs()
    y = data.standardised(frame, ["x20"])[:, 0]
    fits = [sm.OLS(y, sm.add_constant(x)).fit() for x in designs]
    estimates, variances = np.array([f.params for f in fits]), np.array([f.bse**2 for f in fits])
    m, complete = len(fits), len(y) - 4
    between = estimates.var(0, ddof=1) * (1 + 1 / m)
    total = variances.mean(0) + between
    share = between / total
    observed = (complete + 1) / (complete + 3) * complete * (1 - share)
    return {
        "estimates": estimates.mean(0), "se": np.sqrt(total),
        "degrees_of_freedom": 1 / (share**2 / (m - 1) + 1 / observed),
    }  # fmt: skip


def stepwise(ours):
    """One variable in or out at a time while AIC falls, from all ten."""
    del ours
    frame = data.diabetes()
    y, current, aic = data.standardised(frame, ["y"])[:, 0], set(TEN), []

    def fitted(names):
        return sm.OLS(y, sm.add_constant(data.standardised(frame, sorted(names)))).fit().aic

    best = fitted(current)
    while True:
        lowest, name = min((fitted(current ^ {name}), name) for name in TEN)
        if lowest >= best:
            return {"kept": [name in current for name in TEN], "aic": aic}
        best, current = lowest, current ^ {name}
        aic.append(best)


def between_risks(ours):
    """Summaries over sites of AUC (logit, DeLong's error), calibration intercept and slope; five of each class."""
    del ours
    score, y = scores()
    site = data.breast_cancer()["site"].to_numpy()
    able = [site == s for s in np.unique(site) if min(np.bincount(y[site == s], minlength=2)) >= 5]
    makers = dict(zip(BINARY, (_logit_auc, _large, _slope), strict=True))
    found = [{figure: [of(s[i], y[i]) for i in able] for figure, of in makers.items()} for s in score.T]
    return _summaries(found, {"auc": special.expit})


def _large(score, y):
    family = sm.families.Binomial()
    fit = sm.GLM(y, np.ones(len(y)), family=family, offset=special.logit(score)).fit(tol=1e-14)
    return fit.params[0], fit.bse[0] ** 2


def between_numbers(ours):
    """Summaries over sites of figures of predicted numbers; variances of ratios of means by the delta method."""
    del ours
    frame, y, predicted = predictions()
    places = [np.flatnonzero(frame["site"] == s) for s in np.unique(frame["site"])]
    found = []
    for s in predicted.T:
        of_sites = [_of_numbers(y[at], s[at]) for at in places]
        found.append({figure: [of[figure] for of in of_sites] for figure in of_sites[0]})
    return _summaries(found, {"r_squared": lambda value: 1 - np.exp(-np.asarray(value)), "rmse": np.exp})


def _of_numbers(y, s):
    error, spread = (s - y) ** 2, (y - y.mean()) ** 2
    both, by = np.cov([error, spread]) / len(y), np.array([1 / error.mean(), -1 / spread.mean()])
    line = sm.OLS(y, sm.add_constant(s)).fit()
    return {
        "r_squared": (np.log(spread.mean() / error.mean()), by @ both @ by),
        "rmse": (np.log(error.mean()) / 2, both[0, 0] * by[0] ** 2 / 4),
        "mean_difference": ((s - y).mean(), stats.sem(s - y) ** 2),
        "calibration.slope": (line.params[1], line.bse[1] ** 2),
    }


def _summaries(found, backs):
    """By figure and number, of each model."""
    told = {}
    for figure in found[0]:
        back = backs.get(figure, np.asarray)
        records = [_summary(*np.array(of_model[figure]).T) for of_model in found]
        told[f"{figure} tau2"] = [record["tau2"] for record in records]
        for key in ("estimate", "ci_hartung_knapp", "prediction_interval"):
            told[f"{figure} {key}"] = [back(record[key]) for record in records]
    return told


def _summary(b, v):
    """Variance between sites at the root of the restricted score (Viechtbauer 2005), mean, intervals by Student's t."""

    def score(tau2):
        w = 1 / (v + tau2)
        return w**2 @ (b - w @ b / w.sum()) ** 2 - w.sum() + (w**2).sum() / w.sum()

    tau2 = brentq(score, 0, 100, xtol=1e-15, rtol=1e-14) if score(0) > 0 else 0.0
    w, k = 1 / (v + tau2), len(b)
    mean = w @ b / w.sum()
    hartung = stats.t.ppf(0.975, k - 1) * np.sqrt(w @ (b - mean) ** 2 / (k - 1) / w.sum())
    another = stats.t.ppf(0.975, k - 2) * np.sqrt(tau2 + 1 / w.sum())
    return {
        "tau2": tau2, "estimate": mean, "ci_hartung_knapp": mean + hartung * np.array([-1, 1]),
        "prediction_interval": mean + another * np.array([-1, 1]),
    }  # fmt: skip


def icc(ours):
    """One-way analysis of variance of the patients; the interval by quantiles of F (Shrout & Fleiss 1979)."""
    del ours
    _, x = data.repeated()
    n, _, k = x.shape
    found = []
    for feature in x.transpose(1, 0, 2):
        f = stats.f_oneway(*feature).statistic
        low, high = stats.f.ppf(0.975, n - 1, n * (k - 1)), stats.f.ppf(0.975, n * (k - 1), n - 1)
        found.append([(ratio - 1) / (ratio + k - 1) for ratio in (f, f / low, f * high)])
    return {"icc": np.array(found)[:, 0], "ci": np.array(found)[:, 1:]}
