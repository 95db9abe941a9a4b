"""Recompute groups: Gray's test, and cut-offs chosen by the largest log-rank statistic, for `recompute`.

Imports nothing of the package. There is no Gray's test in the Python packages at hand: it is written out from the paper
(Gray, Ann Stat 1988, section 3), one time after another, the four integrals of the variance side by side.
"""

import numpy as np
import pooled_survival as survival
from recompute_run import followed
from recompute_table import EXACT, each
from scipy import stats

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
