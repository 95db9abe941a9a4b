"""Recompute scores: further figures of binary models, of pairs and of subgroups once more, for `recompute`.

Imports nothing of the package: scikit-learn, statsmodels, and definitions written out. `run` and `table` are those of
recompute.py. Groups and splines are recomputed with the published bins, all else from the scores themselves.
"""

import numpy as np
import pooled_binary as binary
from recompute_table import EXACT, each
from scipy import special, stats
from sklearn.metrics import brier_score_loss, f1_score, log_loss
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Z = stats.norm.ppf(0.975)


def check_accuracy(run, table, figures, where, y, score, bins):
    """Brier parts, log loss, interval of average precision, Spiegelhalter, calibration by group, updating."""
    s, p = binary.on_grid(score) / 1e4, y.mean()
    both = 0 < p < 1
    brier = brier_score_loss(y, s, pos_label=1)
    table.compare("scaled Brier score", where, figures["brier_scaled"], 1 - brier / (p * (1 - p)) if both else None)
    table.compare("log loss", where, figures["log_loss"], log_loss(y, s.clip(1e-4, 1 - 1e-4), labels=[0, 1]))
    calibration = figures["calibration"]
    spread = ((1 - 2 * s) ** 2 * s * (1 - s)).sum()
    z = ((y - s) * (1 - 2 * s)).sum() / np.sqrt(spread) if spread > 1e-12 else None
    test = None if z is None else {"z": z, "p": 2 * stats.norm.sf(abs(z))}
    each(table, "Spiegelhalter's test", where, calibration["spiegelhalter"], test)
    half = np.exp(Z * np.sqrt((1 - p) / y.sum())) if both else None
    ratio = {"estimate": p / s.mean(), "ci": [p / s.mean() / half, p / s.mean() * half]} if both else None
    each(table, "observed to expected", where, calibration["observed_to_expected"], ratio)
    if bins is not None:
        mean, share, n = np.array(binary.groups(y, s, bins, run.minimum)).T
        weight = n / n.sum()
        table.compare("expected calibration error", where, calibration["ece"], weight @ abs(mean - share))
        parts = {"reliability": weight @ (mean - share) ** 2, "resolution": weight @ (share - p) ** 2}
        parts["uncertainty"] = p * (1 - p)
        parts["within_groups"] = brier - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
        each(table, "parts of the Brier score", where, figures["brier_parts"], parts)
        e50, e90 = distances(y, s, bins)
        table.compare("E50, E90", where, calibration["e50"], e50)
        table.compare("E50, E90", where, calibration["e90"], e90)
        precision = binary.curves(y, bins)[2]
        ends = None
        if 0 < precision < 1:
            ends = special.expit(
                special.logit(precision) + np.array([-Z, Z]) / np.sqrt(y.sum() * precision * (1 - precision))
            )
        table.compare("interval of average precision", where, figures["average_precision_ci"], ends)
    check_updating(table, figures["updating"], where, y, s)


def distances(y, score, bins):
    """Distances of the flexible recalibration at the bins' mean scores that half and nine in ten do not exceed."""
    knots = binary.knots(score, bins)
    fit = binary.glm(y, _spline(binary.logit(score), knots))
    if fit is None:
        return None, None
    own = np.array([score[bins == b].mean() for b in bins])
    away = abs(special.expit(_spline(binary.logit(own), knots) @ fit.params) - own)
    return np.quantile(away, [0.5, 0.9], method="inverted_cdf")


def _spline(logits, knots):
    columns = [np.ones(len(logits)), logits]
    if len(set(knots)) == 4:
        a, b, c, d = knots
        cube = lambda k: np.maximum(logits - k, 0) ** 3 / (d - a) ** 2  # noqa: E731
        columns += [cube(k) - cube(c) * (d - k) / (d - c) + cube(d) * (c - k) / (d - c) for k in (a, b)]
    return np.column_stack(columns)


def check_updating(table, figures, where, y, score):
    """Likelihoods of the score as it is, with a new intercept, and with both.

    Not those of a test that ends with a refit: they are of unrounded scores, in `recompute_refit`.
    """
    if figures.get("tests", [{}])[0].get("alternative") == "refit":
        return
    logits, ones = binary.logit(score), np.ones((len(y), 1))
    fits = None
    if len(set(y)) == 2:
        fits = binary.glm(y, ones, offset=logits), binary.glm(y, np.column_stack([ones, logits]))
    if fits is None or None in fits or "undefined" in figures:
        table.compare("updating", where, figures, None if fits is None or None in fits else fits[1].llf)
        return
    known = special.log_expit(np.where(y == 1, logits, -logits)).sum()
    values = {"none": known, "intercept": fits[0].llf, "intercept_and_slope": fits[1].llf}
    for name, value in values.items():
        table.compare("updating: log likelihoods", where, figures["models"][name]["log_likelihood"], value)
    rounding = 1e-12 * abs(known)  # of log likelihoods; near 0 the p value moves with its root
    for test in figures["tests"]:
        chi2, df = max(2 * (values[test["alternative"]] - values[test["null"]]), 0), test["df"]
        p = stats.chi2.sf(chi2, df)
        table.compare("updating: tests", where, test["chi2"], chi2)
        slack = p - stats.chi2.sf(chi2 + rounding, df) + (stats.chi2.sf(max(chi2 - rounding, 0), df) - p)
        table.compare("updating: tests, p", where, test["p"], p, slack + EXACT)


def check_cutoff(table, at, where, y, score):
    """F1, likelihood ratios and odds ratio at the cut-off."""
    high = binary.on_grid(score) >= round(at["cutoff"] * 1e4)
    tp, fp, fn, tn = ((high == h) & (y == k) for h, k in ((1, 1), (1, 0), (0, 1), (0, 0)))
    tp, fp, fn, tn = (int(cell.sum()) for cell in (tp, fp, fn, tn))
    share = [2 * j / (1 + j) for j in proportion_confint(tp, tp + fp + fn, method="wilson")] if tp + fp + fn else None
    table.compare("F1 with interval", where, at["f1"], f1_score(y, high) if share else None)
    table.compare("F1 with interval", where, at["f1_ci"], share)
    tables = {
        "positive_likelihood_ratio": ([[tp, fn], [fp, tn]], "riskratio", (tp, fp)),
        "negative_likelihood_ratio": ([[fn, tp], [tn, fp]], "riskratio", (fn, tn)),
        "diagnostic_odds_ratio": ([[tp, fp], [fn, tn]], "oddsratio", (tp, fp, fn, tn)),
    }
    for name, (cells, figure, positive) in tables.items():
        whole = all(positive) and tp + fn and fp + tn
        known = Table2x2(cells, shift_zeros=False) if whole else None
        estimate, ends = (getattr(known, figure), getattr(known, f"{figure}_confint")()) if whole else (None, None)
        table.compare("likelihood and odds ratios", where, at[name], estimate)
        table.compare("likelihood and odds ratios", where, at[f"{name}_ci"], ends)


def check_avoided(table, curve, where, y, score):
    """Interventions avoided: true negatives, less false negatives at what a missed event costs, in 100 patients."""
    grid, avoided = binary.on_grid(score), []
    for t in curve["thresholds"]:
        low = grid < np.ceil(t * 1e4 - 1e-6)
        avoided.append(100 * ((y[low] == 0).sum() - (y[low] == 1).sum() * (1 - t) / t) / len(y))
    table.compare("interventions avoided", where, curve["interventions_avoided"], avoided)


def check_reclassification(table, entry, where, y, scores, cutoffs):
    """NRI at the cut-offs and without, IDI."""
    a, b = (binary.on_grid(score) for score in scores)
    moves = {"nri_continuous": np.sign(a - b)}
    if None not in cutoffs:
        high = [grid >= round(cut * 1e4) for grid, cut in zip((a, b), cutoffs, strict=True)]
        moves["nri"] = high[0].astype(int) - high[1]
    for name, moved in moves.items():
        by_class = [moved[y == k] for k in (0, 1)]
        errors = [np.sqrt(sum(f(m) / len(m) for m in by_class)) for f in (np.var, lambda m: np.mean(m**2))]
        each(table, name, where, entry[name], _improvement(by_class, *errors))
    by_class = [(a - b)[y == k] / 1e4 for k in (0, 1)]
    error = np.sqrt(sum(m.var(ddof=1) / len(m) for m in by_class)) if min(map(len, by_class)) > 1 else None
    each(table, "idi", where, entry["idi"], None if error is None else _improvement(by_class, error, error))


def _improvement(by_class, error, null_error):
    estimate = by_class[1].mean() - by_class[0].mean()
    found = {"estimate": estimate, "events": by_class[1].mean(), "nonevents": -by_class[0].mean()}
    if min(error, null_error) < 1e-12:
        return found
    z = estimate / null_error
    return found | {
        "se": error,
        "ci": [estimate - Z * error, estimate + Z * error],
        "z": z,
        "p": 2 * stats.norm.sf(abs(z)),
    }


def check_adjusted(table, kind, entries):
    """Holm's and Benjamini & Hochberg's p over the tests of each cohort."""
    for cohort in dict.fromkeys(entry["cohort"] for entry in entries):
        known = [e for e in entries if e["cohort"] == cohort and isinstance(e.get("p"), float)]
        for key, method in (("p_holm", "holm"), ("p_bh", "fdr_bh")):
            reference = multipletests([e["p"] for e in known], method=method)[1] if known else []
            table.compare(f"{kind}: adjusted p", cohort, [e[key] for e in known], reference)


def figure(name, y, score, bins):
    """AUC or calibration slope with its standard error, or None."""
    if name == "auc":
        return None if bins is None else binary.auc(y, bins)
    slope = binary.recalibration(y, score)
    return slope["slope"], np.ptp(slope["slope_ci"]) / 2 / Z


def check_interaction(table, entry, estimate):
    """Cochran's Q of a figure between subgroups; `estimate` gives a cohort's figure with its standard error."""
    where, cohort = f"{entry['model']}, {entry['cohort']}, {entry['variable']}", entry["cohort"]
    found = [estimate(f"{cohort}/subgroup:{entry['variable']}={level}") for level in entry["levels"]]
    if len(found) < 2:
        table.compare("interactions", where, entry["chi2"], None)
        return
    value, error = np.array(found).T
    weight = error**-2
    q = weight @ (value - weight @ value / weight.sum()) ** 2
    reference = {"chi2": q, "df": len(value) - 1, "p": stats.chi2.sf(q, len(value) - 1)}
    if len(value) == 2:
        change, half = value[1] - value[0], Z * np.hypot(*error)
        reference |= {"difference": change, "ci": [change - half, change + half]}
    each(table, "interactions", where, entry, reference)
