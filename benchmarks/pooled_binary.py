"""Pooled binary figures: what other software makes of scores and outcomes on one pile, for `recompute`.

Written apart from the package and importing nothing of it: scikit-learn, statsmodels and plain numpy. A figure that
does not exist is None.
"""

import warnings

import numpy as np
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from statsmodels.stats.proportion import proportion_confint
from statsmodels.tools.sm_exceptions import PerfectSeparationError

GRID = 10_000
Z = stats.norm.ppf(0.975)


def on_grid(score):
    """Scores as whole steps of 1e-4."""
    return np.rint(np.asarray(score, float) * GRID).astype(int)


def placements(y, score):
    """DeLong's structural components from all pairs: of the patients with the outcome, and of those without."""
    cases, controls = score[y == 1], score[y == 0]
    won = (cases[:, None] > controls) + 0.5 * (cases[:, None] == controls)
    return won.mean(1), won.mean(0)


def auc(y, score):
    """AUC, its DeLong standard error (None below two patients a class)."""
    if len(set(y)) < 2:
        return None, None
    v10, v01 = placements(y, score)
    area = v10.mean()
    assert abs(area - roc_auc_score(y, score)) < 1e-12, "own pairs and scikit-learn disagree"
    if min(len(v10), len(v01)) < 2:
        return area, None
    return area, np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))


def interval(area, error):
    """Normal interval of an AUC, clipped to 0..1."""
    return [max(0.0, area - Z * error), min(1.0, area + Z * error)]


def interval_slack(y, score, bins):
    """How far binning may move an end of the interval: the moved AUC, and the moved standard error.

    A standard error is a norm of the centred placements, so it moves by at most the norm of their movements.
    """
    moved = [b - a for a, b in zip(placements(y, score), placements(y, bins), strict=True)]
    return abs(moved[0].mean()) + Z * np.sqrt(sum((m**2).sum() / (len(m) - 1) / len(m) for m in moved))


def delong(y, a, b):
    """Difference of two AUCs with interval, z and p; None where the difference has no variance."""
    (a10, a01), (b10, b01) = placements(y, a), placements(y, b)
    d10, d01 = a10 - b10, a01 - b01
    error = np.sqrt(d10.var(ddof=1) / len(d10) + d01.var(ddof=1) / len(d01))
    difference = a10.mean() - b10.mean()
    if error < 1e-7:
        return {"difference": difference}
    z = difference / error
    ci = [difference - Z * error, difference + Z * error]
    return {"difference": difference, "ci": ci, "z": z, "p": 2 * stats.norm.sf(abs(z))}


def bins_of(y, score, roc):
    """Bin number of each patient, from the published ROC points: each says how many patients lie in the bins above.

    Returns the bins and the largest distance of a published point from the ROC curve of the patients themselves.
    """
    called = np.rint(np.asarray(roc) * [(y == 0).sum(), (y == 1).sum()]).astype(int)
    grid = on_grid(score)
    above = np.sort(grid)[::-1][called.sum(1)[1:] - 1]  # lowest score of each bin, highest bin first
    off = max(
        abs(np.mean(grid[y == k] >= low) - point[k])
        for low, point in zip(above, np.asarray(roc)[1:], strict=True)
        for k in (0, 1)
    )
    return np.searchsorted(np.sort(above), grid, side="right"), off


def doubt(y, grid, bins):
    """Half the share of case-control pairs in one bin of several scores: the largest error of a binned AUC."""
    n = 0
    for b in set(bins):
        inside = bins == b
        if len(set(grid[inside])) > 1:
            n += (y[inside] == 1).sum() * (y[inside] == 0).sum()
    return n / (y == 1).sum() / (y == 0).sum() / 2


def curves(y, bins):
    """ROC and precision-recall points of every bin, highest first, and average precision."""
    fpr, tpr, _ = roc_curve(y, bins, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(y, bins)
    # scikit-learn ends with the made-up point (recall 0, precision 1)
    points = np.column_stack([recall, precision])[:-1][::-1]
    return np.column_stack([fpr, tpr]), points, average_precision_score(y, bins)


def youden(y, bins):
    """Which patients the cut-off with the largest sensitivity + specificity calls; of equals the highest cut-off."""
    best, called = -np.inf, None
    for b in sorted(set(bins), reverse=True):
        high = bins >= b
        index = high[y == 1].mean() - high[y == 0].mean()
        if index > best + 1e-12:
            best, called = index, high
    return called


def logit(score):
    """Log-odds; 0 and 1 count as 1e-4 and 1 - 1e-4."""
    p = np.clip(score, 1 / GRID, 1 - 1 / GRID)
    return np.log(p / (1 - p))


def glm(y, x, offset=None):
    """Logistic regression by statsmodels; None where it has no finite maximum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # the deviance stops changing before its tolerance is met: what counts is the gradient at the end
            fit = sm.GLM(y, x, family=sm.families.Binomial(), offset=offset).fit(tol=1e-15, maxiter=30)
        except (np.linalg.LinAlgError, PerfectSeparationError):
            return None
    solved = np.abs(x.T @ (y - fit.fittedvalues)).max() < 1e-9 * len(y) * np.abs(x).max()
    return fit if solved and np.abs(fit.params).max() < 1e4 else None


def recalibration(y, score):
    """Calibration intercept (slope fixed at 1) and slope with their Wald intervals."""
    logits, ones = logit(score), np.ones((len(y), 1))
    at_large, slope = glm(y, ones, offset=logits), glm(y, np.column_stack([ones, logits]))
    found = {}
    for name, fit, at in (("intercept", at_large, 0), ("slope", slope, 1)):
        if fit is not None:
            # statsmodels takes its standard errors from the step before the last
            x, p = fit.model.exog, fit.fittedvalues
            half = Z * np.sqrt(np.linalg.inv(x.T @ (x * (p * (1 - p))[:, None]))[at, at])
            found |= {name: fit.params[at], f"{name}_ci": [fit.params[at] - half, fit.params[at] + half]}
    return found


def ici(y, score, knots):
    """Mean distance of a spline recalibration (restricted cubic, knots in logits) from the score."""
    logits = logit(score)
    columns = [np.ones(len(y)), logits]
    if len(set(knots)) == 4:
        a, b, c, d = knots
        cube = lambda k: np.maximum(logits - k, 0) ** 3 / (d - a) ** 2  # noqa: E731
        columns += [cube(k) - cube(c) * (d - k) / (d - c) + cube(d) * (c - k) / (d - c) for k in (a, b)]
    fit = glm(y, np.column_stack(columns))
    return None if fit is None else np.abs(fit.fittedvalues - score).mean()


def knots(score, bins, quantiles=(0.05, 0.35, 0.65, 0.95)):
    """Logits of the mean scores of the bins that hold the quantiles of the score."""
    order = np.sort(bins)
    own = [order[int(np.ceil(q * len(bins) - 1e-9)) - 1] for q in quantiles]
    return [logit(score[bins == b].mean()) for b in own]


def groups(y, score, bins, minimum, wanted=10):
    """Whole bins in about ten groups of equal size: mean score, share with the outcome, patients."""
    rows, lower = {}, 0
    for b in sorted(set(bins)):
        inside = bins == b
        rows.setdefault(wanted * lower // len(y), []).append(inside)
        lower += inside.sum()
    merged = []
    for _, masks in sorted(rows.items()):
        mask = np.any(masks, axis=0)
        if merged and (mask.sum() < minimum or merged[-1].sum() < minimum):
            merged[-1] = merged[-1] | mask
        else:
            merged.append(mask)
    return [[score[m].mean(), y[m].mean(), m.sum()] for m in merged]


def hosmer_lemeshow(curve, parameters):
    """Chi-squared, degrees of freedom and p from a calibration curve; None where it does not exist."""
    curve = np.asarray(curve, float)
    predicted, observed, n = curve.T
    df = len(curve) - parameters
    if df < 1 or not ((predicted > 0) & (predicted < 1)).all():
        return None
    chi2 = ((observed - predicted) ** 2 * n / (predicted * (1 - predicted))).sum()
    return {"chi2": chi2, "df": df, "p": stats.chi2.sf(chi2, df)}


def confusion(y, score, cutoff):
    """Counts at a cut-off, and their shares with Wilson intervals (None where there is nobody to divide by)."""
    high = on_grid(score) >= round(cutoff * GRID)
    tp, fp = (high & (y == 1)).sum(), (high & (y == 0)).sum()
    fn, tn = (y == 1).sum() - tp, (y == 0).sum() - fp
    shares = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}
    shares["accuracy"] = (tp + tn, len(y))
    found = {}
    for name, (of, among) in shares.items():
        found[name] = of / among if among else None
        found[f"{name}_ci"] = proportion_confint(of, among, method="wilson") if among else None
    return {"tp": tp, "fp": fp, "tn": tn, "fn": fn}, found


def net_benefit(y, score, thresholds):
    """Net benefit of the model and of treating everyone at each threshold."""
    grid, model, everyone = on_grid(score), [], []
    for t in thresholds:
        high = grid >= np.ceil(t * GRID - 1e-6)
        model.append(((y[high] == 1).sum() - (y[high] == 0).sum() * t / (1 - t)) / len(y))
        everyone.append((y.sum() - (y == 0).sum() * t / (1 - t)) / len(y))
    return model, everyone
