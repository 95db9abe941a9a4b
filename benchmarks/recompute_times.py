"""Recompute times: further survival figures once more, from times, events and scores, for `recompute`.

Imports nothing of the package: scikit-survival, lifelines, statsmodels, and definitions written out. Standard errors
weighted for censoring are those of the infinitesimal jackknife, written as derivatives by each patient's weight; once
as the package defines them, where a patient censored between two event times moves the censoring curve by the mean of
those censored there, and of `MANY` patients once each by itself, which may differ by a share `NEAR` of the interval's
half.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import pooled_survival as survival
import recompute_groups as groups
import statsmodels.api as sm
from lifelines import KaplanMeierFitter
from lifelines.utils import restricted_mean_survival_time
from recompute_table import EXACT, each
from scipy import stats

Z = stats.norm.ppf(0.975)
NEAR, MANY = 0.01, 100
EVALUATIONS = 32


class Context(NamedTuple):
    """One model on one cohort."""

    run: Any
    table: Any
    where: str
    time: Any
    event: Any
    score: Any
    patients: Any
    known: dict
    step: float

    @property
    def last(self):
        """Last horizon, on the grid of times."""
        return float(survival.coarse(max(self.known["horizon"]), self.step)) if self.known.get("horizon") else None

    @property
    def horizons(self):
        return [(f"{h:.10g}", h) for h in self.known.get("horizon", ())]


def check_scores(c, figures, model):
    """Uno's C, intervals of AUCs, Brier scores against the null model, calibration."""
    table, where, last = c.table, c.where, c.last
    grid, ours = np.rint(c.score * 1e4), figures["uno_c"]
    reference = survival.uno_c(c.time, c.event, grid, last)
    if reference is None or "estimate" not in ours:
        table.compare("Uno's C, stated bound", where, ours, reference)
    else:
        table.compare("Uno's C, stated bound", where, ours["estimate"], reference, ours["bound"] + EXACT)
        if c.run.exact:
            area = uno(c.time, c.event, grid, np.inf if last is None else last)
            check_interval(c, "interval of Uno's C", ours["ci"], reference, *area)
    for name, horizon in c.horizons:
        if c.run.exact and isinstance(figures["auc_at_ci"][name], list):
            area = auc_at(c.time, c.event, np.rint(c.score * 1e4), horizon)
            check_interval(c, "interval of AUC at horizons", figures["auc_at_ci"][name], area[0], *area)
    for key, strata in (("calibration_slope", None), ("calibration_slope_within_sites", c.patients["site"].to_numpy())):
        if "estimate" in figures.get(key, {}):
            slope = cox_slope(c.time, c.event, c.score, strata)
            flat = EXACT * max(1.0, np.ptp(slope["ci"]) / 2 / Z)  # a likelihood without a peak says less of its place
            for name, value in slope.items():
                table.compare(key.replace("_", " "), where, figures[key][name], value, flat)
    if "baseline" in model["notes"]:
        check_predictions(c, figures, model["notes"]["baseline"])


def check_interval(c, kind, ours, estimate, area, own, of_censoring):
    """Interval of an index: `own` is its change with each patient's weight, and `of_censoring` by way of that curve."""
    assert abs(area - estimate) < 1e-9, "own pairs and scikit-survival disagree"
    points = np.unique(c.time[c.event == 1])
    points = np.union1d(points, [survival.coarse(h, c.step) + c.step for _, h in c.horizons])
    interval, mean = np.searchsorted(points, c.time * (1 + 1e-12), side="right"), of_censoring.copy()
    for k in set(interval):
        held = (interval == k) & (c.event == 0)
        mean[held] = of_censoring[held].mean() if held.any() else 0.0
    together = np.sqrt(((own + mean) ** 2).sum() + ((of_censoring - mean) ** 2).sum())
    apart = np.sqrt(((own + of_censoring) ** 2).sum())
    for name, error, allowed in ((kind, together, EXACT), (f"{kind}, apart", apart, EXACT + NEAR * Z * apart)):
        if error is together or len(c.time) >= MANY:
            ends = np.clip([estimate - Z * error, estimate + Z * error], 0, 1)
            c.table.compare(name, c.where, ours, ends, allowed)


def _censoring(time, event):
    """Kaplan-Meier of the censoring at each patient's time, and the change of its log with each patient's weight.

    Events of a time leave before its censorings.
    """
    order = np.unique(time)
    gone = np.array([((time == u) & (event == 0)).sum() for u in order])
    staying = np.array([((time > u) | ((time == u) & (event == 0))).sum() for u in order])
    at = np.searchsorted(order, time)
    kept = np.divide(staying - gone, staying, out=np.zeros(len(order)), where=staying > 0)
    change = np.zeros((len(order), len(time)))
    for k, u in enumerate(order):
        if gone[k] and staying[k] > gone[k]:
            here = (time == u) & (event == 0)
            change[k] = -(here * staying[k] - gone[k] * ((time > u) | here)) / (staying[k] * (staying[k] - gone[k]))
    return np.cumprod(kept)[at], np.cumsum(change, 0)[at]


def uno(time, event, score, before):
    """Uno's C of events before a time; its change with each patient's weight: directly, by the censoring curve."""
    g, change = _censoring(time, event)
    first = (event[:, None] == 1) & (time[:, None] < before)
    first = first & ((time[:, None] < time) | ((time[:, None] == time) & (event == 0)))
    weight = np.where(first.any(1), 1 / np.where(first.any(1), g, 1) ** 2, 0)[:, None] * first
    won = weight * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
    c = won.sum() / weight.sum()
    net = won - c * weight
    return c, (net.sum(1) + net.sum(0)) / weight.sum(), -2 * change.T @ net.sum(1) / weight.sum()


def auc_at(time, event, score, horizon):
    """Cumulative/dynamic AUC, and its change with each patient's weight, likewise."""
    g, change = _censoring(time, event)
    case, control = (event == 1) & (time <= horizon), time > horizon
    weight = np.where(case, 1 / np.where(case, g, 1), 0)[:, None] * control
    won = weight * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
    area = won.sum() / weight.sum()
    net = won - area * weight
    return area, (net.sum(1) + net.sum(0)) / weight.sum(), -change.T @ net.sum(1) / weight.sum()


def cox_slope(time, event, score, strata):
    """Coefficient of the score in a Cox model of it alone (statsmodels, Efron ties), with its interval."""
    x = (score - score.mean())[:, None]
    model = sm.PHReg(time.astype(float), x, status=event, ties="efron", strata=strata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(method="newton", tol=1e-14, maxiter=100)
    error = 1 / np.sqrt(-model.hessian(fit.params)[0, 0])
    return {"estimate": fit.params[0], "ci": [fit.params[0] - Z * error, fit.params[0] + Z * error]}


def check_predictions(c, figures, baseline):
    """Brier scores against the Kaplan-Meier curve's, over time, and observed against expected risk."""
    followed = c.time.max()
    hazard = np.concatenate([[0.0], baseline["cumulative_hazard"]])
    curve = KaplanMeierFitter().fit(c.time, c.event)

    def scores(times):
        """Brier scores of the model and of the curve."""
        passed = hazard[np.searchsorted(baseline["time"], np.asarray(times) * (1 + 1e-12), side="right")]
        predicted = np.exp(-np.outer(np.exp(c.score), passed))
        nobodys = np.tile(
            curve.predict(times).to_numpy() if len(times) > 1 else [curve.predict(times[0])], (len(c.time), 1)
        )
        return [survival.brier(c.time, c.event, s, times) for s in (predicted, nobodys)]

    for name, horizon in c.horizons:
        if horizon < followed:
            (mine,), (nobodys,) = scores([horizon])
            scaled = 1 - mine / nobodys if nobodys > 0 else None
            c.table.compare("scaled Brier score at horizons", c.where, figures["scaled_brier_at"][name], scaled)
            check_calibration(c, figures, name, horizon, baseline)
    last = max((h for _, h in c.horizons), default=0)
    cells = np.unique(int(last / c.step * (1 + 1e-12)) * np.arange(1, EVALUATIONS + 1) // EVALUATIONS)
    if len(cells) > 1 and cells[-1] * c.step < followed:
        mine, nobodys = (np.trapezoid(s, cells) / np.ptp(cells) for s in scores(cells * c.step))
        reference = {"estimate": mine, "null": nobodys, "scaled": 1 - mine / nobodys if nobodys > 0 else None}
        each(c.table, "integrated Brier score", c.where, figures["integrated_brier"], reference)


def check_calibration(c, figures, name, horizon, baseline):
    """Expected and observed risk, in all and in groups of the published sizes; net benefit of single scores."""
    passed = np.asarray(baseline["time"]) <= horizon * (1 + 1e-12)
    hazard = np.asarray(baseline["cumulative_hazard"])[passed].max(initial=0.0)
    risk = 1 - np.exp(-hazard * np.exp(c.score))
    ours = figures["calibration_at"][name]
    if "expected" in ours:
        alive, variance = _survival(c.time, c.event, horizon)
        ratio, half = (1 - alive) / risk.mean(), np.exp(Z * np.sqrt(variance) * alive / (1 - alive))
        known = {"expected": risk.mean(), "observed": 1 - alive}
        each(c.table, "risk at horizons", c.where, ours, known)
        each(
            c.table,
            "risk at horizons",
            c.where,
            ours["observed_to_expected"],
            {"estimate": ratio, "ci": [ratio / half, ratio * half]},
        )
        order = np.argsort(c.score, kind="stable")
        rows = []
        for block in np.split(order, np.cumsum([row[-1] for row in ours["curve"]])[:-1]):
            shown = limits(c.time[block], c.event[block], horizon)
            rows.append([risk[block].mean(), *(1 - shown[i] for i in (0, 2, 1)), len(block)])
        c.table.compare("risk at horizons, groups", c.where, ours["curve"], rows)
    ours = figures["decision_curve_at"][name]
    if c.run.exact and "thresholds" in ours:
        benefit = []
        for t in ours["thresholds"]:
            called = risk >= t - 1e-12
            event = 1 - _survival(c.time[called], c.event[called], horizon)[0] if called.any() else 0.0
            benefit.append(called.mean() * (event - (1 - event) * t / (1 - t)))
        c.table.compare("net benefit at horizons", c.where, ours["net_benefit"], benefit)


def _survival(time, event, horizon):
    """Kaplan-Meier at a time, and Greenwood's variance of its logarithm."""
    at = [
        (((time == u) & (event == 1)).sum(), (time >= u).sum())
        for u in np.unique(time[(event == 1) & (time <= horizon)])
    ]
    alive = np.prod([1 - d / n for d, n in at])
    return alive, sum(d / n / (n - d) for d, n in at if n > d)


def limits(time, event, horizon):
    """Kaplan-Meier at a time with log(-log) limits; 1 to 1 before the first event."""
    alive, variance = _survival(time, event, horizon)
    if alive == 1:
        return 1.0, 1.0, 1.0
    theta = np.exp(Z * np.sqrt(variance) / np.log(alive)) if alive > 0 else np.nan
    return alive, alive ** (1 / theta), alive**theta


def check_groups(c, figures, high):
    """Low and high risk: medians' intervals, survival and restricted means at horizons, log-rank within sites."""
    means = {}
    for group, members in (("low", ~high), ("high", high)):
        time, event = c.time[members], c.event[members]
        ours = figures["median"].get(f"{group}_ci")
        if isinstance(ours, list):
            rows = np.array(survival.kaplan_meier(time, event, c.run.minimum), float)
            rows[:, 2] = np.nan_to_num(rows[:, 2])  # where nobody is left survival has no limits; the lower is none
            ends = [next((t for t, limit in rows[:, [0, k]] if limit <= 0.5 + 1e-12), None) for k in (2, 3)]
            for one, reference in zip(ours, ends, strict=True):
                c.table.compare("interval of the median", c.where, one, reference)
        for name, horizon in c.horizons:
            if "withheld" in figures["survival_at"]:  # a group that is too small takes the other's figures along
                continue
            ours, mean = (figures[key][name][group] for key in ("survival_at", "rmst_at"))
            if "estimate" not in ours:
                continue
            alive, low, up = limits(time, event, horizon)
            beyond = (time > horizon * (1 + 1e-12)).sum()
            each(
                c.table, "survival at horizons", c.where, ours, {"estimate": alive, "ci": [low, up], "at_risk": beyond}
            )
            curve = KaplanMeierFitter().fit(time, event)
            area = restricted_mean_survival_time(curve, t=horizon)
            error = _mean_error(time, event, horizon)
            means[name, group] = area, error
            each(c.table, "restricted mean", c.where, mean, _mean(area, error))
    for name, _ in c.horizons:
        if (name, "low") in means and (name, "high") in means:
            (low, a), (up, b) = means[name, "low"], means[name, "high"]
            error = np.hypot(a, b)
            reference = _mean(up - low, error) | ({"p": 2 * stats.norm.sf(abs(up - low) / error)} if error else {})
            each(c.table, "restricted mean", c.where, figures["rmst_at"][name]["difference"], reference)
    ours = figures.get("log_rank_within_sites", {})
    if "chi2" in ours:
        reference = sm.duration.survdiff(c.time, c.event, high.astype(int), strata=c.patients["site"].to_numpy())
        each(c.table, "log-rank within sites", c.where, ours, dict(zip(("chi2", "p"), reference, strict=True)))
    for variable, ours in figures.get("log_rank_stratified", {}).items():
        groups.check_stratified(c, variable, ours, high)
    if "competing_risks" in figures:
        groups.check_competing(c, figures["competing_risks"], high)


def _mean(area, error):
    return {"estimate": area, "se": error, "ci": [area - Z * error, area + Z * error]}


def _mean_error(time, event, horizon):
    """Greenwood's standard error of a restricted mean: each event weighs by the square of the area after it."""
    points = np.unique(time[(event == 1) & (time <= horizon)])
    ends = np.append(points, horizon)
    alive = [_survival(time, event, u)[0] for u in points]
    after = np.cumsum((alive * np.diff(ends))[::-1])[::-1]
    total = 0.0
    for u, area in zip(points, after, strict=True):
        d, n = ((time == u) & (event == 1)).sum(), (time >= u).sum()
        total += area**2 * d / n / (n - d) if n > d else 0.0
    return np.sqrt(total)


def check_difference(run, table, entry, timed):
    """Difference of Harrell's C of two models on the same patients, with its jackknife error."""
    where = f"{entry['a']} - {entry['b']}, {entry['cohort']}"
    moves, cs = [], []
    for _, time, event, score in timed:
        c, _ = survival.c_index(time, event, np.rint(score * 1e4))
        if c is None:
            table.compare("difference of C", where, entry["difference"], None)
            return
        won, comparable = survival._pairs(time, event, np.rint(score * 1e4))
        moves.append(2 * (won - c * comparable) / comparable.sum())
        cs.append(c)
    difference, error = cs[0] - cs[1], np.sqrt(((moves[0] - moves[1]) ** 2).sum())
    models = [run.results["models"][entry[k]]["cohorts"][entry["cohort"]] for k in ("a", "b")]
    bound = sum(
        m["survival"]["c_index"]["bound"] for m in models if "estimate" in m.get("survival", {}).get("c_index", {})
    )
    table.compare("difference of C, stated bound", where, entry["difference"], difference, bound + EXACT)
    if run.exact and error > 1e-7:
        ends = [difference - Z * error, difference + Z * error]
        # the products of moves are sums in fixed point: a square root of their rounding remains
        reference = {"ci": ends, "z": difference / error, "p": 2 * stats.norm.sf(abs(difference / error))}
        each(table, "interval of the difference of C", where, entry, reference)
