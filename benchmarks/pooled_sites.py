"""Pooled sites: the random-effects summary of the sites' own figures, by statsmodels, for recompute.py."""

import numpy as np
import pooled_binary as binary
import pooled_survival as survival
from scipy import special, stats
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


def logit_scale(value, error):
    """Estimate and variance on the logit scale; None where there is none."""
    if value is None or error is None or not 0 < value < 1:
        return None
    return special.logit(value), (error / (value * (1 - value))) ** 2


def summary(figure, found):
    """Random effects (DerSimonian-Laird) of several sites' (estimate, variance)."""
    back = special.expit if figure in ("auc", "c_index") else np.asarray
    effects, variances = np.array(found).T
    fit, k = combine_effects(effects, variances, method_re="dl"), len(found)
    tau2 = max(fit.tau2, 0.0)
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
