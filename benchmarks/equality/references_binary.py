"""References of further figures of binary models: scikit-learn, statsmodels, scipy and counting; nothing of ours."""

import itertools
import math

import data
import numpy as np
import statsmodels.api as sm
from references_validation import scores
from scipy import special, stats
from sklearn import metrics
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.proportion import proportion_confint

GIVEN = (0.4, 0.35)
LARGE = 14.0  # x00, which makes the two subgroups
FEATURES = ["x01", "x04", "x08"]
BETA = np.array([-0.6, 1.2, 0.7, 0.4])
SHIFT = np.array([0.2, -0.1, 0.5])
REPLICATES = 20


def at_cutoffs(ours):
    """Youden's cut-off, and shares with Wilson's interval, F1 and diagnostic odds at given cut-offs."""
    del ours
    score, y = scores()
    found = {name: [] for name in ("youden", "shares", "wilson", "f1", "odds")}
    for m, cut in enumerate(GIVEN):
        false, true, thresholds = metrics.roc_curve(y, score[:, m])
        found["youden"].append(thresholds[np.argmax(true - false)])
        (tn, fp), (fn, tp) = metrics.confusion_matrix(y, score[:, m] >= cut)
        pairs = ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn), (tp + tn, len(y)))
        found["shares"].append([of / among for of, among in pairs])
        found["wilson"].append([proportion_confint(of, among, method="wilson") for of, among in pairs])
        found["f1"].append(metrics.f1_score(y, score[:, m] >= cut))
        found["odds"].append(tp * tn / (fp * fn))
    return found


def reclassification(ours):
    """NRI with categories and without, with standard errors; IDI with Welch's z."""
    del ours
    score, y = scores()
    high, change = score >= GIVEN, score[:, 0] - score[:, 1]
    found = {}
    for name, move in (("nri", high[:, 0].astype(float) - high[:, 1]), ("nri_continuous", np.sign(change))):
        of_class = [move[y == c] for c in (0, 1)]
        found[name] = of_class[1].mean() - of_class[0].mean()
        found[f"{name}_se"] = np.sqrt(sum(m.var() / len(m) for m in of_class))
    found["idi"] = change[y == 1].mean() - change[y == 0].mean()
    found["idi_z"] = stats.ttest_ind(change[y == 1], change[y == 0], equal_var=False).statistic
    return found


def _spline(x, knots):
    """Restricted cubic spline as Harrell (2015), section 2.4.5, writes it."""
    cube = lambda v: np.maximum(v, 0) ** 3  # noqa: E731
    *_, before, last = knots
    terms = [
        cube(x - k) - cube(x - before) * (last - k) / (last - before) + cube(x - last) * (before - k) / (last - before)
        for k in knots[:-2]
    ]
    columns = np.column_stack([x, *terms])
    return sm.add_constant(columns / columns.std(0))


def calibration(ours):
    """Hosmer-Lemeshow by deciles, ICI, E50, E90 of a spline with four knots, Spiegelhalter's z, log-loss."""
    del ours
    score, y = scores()
    names = ("hosmer_lemeshow", "ici", "e50", "e90", "spiegelhalter", "log_loss", "observed_to_expected")
    found = {name: [] for name in names}
    for s in score.T:
        decile = 10 * np.searchsorted(np.sort(s), s, side="left") // len(s)  # by patients with a lower score
        chi2 = 0.0
        for k in np.unique(decile):
            n, expected, observed = (decile == k).sum(), s[decile == k].sum(), y[decile == k].sum()
            chi2 += (observed - expected) ** 2 / expected + (expected - observed) ** 2 / (n - expected)
        found["hosmer_lemeshow"].append([chi2, stats.chi2.sf(chi2, len(np.unique(decile)))])
        z = special.logit(s)
        design = _spline(z, special.logit(np.quantile(s, [0.05, 0.35, 0.65, 0.95], method="inverted_cdf")))
        curve = sm.Logit(y, design).fit(disp=False, method="newton", tol=1e-14, maxiter=100).predict()
        away = np.abs(curve - s)
        found["ici"].append(away.mean())
        for name, share in (("e50", 0.5), ("e90", 0.9)):
            found[name].append(np.quantile(away, share, method="inverted_cdf"))
        spread = np.sqrt(((1 - 2 * s) ** 2 * s * (1 - s)).sum())
        found["spiegelhalter"].append(((y - s) * (1 - 2 * s)).sum() / spread)
        found["log_loss"].append(metrics.log_loss(y, s))
        found["observed_to_expected"].append(y.sum() / s.sum())
    return found


def updating(ours):
    """Likelihood-ratio tests of no update, of the intercept, of intercept and slope."""
    del ours
    score, y = scores()
    chi2, models = [], []
    for s in score.T:
        z = special.logit(s)
        offset = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=z).fit(tol=1e-14)
        both = sm.Logit(y, sm.add_constant(z)).fit(disp=False, method="newton", tol=1e-14)
        plain = (y * z - np.logaddexp(0, z)).sum()
        chi2.append([2 * (both.llf - plain), 2 * (both.llf - offset.llf), 2 * (offset.llf - plain)])
        models.append(both.params)
    return {"chi2": chi2, "intercept_and_slope": models}


def interactions(ours):
    """Wald tests of the product of slope and subgroup in one logistic model."""
    del ours
    score, y = scores()
    large = (data.breast_cancer()["x00"] >= LARGE).to_numpy(float)
    chi2, difference = [], []
    for s in score.T:
        z = special.logit(s)
        design = np.column_stack([1 - large, large, z, large * z])
        fit = sm.Logit(y, design).fit(disp=False, method="newton", tol=1e-14)
        chi2.append(fit.tvalues[3] ** 2)
        difference.append(fit.params[3])
    return {"chi2": chi2, "difference": difference}


def heterogeneity(ours):
    """DerSimonian and Laird over the sites' own AUC (logit, DeLong's error) and slopes; five of each class a site."""
    del ours
    score, y = scores()
    site = data.breast_cancer()["site"].to_numpy()
    able = [site == s for s in np.unique(site) if min(np.bincount(y[site == s], minlength=2)) >= 5]
    found = {name: [] for name in ("auc", "auc_tau2", "auc_q", "slope", "slope_tau2", "slope_q")}
    for s in score.T:
        figures = {"auc": [_logit_auc(s[i], y[i]) for i in able], "slope": [_slope(s[i], y[i]) for i in able]}
        for name, pairs in figures.items():
            effects, variances = np.array(pairs).T
            with np.errstate(invalid="ignore"):
                pooled = combine_effects(effects, variances, method_re="dl")
            mean = pooled.mean_effect_re if pooled.tau2 > 0 else pooled.mean_effect_fe
            found[name].append(special.expit(mean) if name == "auc" else mean)
            found[f"{name}_tau2"].append(max(pooled.tau2, 0.0))
            found[f"{name}_q"].append(pooled.q)
    return found


def _logit_auc(score, y):
    cases, controls = score[y == 1], score[y == 0]
    above = (cases[:, None] > controls) + 0.5 * (cases[:, None] == controls)
    area = above.mean()
    variance = above.mean(1).var(ddof=1) / len(cases) + above.mean(0).var(ddof=1) / len(controls)
    return special.logit(area), variance / (area * (1 - area)) ** 2


def _slope(score, y):
    fit = sm.Logit(y, sm.add_constant(special.logit(score))).fit(disp=False, method="newton", tol=1e-14)
    return fit.params[1], fit.bse[1] ** 2


def replicates(ours):
    """AUC and average precision of bootstrap replicates: patients weighted by how often they were drawn."""
    cells = np.arange(ours["drawn"].shape[-1])
    score, y = np.tile(cells, 2), np.repeat([0, 1], len(cells))
    weights = [drawn.reshape(-1) for drawn in ours["drawn"]]
    return {
        "auc": [metrics.roc_auc_score(y, score, sample_weight=w) for w in weights],
        "average_precision": [metrics.average_precision_score(y, score, sample_weight=w) for w in weights],
    }


def shap(ours):
    """Mean |Shapley value| of a linear predictor by the definition: all coalitions, absent columns at their mean."""
    del ours
    x = data.standardised(data.breast_cancer(), FEATURES) + SHIFT
    mean, p, beta = x.mean(0), 3, BETA[1:]
    values = np.zeros_like(x)
    worth = {s: np.where(np.isin(np.arange(p), s), x, mean) @ beta for k in range(4) for s in _sets(range(p), k)}
    for j in range(p):
        for k in range(p):
            for s in _sets([i for i in range(p) if i != j], k):
                weight = math.factorial(k) * math.factorial(p - k - 1) / math.factorial(p)
                values[:, j] += weight * (worth[tuple(sorted((*s, j)))] - worth[s])
    return {"mean_absolute": np.abs(values).mean(0)}


def _sets(of, size):
    return itertools.combinations(of, size)


def permutation(ours):
    """Fall of the AUC over every pair of a patient and a value of the public marginal, column by column."""
    frame = data.breast_cancer()
    x, y = data.standardised(frame, FEATURES), frame["y"].to_numpy()
    rounded = lambda z: np.rint(special.expit(z) * 1e4) / 1e4  # noqa: E731
    whole = metrics.roc_auc_score(y, rounded(BETA[0] + x @ BETA[1:]))
    falls = []
    for j, values in enumerate(ours["marginal"]):
        rest = BETA[0] + np.delete(x, j, 1) @ np.delete(BETA[1:], j)
        drawn = np.concatenate([rounded(rest + BETA[1 + j] * v) for v in values])
        falls.append(whole - metrics.roc_auc_score(np.tile(y, len(values)), drawn))
    return {"auc": whole, "falls": falls}
