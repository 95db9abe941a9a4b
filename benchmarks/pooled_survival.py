"""Pooled survival figures: what other software makes of times, events and scores on one pile, for `recompute`.

Written apart from the package and importing nothing of it: lifelines, scikit-survival, statsmodels and plain numpy.
A figure that does not exist is None.
"""

import warnings

import numpy as np
import statsmodels.api as sm
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from scipy import stats
from sksurv.exceptions import NoComparablePairException
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv
from statsmodels.duration.survfunc import survdiff

Z = stats.norm.ppf(0.975)
BIN = 20
"""Patients that a bin of the reported scores holds at most, its ties aside ("about ten")."""


def coarse(time, step):
    """Times at the start of their cell of the study's grid."""
    return np.floor(np.asarray(time, float) / step * (1 + 1e-12)) * step


def _pairs(time, event, score):
    """Each patient's concordant (ties one half) and comparable pairs."""
    first = (event[:, None] == 1) & (
        (time[:, None] < time) | ((time[:, None] == time) & (event == 0))
    )  # never with oneself
    won = first * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
    return won.sum(1) + won.sum(0), first.sum(1) + first.sum(0)


def c_index(time, event, score):
    """Harrell's C and its standard error (infinitesimal jackknife over patients); None without a comparable pair."""
    concordant, comparable = _pairs(time, event, score)
    total = comparable.sum()
    if not total:
        return None, None
    c = concordant.sum() / total
    assert abs(c - concordance_index(time, -score, event)) < 1e-12, "own pairs and lifelines disagree"
    return c, 2 * np.sqrt(((concordant - c * comparable) ** 2).sum()) / total


def error_slack(time, event, bound):
    """How far binning may move the standard error of C when it moves C by at most `bound`.

    A doubtful pair moves the pairs of its two patients by at most one half, so the movements sum to at most bound x
    total, and no patient's exceeds half a bin; the standard error is a norm of (concordant - C comparable).
    """
    _, comparable = _pairs(time, event, np.zeros(len(time)))
    total = comparable.sum()
    return 2 * (np.sqrt(bound * total * BIN / 2) + bound * np.sqrt((comparable**2).sum())) / total


def uno_c(time, event, score, before):
    """Uno's C of events before a time by scikit-survival; None without a pair, or where an event has no weight."""
    if not ((event == 1) & (time < (np.inf if before is None else before))).any():
        return None
    known = Surv.from_arrays(event == 1, time)
    try:
        return concordance_index_ipcw(known, known, score, tau=before)[0]
    except NoComparablePairException:
        return None
    except ValueError as why:
        if "censoring survival function is zero" in str(why):
            return None
        raise


def auc_at(time, event, score, horizon):
    """Cumulative/dynamic AUC by scikit-survival; None where there are no such pairs."""
    if not ((time <= horizon) & (event == 1)).any() or not (time > horizon).any():
        return None
    known = Surv.from_arrays(event == 1, time)
    # later events are no cases here; scikit-survival would still ask for their weights, which can be 1 / 0
    cases = Surv.from_arrays((event == 1) & (time <= horizon), time)
    return cumulative_dynamic_auc(known, cases, score, [horizon])[0][0]


def auc_slack(time, event, score, horizon):
    """Half the share of case-control pairs fewer than a bin apart: the most that binning can move that AUC."""
    rank = stats.rankdata(score)
    cases, controls = (time <= horizon) & (event == 1), time > horizon
    weight = np.ones(cases.sum())
    near = np.abs(rank[cases][:, None] - rank[controls]) < BIN
    return (weight @ near).sum() / near.size


def brier(time, event, predicted, times):
    """Brier scores of predicted survival (n, k) at k times by scikit-survival; by definition before anyone has left."""
    known, early = Surv.from_arrays(event == 1, time), np.asarray(times) < time.min()
    found = ((1 - predicted) ** 2).mean(0)
    if not early.all():
        found[~early] = brier_score(known, known, predicted[:, ~early], np.asarray(times)[~early])[1]
    return found


def brier_at(time, event, score, horizon, baseline):
    """Brier score at one time; `baseline` is the survival of a patient with score 0."""
    if not (time > horizon).any():
        return None
    return brier(time, event, (baseline ** np.exp(score))[:, None], [horizon])[0]


def kaplan_meier(time, event, minimum):
    """Rows [t, S, lower, upper, at risk] at event times with `minimum` at risk; the limits are NaN where S is 0."""
    fitter = KaplanMeierFitter().fit(time, event)
    table = fitter.event_table
    limits = fitter.confidence_interval_.to_numpy()
    rows = [[0.0, 1.0, 1.0, 1.0, len(time)]]
    for t, (low, high) in zip(table.index, limits, strict=True):
        if table.loc[t, "observed"] > 0 and table.loc[t, "at_risk"] >= minimum:
            alive = float(fitter.survival_function_.loc[t].iloc[0])
            none = alive < 1e-12
            rows.append([t, alive, np.nan if none else low, np.nan if none else high, table.loc[t, "at_risk"]])
    return rows


def median(rows):
    """First time with survival at most one half, of a curve as it is shown."""
    return next((row[0] for row in rows if row[1] <= 0.5 + 1e-12), None)


def log_rank(time, event, high):
    """Chi-squared and p; None where a group is empty or nobody has the event while both are at risk."""
    if high.all() or not high.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = logrank_test(time[high], time[~high], event[high], event[~high])
    return {"chi2": found.test_statistic, "p": found.p_value} if np.isfinite(found.test_statistic) else None


def log_rank_stratified(time, event, high, level):
    """Chi-squared, p and how many levels there are (statsmodels); None where it says nothing in any of them."""
    if high.all() or not high.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        chi2, p = survdiff(time, event, high.astype(int), strata=level)
    return {"chi2": chi2, "p": p, "strata": len(np.unique(level))} if np.isfinite(chi2) else None


def hazard_ratio(time, event, high):
    """Hazard of high over low (statsmodels, Efron ties) with interval and p; None where it is not finite.

    lifelines stops its Newton steps some 1e-6 before the maximum, whatever precision it is asked for.
    """
    if high.all() or not high.any():
        return None
    model = sm.PHReg(np.asarray(time, float), high.astype(float)[:, None], status=event, ties="efron")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = model.fit(method="newton", tol=1e-14, maxiter=100)
        except np.linalg.LinAlgError:
            return None
    log, error = fit.params[0], fit.bse[0]
    if not np.isfinite(error) or abs(log) > 10:
        return None
    ends = [np.exp(log - Z * error), np.exp(log + Z * error)]
    return {"estimate": np.exp(log), "ci": ends, "p": 2 * stats.norm.sf(abs(log / error))}
