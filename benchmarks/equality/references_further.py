"""References of further statistics: tests, numbers as outcome, networks, searches on pooled rows; nothing of ours."""

import data
import numpy as np
import references_penalised as penalised
import statsmodels.api as sm
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import brier_score_loss, mean_absolute_error, r2_score, root_mean_squared_error
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.duration.survfunc import survdiff

GBSG2 = penalised.GBSG2
SEVEN = ["x01", "x04", "x08", "x09", "x11", "x14", "x18"]
WEAK = ["x09", "x11", "x14", "x18"]
FEATURES = [f"x{i:02d}" for i in range(30)]
THRESHOLDS = tuple(i / 100 for i in range(5, 100, 5))
ENTER, REMOVE = 0.05, 0.1
CORRELATED = 0.8
STEPS, RATE = 40, 0.5
HIGH = 0.5


def cox_screen(ours):
    """Score test of each column alone in a Cox model at 0, stratified by site, Efron's ties."""
    del ours
    frame = data.gbsg2()
    x = data.standardised(frame, GBSG2)
    models = [
        PHReg(frame["time"], x[:, [j]], status=frame["event"], strata=frame["site"], ties="efron") for j in range(8)
    ]
    zero = np.zeros(1)
    chi2 = np.array([float(model.score(zero)[0] ** 2 / -model.hessian(zero)[0, 0]) for model in models])
    return {"chi2": chi2, "p": stats.chi2.sf(chi2, 1)}


def counted(frame):
    """Four weak columns as they would be recorded with few digits."""
    return np.clip(np.rint(data.standardised(frame, WEAK) * 4), -5, 7)


def mann_whitney(ours):
    """p by outcome of columns with few values."""
    del ours
    frame = data.breast_cancer()
    return {"log_p": np.log(_ranks(counted(frame), frame["y"].to_numpy()))}


def mann_whitney_inside(ours):
    """p of all features where it lies inside the printed bounds, else one that is far away."""
    frame = data.breast_cancer()
    p = _ranks(frame[FEATURES].to_numpy(), frame["y"].to_numpy())
    inside = (np.array(ours["least"]) <= p * (1 + 1e-9)) & (p <= np.array(ours["most"]) * (1 + 1e-9))
    return {"outside": np.where(inside, 0.0, np.inf)}


def _ranks(x, y):
    return stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue


def predictions():
    """A number of breast_cancer (x20) and two predictions of no model."""
    frame = data.breast_cancer()
    y = frame["x20"].to_numpy()
    noise = np.random.default_rng(14).standard_normal((len(y), 2))
    return frame, y, np.column_stack([0.9 * y + 1 + 1.2 * noise[:, 0], y.mean() + 0.6 * (y - y.mean()) + noise[:, 1]])


def numbers(ours):
    """Errors, explained variance, correlation, calibration line, limits of agreement, paired test of errors."""
    del ours
    _, y, predicted = predictions()
    names = ("r_squared", "rmse", "mae", "mae_ci", "correlation", "correlation_ci", "line", "line_ci", "agreement")
    found = {name: [] for name in names}
    for s in predicted.T:
        error, line, r = s - y, sm.OLS(y, sm.add_constant(s)).fit(), stats.pearsonr(y, s)
        values = (
            r2_score(y, s), root_mean_squared_error(y, s), mean_absolute_error(y, s),
            list(stats.ttest_1samp(np.abs(error), 0).confidence_interval()), r.statistic,
            list(r.confidence_interval()), line.params, line.conf_int(),
            error.mean() + stats.norm.ppf(0.975) * error.std(ddof=1) * np.array([-1, 0, 1]),
        )  # fmt: skip
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    longer = np.abs(predicted[:, 0] - y) - np.abs(predicted[:, 1] - y)
    z = longer.mean() / (longer.std(ddof=1) / np.sqrt(len(y)))
    return found | {"difference": longer.mean(), "z": z, "p": 2 * stats.norm.sf(abs(z))}


def risk():
    """A risk of breast_cancer on the grid of 1e-4, and the outcome."""
    frame = data.breast_cancer()
    return frame, data.score(frame, ["x01", "x04"], 1.0, 5), frame["y"].to_numpy()


def brier_parts(ours):
    """Reliability, resolution, uncertainty and calibration error of tenths of the patients; interventions avoided."""
    del ours
    _, score, y = risk()
    order = np.argsort(score, kind="stable")
    lower = np.searchsorted(score[order], score, side="left")  # of equal scores all are in the group of the first
    tenth = 10 * lower // len(y)
    n, mean, share = (
        np.array([f(tenth == k) for k in np.unique(tenth)])
        for f in (np.sum, lambda of: score[of].mean(), lambda of: y[of].mean())
    )
    weight, whole = n / n.sum(), y.mean()
    t = np.array(THRESHOLDS)
    low = np.rint(score * 1e4)[:, None] < np.rint(t * 1e4)
    free, missed = (low & (y == 0)[:, None]).mean(0), (low & (y == 1)[:, None]).mean(0)
    return {
        "reliability": weight @ (mean - share) ** 2, "resolution": weight @ (share - whole) ** 2,
        "uncertainty": whole * (1 - whole), "ece": weight @ np.abs(mean - share),
        "scaled": 1 - brier_score_loss(y, score) / (whole * (1 - whole)),
        "avoided": 100 * (free - missed * (1 - t) / t),
    }  # fmt: skip


def cox_net(ours):
    """Cox elastic net stratified by site, and its held-out partial likelihood (Verweij & van Houwelingen)."""
    frame = data.gbsg2()
    x, fold = data.standardised(frame, GBSG2), penalised.folds(frame)
    everybody, null = _partial(frame, x), _saturated(frame)
    path = _net_path(everybody, ours["lambdas"])
    deviance, events = [], []
    for k in range(penalised.FOLDS):
        kept = fold != k
        others, of_others = _partial(frame[kept], x[kept]), _saturated(frame[kept])
        fits = _net_path(others, ours["lambdas"])
        held_out = [(null - everybody.loglike(b)) - (of_others - others.loglike(b)) for b in fits]
        events.append(frame.loc[~kept, "event"].sum())
        deviance.append(2 * np.array(held_out) / events[-1])
    mean = np.average(deviance, axis=0, weights=events)
    return {"coefficients": path, "cv_deviance": mean}


def _partial(frame, x):
    return PHReg(frame["time"], x, status=frame["event"], strata=frame["site"], ties="breslow")


def _saturated(frame):
    """Log partial likelihood of a model that knows who dies: minus the sum of d log d over tied deaths of a site."""
    deaths = frame[frame["event"] == 1].groupby(["site", "time"]).size().to_numpy()
    return -(deaths * np.log(deaths)).sum()


def _net_path(model, penalties):
    found, b, n = [], np.zeros(model.exog.shape[1]), model.nobs
    for penalty in penalties:
        for _ in range(60):
            gradient = -model.score(b) / n
            if penalised._violation(gradient, b, penalty, penalised.MIXING) <= penalised.CERTIFIED:
                break
            root = np.linalg.cholesky(-model.hessian(b) / n).T
            target = np.linalg.solve(root.T, root.T @ (root @ b) - gradient)
            b = penalised._net(root, target, penalty / len(b), penalised.MIXING, intercept=False)[1:]
        else:
            raise RuntimeError("no certified solution")
        found.append(b)
    return np.array(found)


def pruned(ours):
    """Columns left after dropping, from the strongest |t| on, whatever correlates above the bound with one kept."""
    del ours
    frame = data.breast_cancer()
    x, y = frame[FEATURES].to_numpy(), frame["y"].to_numpy()
    t = np.abs(stats.ttest_ind(x[y == 1], x[y == 0]).statistic)
    r, kept = np.abs(np.corrcoef(x.T)), []
    for j in np.argsort(-t, kind="stable"):
        if not kept or r[j, kept].max() <= CORRELATED:
            kept.append(int(j))
    return {"kept": np.isin(np.arange(30), kept)}


def stepwise_by_p(ours):
    """Forward and backward by the likelihood-ratio test of one variable at a time."""
    del ours
    frame = data.breast_cancer()
    y, current, last = frame["y"].to_numpy(float), set(), None

    def fitted(names):
        x = sm.add_constant(data.standardised(frame, sorted(names))) if names else np.ones((len(y), 1))
        return sm.Logit(y, x).fit(disp=False, method="newton", tol=1e-14).llf

    while True:
        here = fitted(current)
        p = {name: stats.chi2.sf(2 * abs(fitted(current ^ {name}) - here), 1) for name in SEVEN}
        out = [name for name in current if p[name] > REMOVE]
        into = [name for name in SEVEN if name not in current and p[name] < ENTER]
        if not out and not into:
            return {"kept": [name in current for name in SEVEN], "last_p": last}
        name = max(out, key=p.get) if out else min(into, key=p.get)
        current, last = current ^ {name}, p[name]


def logistic_head(ours):
    """A network without a hidden layer after full-batch gradient steps on the pooled patients, in float64."""
    x, y = _five()
    w = np.asarray(ours["start"], float)
    for _ in range(STEPS):
        wrong = 1 / (1 + np.exp(-(x @ w[:-1] + w[-1]))) - y
        w = w - RATE * np.append(x.T @ wrong, wrong.sum()) / len(y)
    return {"weights": w}


def logistic_risk(ours):
    """Risks of the same head trained on the pooled patients: its maximum-likelihood fit."""
    del ours
    x, y = _five()
    return {"risk": sm.Logit(y, sm.add_constant(x)).fit(disp=False, method="newton", tol=1e-14).predict()}


def _five():
    frame = data.breast_cancer()
    return data.standardised(frame, SEVEN[:5]), frame["y"].to_numpy(float)


def reml(ours):
    """Root of the restricted score over the sites' own fits, coefficient by coefficient (Viechtbauer 2005)."""
    del ours
    frame = data.breast_cancer()
    x, y, site = data.standardised(frame, SEVEN[:3]), frame["y"].to_numpy(float), frame["site"].to_numpy()
    able = [site == s for s in np.unique(site) if min(np.bincount(y[site == s].astype(int), minlength=2)) >= 5]
    fits = [sm.Logit(y[i], sm.add_constant(x[i])).fit(method="newton", tol=1e-14, disp=False) for i in able]
    found = {name: [] for name in ("tau2", "coefficients", "se")}
    all_effects, all_variances = np.array([f.params for f in fits]).T, np.array([f.bse**2 for f in fits]).T
    for effects, variances in zip(all_effects, all_variances, strict=True):

        def at(tau2, b=effects, v=variances):
            w = 1 / (v + tau2)
            mean = w @ b / w.sum()
            return w**2 @ (b - mean) ** 2 - w.sum() + (w**2).sum() / w.sum(), mean, w.sum() ** -0.5

        tau2 = brentq(lambda t, at=at: at(t)[0], 0, 100, xtol=1e-14) if at(0)[0] > 0 else 0.0
        for name, value in zip(found, (tau2, *at(tau2)[1:]), strict=True):
            found[name].append(value)
    return found


def nodes():
    """gbsg2, its number of nodes over ten as a score, and the grade of each tumour."""
    frame = data.gbsg2()
    return frame, np.rint(frame["pnodes"].to_numpy() * 1e3) / 1e4, frame["tgrade"].to_numpy()


def log_rank_by_grade(ours):
    """Log-rank test of two risk groups, stratified by grade."""
    del ours
    frame, score, grade = nodes()
    chi2, p = survdiff(frame["time"], frame["event"], score >= HIGH, strata=grade)
    return {"chi2": chi2, "p": p}
