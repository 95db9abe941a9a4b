"""Pooled sites: the random-effects summary of the sites' own figures, by statsmodels, for recompute.py."""

import numpy as np
import pooled_binary as binary
import pooled_survival as survival
import statsmodels.api as sm
from scipy import optimize, special, stats
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.stats.meta_analysis import combine_effects


def of_binary(y, score, minimum):
    """One site's (estimate, variance) by figure; empty where a site has too few of a class."""
    if min(y.sum(), len(y) - y.sum()) < minimum:
        return {}
    found = {"auc": logit_scale(*binary.auc(y, binary.on_grid(score)))}
    fits = binary.recalibration(y, score)
    for name in ("intercept", "slope"):
        low, high = fits[f"{name}_ci"]
        found[f"calibration.{name}"] = fits[name], ((high - low) / 2 / stats.norm.ppf(0.975)) ** 2
    return found


def of_survival(time, event, score, minimum):
    """The same of a survival model."""
    if event.sum() < minimum:
        return {}
    fit = PHReg(np.asarray(time, float), score[:, None], event, ties="efron").fit(disp=0)
    index = logit_scale(*survival.c_index(time, event, binary.on_grid(score)))
    return {"c_index": index, "calibration_slope": (fit.params[0], fit.bse[0] ** 2)}


def of_numbers(y, predicted, minimum):
    """The same of a model that predicts a number; R2 and error on their logarithmic scales, by the delta method."""
    if len(y) < max(minimum, 4):
        return {}
    error, n = predicted - y, len(y)
    squares, spread = error**2, (y - y.mean()) ** 2
    both = np.cov([squares, spread]) / n
    by = np.array([1 / squares.mean(), -1 / spread.mean()])
    line = sm.OLS(y, sm.add_constant(predicted)).fit()
    return {
        "r_squared": (-np.log(squares.mean() / spread.mean()), by @ both @ by),
        "rmse": (np.log(squares.mean()) / 2, both[0, 0] * by[0] ** 2 / 4),
        "mean_difference": (error.mean(), stats.sem(error) ** 2),
        "calibration.slope": (line.params[1], line.bse[1] ** 2),
    }


def logit_scale(value, error):
    """Estimate and variance on the logit scale; None where there is none."""
    if value is None or error is None or not 0 < value < 1:
        return None
    return special.logit(value), (error / (value * (1 - value))) ** 2


BACK = {"auc": special.expit, "c_index": special.expit, "rmse": np.exp, "r_squared": lambda x: -np.expm1(-x)}


def restricted(effects, variances):
    """Variance between sites by REML: the largest root of the restricted score, or zero."""

    def score(tau2):
        w = 1 / (variances + tau2)
        mean = w @ effects / w.sum()
        return w**2 @ (effects - mean) ** 2 - w.sum() + (w**2).sum() / w.sum()

    grid = np.concatenate([[0.0], np.geomspace(1e-6 * variances.min(), 100 * (variances.max() + effects.var()), 300)])
    falls = [i for i in range(len(grid) - 1) if score(grid[i]) > 0 >= score(grid[i + 1])]
    return optimize.brentq(score, grid[falls[-1]], grid[falls[-1] + 1], xtol=1e-16, rtol=1e-14) if falls else 0.0


def summary(figure, found, method="DerSimonian-Laird"):
    """Random effects of several sites' (estimate, variance)."""
    back = BACK.get(figure, np.asarray)
    effects, variances = np.array(found).T
    fit, k = combine_effects(effects, variances, method_re="dl"), len(found)
    tau2 = restricted(effects, variances) if method == "REML" else max(fit.tau2, 0.0)
    weight = 1 / (variances + tau2)
    mean, error = (weight @ effects) / weight.sum(), weight.sum() ** -0.5
    normal, wide = stats.norm.ppf(0.975) * error, stats.t.ppf(0.975, k - 2) * np.sqrt(tau2 + error**2)
    return {
        "estimate": float(back(mean)),
        "ci": back(mean + normal * np.array([-1, 1])).tolist(),
        "prediction_interval": back(mean + wide * np.array([-1, 1])).tolist(),
        "tau2": tau2,
        "i2": max(fit.i2, 0.0),
        "q": fit.q,
        "p": fit.test_homogeneity().pvalue,
        "sites": k,
    }
