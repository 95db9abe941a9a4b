"""Recompute bootstrap: intervals of the Poisson bootstrap once more, patient by patient, for `recompute`.

The published replicates are drawn from counts of bins; here every patient is given a Poisson number of their own in
each of `REPLICATES` replicates. Two sets of random draws cannot agree to a digit: an end of a published percentile
interval from B replicates is an order statistic, so the share of draws below it varies about 2.5 % (97.5 %) as a beta
variable. Its normal score is what is reported, and 5 what is allowed. Imports nothing of the package.
"""

import numpy as np
import pooled_binary as binary
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

REPLICATES = 10_000
AT_ONCE = 500
ALLOWED = 5.0
ENDS = (0.025, 0.975)


def check(table, figures, where, y, score, bins, replicates):
    """All bootstrap intervals of one model on one cohort; `replicates` is what the study asked for."""
    curve = figures["decision_curve"]
    published = (
        ("bootstrap of AUC, z", figures["auc"].get("bootstrap_ci")),
        ("bootstrap of average precision, z", figures.get("average_precision_bootstrap_ci")),
    )
    benefit = curve.get("net_benefit_bootstrap_ci")
    drawn = draws(y, score, bins, curve["thresholds"])
    for (kind, ends), values in zip(published, drawn, strict=False):
        if isinstance(ends, list):
            _compare(table, kind, where, ends, values, replicates)
    if isinstance(benefit, list):
        for ends, values in zip(benefit, drawn[2].T, strict=True):
            _compare(table, "bootstrap of net benefit, z", where, ends, values, replicates)


def draws(y, score, bins, thresholds):
    """AUC, average precision (replicates,) and net benefit (replicates, thresholds) of weighted patients."""
    rng, found = np.random.default_rng(0), []
    order = np.unique(bins)
    member = (bins[:, None] == order).astype(float)
    called = (binary.on_grid(score)[:, None] >= np.ceil(np.array(thresholds) * binary.GRID - 1e-6)).astype(float)
    odds = np.array([t / (1 - t) for t in thresholds])
    case = (y == 1).astype(float)
    for done in range(0, REPLICATES, AT_ONCE):
        weight = rng.poisson(1.0, (AT_ONCE, len(y))).astype(float)
        cases, others = (weight * case) @ member, (weight * (1 - case)) @ member
        n, events = weight.sum(1), cases.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):  # a replicate without a class has no figure
            area = (cases * (np.cumsum(others, 1) - others / 2)).sum(1) / (events * others.sum(1))
            true, all_called = np.cumsum(cases[:, ::-1], 1), np.cumsum((cases + others)[:, ::-1], 1)
            share = np.divide(true, all_called, out=np.zeros_like(true), where=all_called > 0)
            precision = (share * cases[:, ::-1]).sum(1) / events
        benefit = (weight * case) @ called - ((weight * (1 - case)) @ called) * odds
        found.append((area, precision, benefit / n[:, None]))
        if not done:
            _agrees(y, bins, weight[0], area[0], precision[0])
    return [np.concatenate(of) for of in zip(*found, strict=True)]


def _agrees(y, bins, weight, area, precision):
    """One replicate by scikit-learn."""
    if np.isfinite(area):
        assert abs(area - roc_auc_score(y, bins, sample_weight=weight)) < 1e-12
        assert abs(precision - average_precision_score(y, bins, sample_weight=weight)) < 1e-12


def _compare(table, kind, where, ends, values, replicates):
    values = values[np.isfinite(values)]
    together = 1 / (1 / replicates + 1 / len(values))  # both sets of draws are random
    for end, q in zip(ends, ENDS, strict=True):
        # ties: any share between those below and those not above would do
        slack = 1e-12 * max(1.0, abs(end))
        below, not_above = (values < end - slack).mean(), (values <= end + slack).mean()
        z = [stats.norm.ppf(stats.beta.cdf(s, q * together, (1 - q) * together)) for s in (below, not_above)]
        off = 0.0 if z[0] <= 0 <= z[1] else min(abs(of) for of in z)
        table.note(kind, where, off, ALLOWED, 1)
