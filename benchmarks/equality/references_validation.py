"""References of validation: scikit-learn, statsmodels, lifelines, plain counting on pooled rows; nothing of ours."""

import data
import numpy as np
import statsmodels.api as sm
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

THRESHOLDS = tuple(i / 100 for i in range(5, 100, 5))


def scores():
    """Two risks of breast_cancer on the grid of 1e-4, and the outcome."""
    frame = data.breast_cancer()
    first = data.score(frame, ["x01", "x04"], 1.0, 5)
    second = data.score(frame, ["x08", "x09", "x00"], 1.5, 6)
    return np.column_stack([first, second]), frame["y"].to_numpy()


def _placements(score, y):
    cases, controls = score[y == 1], score[y == 0]
    above = (cases[:, None] > controls).astype(float) + 0.5 * (cases[:, None] == controls)
    return above.mean(1), above.mean(0)


def auc(ours):
    """AUC and DeLong's standard error of two scores; DeLong's test of their difference (pair by pair)."""
    del ours
    score, y = scores()
    placed = [_placements(score[:, m], y) for m in (0, 1)]
    v10, v01 = np.cov([v for v, _ in placed]), np.cov([v for _, v in placed])
    covariance = v10 / (y == 1).sum() + v01 / (y == 0).sum()
    areas = np.array([roc_auc_score(y, score[:, m]) for m in (0, 1)])
    difference = areas[0] - areas[1]
    z = difference / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return {
        "auc": areas, "se": np.sqrt(np.diag(covariance)), "z": z, "p": 2 * stats.norm.sf(abs(z)),
        "average_precision": [average_precision_score(y, score[:, m]) for m in (0, 1)],
        "brier": [brier_score_loss(y, score[:, m]) for m in (0, 1)],
    }  # fmt: skip


def calibration(ours):
    """Calibration-in-the-large, slope and their standard errors."""
    del ours
    score, y = scores()
    z = [np.log(s / (1 - s)) for s in score.T]
    large = [sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=v).fit(tol=1e-14) for v in z]
    slope = [sm.Logit(y, sm.add_constant(v)).fit(disp=False, tol=1e-14, method="newton") for v in z]
    half = stats.norm.ppf(0.975)
    return {
        "intercept": [float(fit.params[0]) for fit in large],
        "intercept_ci": [[fit.params[0] - half * fit.bse[0], fit.params[0] + half * fit.bse[0]] for fit in large],
        "slope": [float(fit.params[1]) for fit in slope],
        "slope_ci": [[fit.params[1] - half * fit.bse[1], fit.params[1] + half * fit.bse[1]] for fit in slope],
    }


def decision_curve(ours):
    """Net benefit by counting."""
    del ours
    score, y = scores()
    t = np.array(THRESHOLDS)
    called = np.rint(score.T * 1e4)[:, :, None] >= np.rint(t * 1e4)
    true, false = (called & (y == 1)[:, None]).mean(1), (called & (y == 0)[:, None]).mean(1)
    return {"net_benefit": true - false * t / (1 - t)}


def risk_groups():
    """gbsg2 with a linear predictor of no model on the grid, and high or low by its median."""
    frame = data.gbsg2()
    score = data.standardised(frame, ["pnodes", "tgrade"]).sum(1)
    score = np.rint((score + np.random.default_rng(8).standard_normal(len(frame))) * 1e4) / 1e4
    return frame, score


def kaplan_meier(ours):
    """Survival and Greenwood's log-log interval on the days with an event or a censoring; log-rank by grade."""
    frame, _ = risk_groups()
    fit = KaplanMeierFitter().fit(frame["time"], frame["event"])
    at = fit.survival_function_.index.to_numpy()
    where = np.searchsorted(at, np.asarray(ours["time"]), side="right") - 1
    high = frame["tgrade"] >= 3
    test = logrank_test(frame["time"][high], frame["time"][~high], frame["event"][high], frame["event"][~high])
    return {
        "survival": fit.survival_function_.to_numpy()[where, 0],
        "chi2": test.test_statistic,
        "p": test.p_value,
    }


def concordance(ours):
    """Harrell's C of all pairs."""
    del ours
    frame, score = risk_groups()
    return {"c": concordance_index(frame["time"], -score, frame["event"])}
