"""References of further survival figures: lifelines, scikit-survival, statsmodels on pooled rows; nothing of ours."""

from functools import cache
from pathlib import Path

import data
import numpy as np
import pandas as pd
from lifelines import AalenJohansenFitter, CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index, median_survival_times, restricted_mean_survival_time
from scipy import stats
from sksurv.metrics import brier_score, concordance_index_ipcw, cumulative_dynamic_auc, integrated_brier_score
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import survdiff

HORIZONS = (1095, 1825)
MONTH = 30.0
HIGH = 0.4
THRESHOLDS = (0.1, 0.2, 0.35, 0.5)
BASELINE = (0.8, 0.65)
HAZARD = 4e-4
TRANSPLANTS = Path(__file__).parents[2] / "tests" / "data" / "bmtcrr.txt"


@cache
def cohort():
    """gbsg2, and two log relative hazards of no model on the grid of 1e-4."""
    frame = data.gbsg2()
    noise = np.random.default_rng(8).standard_normal((len(frame), 2))
    signal = np.column_stack(
        [data.standardised(frame, ["pnodes", "tgrade"]).sum(1), data.standardised(frame, ["tsize"])]
    )
    return frame, np.rint((0.4 * signal + [0.3, 0.5] * noise) * 1e4) / 1e4


def _outcome():
    frame, _ = cohort()
    return Surv.from_arrays(frame["event"] == 1, frame["time"])


def _groups():
    frame, score = cohort()
    return [(frame["time"][of], frame["event"][of]) for of in (score[:, 0] < HIGH, score[:, 0] >= HIGH)]


def groups(ours):
    """Median survival with its interval, survival and restricted mean at the horizons, by risk group; log-rank."""
    del ours
    found = {name: [] for name in ("median", "median_ci", "survival", "at_risk", "rmst", "rmst_se")}
    for time, event in _groups():
        curve = KaplanMeierFitter().fit(time, event)
        limits = median_survival_times(curve.confidence_interval_).iloc[0].to_numpy()
        found["median"].append(curve.median_survival_time_)
        found["median_ci"].append(np.where(np.isinf(limits), np.nan, limits))
        found["survival"].append([float(curve.predict(h)) for h in HORIZONS])
        found["at_risk"].append([(time > h).sum() for h in HORIZONS])
        found["rmst"].append([restricted_mean_survival_time(curve, t=h) for h in HORIZONS])
        found["rmst_se"].append([_greenwood(time.to_numpy(), event.to_numpy(), h) for h in HORIZONS])
    return found


def _greenwood(time, event, horizon):
    """Standard error of a restricted mean from the curve, one event time after another."""
    curve = KaplanMeierFitter().fit(time, event).survival_function_.iloc[:, 0]
    steps, height, variance = curve.index.to_numpy(), curve.to_numpy(), 0.0
    for t in np.unique(time[(event == 1) & (time <= horizon)]):
        after = (steps >= t) & (steps < horizon)
        area = (height[after] * np.diff(np.append(steps[after], horizon))).sum()
        n, d = (time >= t).sum(), ((time == t) & (event == 1)).sum()
        variance += area**2 * d / (n * (n - d))
    return np.sqrt(variance)


def log_ranks(ours):
    """Log-rank test of two risk groups, and the one stratified by site."""
    del ours
    frame, score = cohort()
    (t0, e0), (t1, e1) = _groups()
    plain = logrank_test(t0, t1, e0, e1)
    chi2, p = survdiff(frame["time"], frame["event"], score[:, 0] >= HIGH, strata=frame["site"])
    return {"log_rank": [plain.test_statistic, plain.p_value], "within_sites": [chi2, p]}


def hazard_ratio(ours):
    """Cox model of the risk group (Efron): hazard ratio, interval, p."""
    del ours
    frame, score = cohort()
    of = pd.DataFrame({"x": (score[:, 0] >= HIGH).astype(float), "t": frame["time"], "e": frame["event"]})
    row = _cox(of).summary.loc["x"]
    return {
        "estimate": row["exp(coef)"], "ci": [row["exp(coef) lower 95%"], row["exp(coef) upper 95%"]], "p": row["p"],
    }  # fmt: skip


def _cox(frame):
    return CoxPHFitter().fit(frame, "t", "e", fit_options={"precision": 1e-13, "r_precision": 1e-16})


def discrimination(ours):
    """Uno's C before the last horizon, cumulative/dynamic AUC at both, difference of Harrell's C."""
    del ours
    frame, score = cohort()
    outcome = _outcome()
    harrell = [concordance_index(frame["time"], -s, frame["event"]) for s in score.T]
    return {
        "uno": [concordance_index_ipcw(outcome, outcome, s, tau=HORIZONS[-1])[0] for s in score.T],
        "auc": [cumulative_dynamic_auc(outcome, outcome, s, HORIZONS)[0] for s in score.T],
        "difference": harrell[0] - harrell[1],
    }


def of_months():
    """Harrell's C, and Uno's before the last horizon, of times cut to a grid of 30 days."""
    frame, score = cohort()
    time = np.floor(frame["time"] / MONTH)
    outcome = Surv.from_arrays(frame["event"] == 1, time)
    tau = np.floor(HORIZONS[-1] / MONTH)
    return {
        "harrell": [concordance_index(time, -s, frame["event"]) for s in score.T],
        "uno": [concordance_index_ipcw(outcome, outcome, s, tau=tau)[0] for s in score.T],
    }


def brier(ours):
    """IPCW Brier scores and their integral over the same times, for an exponential baseline."""
    _, score = cohort()
    cells = ours["cells"]
    predicted = np.exp(-HAZARD * cells)[None] ** np.exp(score[:, [0]])
    outcome = _outcome()
    return {
        "brier": brier_score(outcome, outcome, predicted, cells)[1],
        "integrated": integrated_brier_score(outcome, outcome, predicted, cells),
    }


def calibration(ours):
    """Slope, slope stratified by site (lifelines stops 7e-9 from it); expected and observed risk, net benefit."""
    del ours
    frame, score = cohort()
    time, event = frame["time"], frame["event"]
    found = {name: [] for name in ("slope", "within_sites", "expected", "observed", "net_benefit")}
    for s in score.T:
        for name, strata in (("slope", None), ("within_sites", frame["site"])):
            model = PHReg(time, s[:, None], status=event, strata=strata, ties="efron")
            found[name].append(model.fit(method="newton", tol=1e-13, disp=False).params[0])
    everybody = KaplanMeierFitter().fit(time, event)
    for h, baseline in zip(HORIZONS, BASELINE, strict=True):
        risk = 1 - baseline ** np.exp(score[:, 0])
        found["expected"].append(risk.mean())
        found["observed"].append(1 - float(everybody.predict(h)))
        benefit = []
        for t in THRESHOLDS:
            positive = risk >= t
            share = 1 - float(KaplanMeierFitter().fit(time[positive], event[positive]).predict(h))
            benefit.append(positive.mean() * (share - (1 - share) * t / (1 - t)))
        found["net_benefit"].append(benefit)
    return found


def best_cut(ours):
    """The largest log-rank test over all cut-offs with a tenth of the patients on either side, and its corrected p."""
    del ours
    frame = data.gbsg2()
    time, event, size = frame["time"], frame["event"], frame["tsize"].to_numpy()
    tests = {}
    for cut in np.unique(size):
        low = size < cut
        if 0.1 <= low.mean() <= 0.9:
            tests[cut] = logrank_test(time[low], time[~low], event[low], event[~low]).test_statistic
    best = max(tests, key=tests.get)
    b = np.sqrt(tests[best])
    p = stats.norm.pdf(b) * ((b - 1 / b) * np.log(0.9**2 / 0.1**2) + 4 / b)  # Miller & Siegmund 1982
    return {"cutoff": best, "chi2": tests[best], "p_corrected": p, "candidates": len(tests)}


@cache
def transplants():
    """177 transplants (Scrucca et al. 2010), four sites: leukaemia, cause, months without ties and as published."""
    lines = [line for line in TRANSPLANTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    words = " ".join(lines).split()
    months = np.array([float(word) for word in words[1::2]])
    return pd.DataFrame(
        {
            "site": np.arange(len(months)) % 4,
            "aml": [float(word[0] == "M") for word in words[::2]],
            "cause": [int(word[1]) for word in words[::2]],
            "months": months,
            "untied": np.round(months + np.arange(len(months)) * 1e-4, 4),
        }
    )


def incidence(ours):
    """Aalen-Johansen incidence and its variance at the group's own event times."""
    del ours
    frame, found = transplants(), {"incidence": [], "variance": []}
    for aml in (0, 1):
        of = frame[frame["aml"] == aml]
        fit = AalenJohansenFitter(calculate_variance=True).fit(of["untied"], of["cause"], event_of_interest=1)
        density = fit.cumulative_density_.iloc[:, 0].to_numpy()
        at = np.flatnonzero(np.diff(density) > 1e-12) + 1
        found["incidence"].extend(density[at])
        found["variance"].extend(fit.variance_.to_numpy().ravel()[at])
    return found


def gray(ours):
    """Published by Scrucca et al. 2010 (R, cmprsk) of these patients, relapse and transplant-related death."""
    del ours
    return {"chi2": [2.8623325, 0.4481279], "p": [0.09067592, 0.50322531]}
