"""References of logistic and Cox inference: statsmodels and lifelines, or Newton's method on pooled rows; not ours."""

import warnings

import data
import numpy as np
import pandas as pd
import statsmodels.api as sm
from lifelines import CoxPHFitter
from lifelines.statistics import proportional_hazard_test
from scipy import optimize, special, stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.outliers_influence import variance_inflation_factor

FOUR = ["x01", "x04", "x08", "x09"]
SEVEN = ["x01", "x04", "x05", "x08", "x09", "x11", "x14"]
ROSSI = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
PRECISE = {"precision": 1e-14, "r_precision": 1e-16, "max_steps": 200}


def _logit(columns):
    frame = data.breast_cancer()
    return sm.Logit(frame["y"].to_numpy(), sm.add_constant(data.standardised(frame, columns))).fit(
        method="newton", tol=1e-14, disp=False
    )


def criteria(ours):
    """Likelihood-ratio test, AIC, BIC, variance inflation."""
    del ours
    frame = data.breast_cancer()
    fit, design = _logit(FOUR), sm.add_constant(data.standardised(frame, FOUR))
    events, n = frame["y"].sum(), len(frame)
    null = events * np.log(events / n) + (n - events) * np.log(1 - events / n)
    chi2 = 2 * (fit.llf - null)
    return {
        "chi2": chi2, "p": stats.chi2.sf(chi2, 4), "aic": fit.aic, "bic": fit.bic,
        "vif": [variance_inflation_factor(design, k) for k in range(1, 5)],
    }  # fmt: skip


def stepwise(ours):
    """Backward and forward by AIC from all seven, model after model."""
    del ours
    current, best = set(SEVEN), _aic(SEVEN)
    while True:
        tried = [(_aic(sorted(current ^ {name})), name) for name in SEVEN]
        lowest, name = min(tried)
        if lowest >= best - 1e-7:
            return {"kept": [name in current for name in SEVEN], "aic": best}
        best, current = lowest, current ^ {name}


def _aic(columns):
    return _logit(columns).aic


def separated():
    """Three columns and a finding that only patients with the outcome have."""
    frame = data.breast_cancer()
    x = np.column_stack([data.standardised(frame, FOUR[:3]), frame["x00"] > 18.3])
    assert frame.loc[x[:, 3] == 1, "y"].all()
    return frame, (x - x.mean(0)) / x.std(0, ddof=1)


def firth(ours):
    """Root of Firth's modified score: Newton's steps with the inverse information."""
    del ours
    frame, x = separated()
    design, y = np.column_stack([np.ones(len(x)), x]), frame["y"].to_numpy(float)
    b = np.zeros(design.shape[1])
    for _ in range(500):
        risk = special.expit(design @ b)
        weight = risk * (1 - risk)
        covariance = np.linalg.inv(design.T @ (design * weight[:, None]))
        leverage = weight * ((design @ covariance) * design).sum(1)
        step = covariance @ (design.T @ (y - risk + leverage * (0.5 - risk)))
        b = b + step * min(1.0, 1.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-14:
            break
    likelihood = y @ (design @ b) - np.logaddexp(0, design @ b).sum() - np.linalg.slogdet(covariance)[1] / 2
    return {"coefficients": b, "se": np.sqrt(np.diag(covariance)), "penalised_log_likelihood": likelihood}


def marked():
    """Every third convict, and a marker that all who were arrested had: its partial likelihood has no maximum."""
    frame = data.rossi().iloc[::3].reset_index(drop=True)
    x = np.column_stack([frame["age"], frame["prio"], (frame["event"] == 1) | (np.arange(len(frame)) % 3 == 0)])
    return frame, (x - x.mean(0)) / x.std(0)


def firth_cox(ours):
    """Maximum of the penalised partial likelihood (Efron), death by death; gradients by complex steps of 1e-30."""
    del ours
    frame, x = marked()
    time, event = frame["time"].to_numpy(), frame["event"].to_numpy()

    def penalised(b):
        value, information, w = 0.0, np.zeros((3, 3), complex), np.exp(x @ b)
        for t in np.unique(time[event == 1]):
            died = (time == t) & (event == 1)
            for j in range(died.sum()):
                share = w * (time >= t) * (1 - j / died.sum() * died)
                apart = x - share @ x / share.sum()
                information = information + apart.T @ (apart * share[:, None]) / share.sum()
                value = value - np.log(share.sum())
            value = value + (x[died] @ b).sum()
        return value + np.log(np.linalg.det(information)) / 2

    def score(b):
        return np.array([penalised(b + 1e-30j * e).imag / 1e-30 for e in np.eye(3)])

    b = optimize.root(score, np.zeros(3), tol=1e-14).x
    return {"coefficients": b, "penalised_log_likelihood": penalised(b.astype(complex)).real}


def dummies(ours):
    """Coefficients beside a dummy of each site."""
    del ours
    frame = data.breast_cancer()
    design = np.column_stack([data.standardised(frame, FOUR), pd.get_dummies(frame["site"]).to_numpy(float)])
    fit = sm.Logit(frame["y"].to_numpy(), design).fit(method="newton", tol=1e-14, disp=False)
    return {"coefficients": fit.params[:4], "se": fit.bse[:4], "log_likelihood": fit.llf}


def random_intercept(ours):
    """Maximum of the marginal likelihood: each site's integral by the trapezoid rule at 1,001 points, in numpy."""
    del ours
    frame = data.breast_cancer()
    x, y, site = data.standardised(frame, FOUR), frame["y"].to_numpy(float), frame["site"].to_numpy()
    u = np.linspace(-9, 9, 1001)

    def at(parameters):
        """Log-likelihood and gradient in coefficients and log standard deviation."""
        sd, value, slope = np.exp(parameters[-1]), 0.0, np.zeros(len(parameters))
        for s in np.unique(site):
            design = np.column_stack([np.ones((site == s).sum()), x[site == s]])
            z = (design @ parameters[:-1])[:, None] + sd * u
            log = y[site == s] @ z - np.logaddexp(0, z).sum(0) - u**2 / 2
            weight = np.exp(log - log.max())
            value += log.max() + np.log(weight.sum() * (u[1] - u[0])) - np.log(2 * np.pi) / 2
            residual = y[site == s][:, None] - special.expit(z)
            weight /= weight.sum()
            slope += np.append(design.T @ (residual @ weight), sd * (residual.sum(0) * u) @ weight)
        return value, slope

    start = np.append(_logit(FOUR).params, 0.0)
    found = optimize.root(lambda v: at(v)[1], start, tol=1e-13, method="hybr")
    return {
        "coefficients": found.x[:-1], "sd": np.exp(found.x[-1]), "log_likelihood": at(found.x)[0],
    }  # fmt: skip


def meta_analysis(ours):
    """DerSimonian and Laird over the sites' own fits, coefficient by coefficient; sites with five of each class."""
    del ours
    frame = data.breast_cancer()
    x, y, site = data.standardised(frame, FOUR[:3]), frame["y"].to_numpy(float), frame["site"].to_numpy()
    able = [site == s for s in np.unique(site) if min(np.bincount(y[site == s].astype(int), minlength=2)) >= 5]
    fits = [sm.Logit(y[i], sm.add_constant(x[i])).fit(method="newton", tol=1e-14, disp=False) for i in able]
    found = {name: [] for name in ("q", "tau2", "i2", "common", "coefficients", "se")}
    for k in range(4):
        effects, variances = np.array([f.params[k] for f in fits]), np.array([f.bse[k] ** 2 for f in fits])
        with np.errstate(invalid="ignore"):
            theirs = combine_effects(effects, variances, method_re="dl")
        kept = theirs.tau2 > 0  # else the common effect; statsmodels would go on with a negative variance
        found["q"].append(theirs.q)
        found["tau2"].append(max(theirs.tau2, 0.0))
        found["i2"].append(max(theirs.i2, 0.0))
        found["common"].append(theirs.mean_effect_fe)
        found["coefficients"].append(theirs.mean_effect_re if kept else theirs.mean_effect_fe)
        found["se"].append(theirs.sd_eff_w_re if kept else theirs.sd_eff_w_fe)
    return found


def _rossi():
    frame = data.rossi()
    return pd.DataFrame(data.standardised(frame, ROSSI), columns=ROSSI).assign(time=frame["time"], event=frame["event"])


def _lifelines(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the last step is below its own idea of progress
        return CoxPHFitter().fit(frame, "time", "event", fit_options=PRECISE)


def hazards_test(ours):
    """Test of proportional hazards, times as they are, column by column."""
    del ours
    frame = _rossi()
    test = proportional_hazard_test(_lifelines(frame), frame, time_transform="identity")
    return {"chi2": test.test_statistic, "p": test.p_value}


def cox_tests(ours):
    """Likelihood-ratio test, partial AIC; score test at zero (Efron)."""
    del ours
    frame = _rossi()
    fit = _lifelines(frame)
    test = fit.log_likelihood_ratio_test()
    model = sm.PHReg(frame["time"], frame[ROSSI].to_numpy(), status=frame["event"], ties="efron")
    gradient, zero = model.score(np.zeros(7)), np.zeros(7)
    return {
        "chi2": test.test_statistic, "p": test.p_value, "aic": fit.AIC_partial_,
        "score": gradient @ np.linalg.solve(-model.hessian(zero), gradient),
    }  # fmt: skip
