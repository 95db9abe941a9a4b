"""Recompute groups: competing risks, stratified log-rank tests, cut-offs of the largest statistic, for `recompute`.

Imports nothing of the package. There is no Gray's test in the Python packages at hand: it is written out from the paper
(Gray, Ann Stat 1988, section 3), one time after another, the four integrals of the variance side by side.
"""

import numpy as np
import pooled_survival as survival
from recompute_run import followed
from recompute_table import EXACT, each
from scipy import stats

Z = stats.norm.ppf(0.975)
RANGE = (0.1, 0.9)


def gray(time, cause, high):
    """Chi-squared (rho = 0) and p of the cumulative incidence of cause 1 in two groups; None where it says nothing."""
    before, incidence = np.ones(2), np.zeros(2)  # S_k(t-), F_k(t-)
    common, score, variance = 0.0, 0.0, 0.0
    moved, by_square, by_moved = np.zeros((2, 2)), np.zeros(2), np.zeros((2, 2))  # by group; c, v3, v2
    for t in np.unique(time[cause > 0]):
        n = np.array([((time >= t) & (high == g)).sum() for g in (0, 1)], float)
        d1, d2 = (np.array([((time == t) & (cause == c) & (high == g)).sum() for g in (0, 1)], float) for c in (1, 2))
        there, died = n > 0, d1.sum()
        after, now = before.copy(), incidence.copy()
        after[there] = before[there] * (1 - (d1 + d2)[there] / n[there])
        now[there] = incidence[there] + before[there] * d1[there] / n[there]
        h = np.where(there, n / np.where(before > 0, before, 1), 0.0)
        at_stake = h * (1 - incidence)
        new_common = common + died / h.sum()
        share = np.diag(h) - np.outer(h, h) / h.sum()
        moved += share * died / (h.sum() * (1 - common))
        score += d1[1] - died * at_stake[1] / at_stake.sum()
        for k in np.flatnonzero(there):
            left = (1 - new_common) / after[k] if after[k] > 0 else 0.0
            if died:
                own = 1 - left if after[k] > 0 else 1.0
                spared = 1 - (died - 1) / (h.sum() * before[k] - 1) if died > 1 else 1.0
                one = spared * before[k] * died / (h.sum() * n[k])
                at_once = share[:, k] - own * moved[:, k]
                by_square[k] += own**2 * one
                by_moved[:, k] += at_once * own * one
                variance += at_once[1] ** 2 * one
            if d2[k] and after[k] > 0:
                spared = 1 - (d2[k] - 1) / (n[k] - 1) if d2[k] > 1 else 1.0
                one = spared * before[k] ** 2 * d2[k] / n[k] ** 2
                by_square[k] += left**2 * one
                by_moved[:, k] -= left * moved[:, k] * left * one
                variance += (left * moved[1, k]) ** 2 * one
        before, incidence, common = after, now, new_common
    variance += (moved[1] ** 2 * by_square + 2 * moved[1] * by_moved[1]).sum()
    if not variance > 1e-12:
        return None
    return {"chi2": score**2 / variance, "p": stats.chi2.sf(score**2 / variance, 1)}


def check_stratified(c, variable, ours, high):
    """Log-rank test stratified by a variable, whose levels predictions.csv has; patients without one are left out."""
    column = c.patients[f"subgroup.{variable}"]
    known = column.notna().to_numpy()
    level = column[known].astype(str).to_numpy()
    reference = survival.log_rank_stratified(c.time[known], c.event[known], high[known], level)
    each(c.table, "log-rank stratified by a variable", c.where, ours, reference)


def check_competing(c, figures, high):
    """Cumulative incidence (Aalen-Johansen) of the risk groups, Gray's test."""
    rival = next(c.patients[name].to_numpy() == 1 for name in c.patients if name.startswith("competing."))
    cause = np.where(c.event == 1, 1, np.where(rival, 2, 0))
    c.table.compare(
        "competing events", c.where, [figures["events"], figures["competing"]], [(cause == k).sum() for k in (1, 2)]
    )
    if "chi2" in figures["gray"]:
        each(c.table, "Gray's test", c.where, figures["gray"], gray(c.time, cause, high.astype(int)))
    for group, members in (("low", ~high), ("high", high)):
        rows = incidence(c.time[members], cause[members])
        shown = figures["cumulative_incidence"][group]
        if isinstance(shown, list):
            c.table.compare("cumulative incidence", c.where, shown, rows[: len(shown)])
        for name, horizon in c.horizons:
            ours = figures["incidence_at"][name][group]
            if "estimate" in ours:
                row = [r for r in rows if r[0] <= horizon][-1]
                each(c.table, "cumulative incidence", c.where, ours, {"estimate": row[1], "ci": row[2:4]})


def incidence(time, cause):
    """Rows [t, F, lower, upper, at risk]; variance of Marubini & Valsecchi (1995), sums as they stand."""
    points = np.unique(time[cause > 0])
    n = np.array([(time >= t).sum() for t in points], float)
    d1, d = (np.array([((time == t) & which).sum() for t in points], float) for which in (cause == 1, cause > 0))
    alive = np.concatenate([[1.0], np.cumprod(1 - d / n)])[:-1]
    f = np.cumsum(alive * d1 / n)
    rows = [[0.0, 0.0, 0.0, 0.0, len(time)]]
    for k in np.flatnonzero(d1):
        j = slice(0, k + 1)
        ahead = f[k] - f[j]
        left = np.divide(d, n * (n - d), out=np.zeros(len(n)), where=n > d)[j]
        variance = (
            ahead**2 * left + alive[j] ** 2 * d1[j] * (n - d1)[j] / n[j] ** 3 - 2 * ahead * alive[j] * d1[j] / n[j] ** 2
        ).sum()
        if 0 < f[k] < 1 - 1e-12:
            half = Z * np.sqrt(variance) / (f[k] * np.log(f[k]))
            rows.append([points[k], f[k], f[k] ** np.exp(-half), f[k] ** np.exp(half), n[k]])
        else:
            rows.append([points[k], f[k], f[k], f[k], n[k]])
    return rows


def check_chosen(run, table, model, published):
    """The cut-off with the largest log-rank statistic in training, and Miller & Siegmund's p for the choice.

    With binned scores the candidates are not published: the test of the published cut-off must then be what patients
    say, and no larger than that of the best of all cut-offs.
    """
    test, endpoint = published["cutoff_test"], published["endpoint"]
    if "chi2" not in test:
        table.undefined += 1
        return
    _, time, event, score = followed(run, model, run.training(), endpoint)
    grid = np.rint(score * 1e4)
    # patients a candidate leaves below, as a share
    candidates = [c for c in np.unique(grid) if RANGE[0] <= (grid < c).mean() <= RANGE[1]]
    chi2 = {c: (survival.log_rank(time, event, grid >= c) or {"chi2": -1.0})["chi2"] for c in candidates}
    ours = round(test["cutoff"] * 1e4)
    at = survival.log_rank(time, event, grid >= ours)["chi2"]
    reference = {"chi2": at, "p": stats.chi2.sf(at, 1), "p_corrected": corrected(at)}
    each(table, "chosen cut-off: log-rank test", model, test, reference)
    best = max(chi2.values())
    if run.exact:
        table.compare("chosen cut-off: largest statistic", model, at, best)
        table.compare("chosen cut-off: candidates", model, test["candidates"], len(candidates))
    else:
        table.note("chosen cut-off: above the best", model, max(0.0, at - best), EXACT, 1)


def corrected(chi2):
    """Miller & Siegmund 1982 as Lausen & Schumacher 1992 use it, between the test's own p and 1."""
    b, (low, high) = np.sqrt(chi2), RANGE
    if b < 1:
        return 1.0
    width = np.log(high * (1 - low) / ((1 - high) * low))
    p = stats.norm.pdf(b) * (b - 1 / b) * width + 4 * stats.norm.pdf(b) / b
    return min(max(p, stats.chi2.sf(chi2, 1)), 1.0)
