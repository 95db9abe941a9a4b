"""References of fitted models: statsmodels, lifelines and scikit-survival on pooled rows; nothing of the package."""

import data
import numpy as np
import pandas as pd
import statsmodels.api as sm
from lifelines import CoxPHFitter

SEVEN = ["x00", "x01", "x04", "x05", "x08", "x09", "x11"]
PATH = [f"x{i:02d}" for i in range(30)]
ROSSI = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
GBSG2 = ["horTh", "age", "menostat", "tsize", "tgrade", "pnodes", "progrec", "estrec"]
LUNG = ["age", "sex", "ph.ecog", "wt.loss"]


def logistic(ours):
    """Maximum likelihood: coefficients, standard errors, p, log-likelihood."""
    del ours
    frame = data.breast_cancer()
    x = sm.add_constant(data.standardised(frame, SEVEN))
    fit = sm.Logit(frame["y"].to_numpy(), x).fit(method="newton", maxiter=100, tol=1e-14, disp=False)
    return {"coefficients": fit.params, "se": fit.bse, "p": fit.pvalues, "log_likelihood": fit.llf}


def lasso(ours):
    """The optimum at each of the same penalties, by Newton steps on the active set until KKT holds to 1e-12."""
    frame = data.breast_cancer()
    x, y = data.standardised(frame, PATH), frame["y"].to_numpy(float)
    start = np.zeros(x.shape[1] + 1)
    start[0] = np.log(y.mean() / (1 - y.mean()))
    found = []
    for penalty in ours["lambdas"]:
        start = _lasso_at(x, y, penalty, start)
        found.append(start)
    return {"coefficients": np.array(found)}


def _lasso_at(x, y, penalty, start):
    n, design = len(y), np.column_stack([np.ones(len(y)), x])
    b = start.copy()
    for _ in range(500):
        risk = 1 / (1 + np.exp(-design @ b))
        gradient = design.T @ (y - risk) / n
        active = np.concatenate([[True], b[1:] != 0])
        violation = np.where(
            active[1:], np.abs(gradient[1:] - penalty * np.sign(b[1:])), np.abs(gradient[1:]) - penalty
        )
        if max(np.abs(gradient[0]), violation.max()) <= 1e-12:
            return b
        curvature = (design * (risk * (1 - risk))[:, None]).T @ design / n
        b = _descend(curvature, gradient, b, penalty)
    raise RuntimeError(f"KKT {violation.max():.1e}")


def _descend(curvature, gradient, b, penalty):
    """Coordinate descent on the quadratic about b."""
    new, linear = b.copy(), gradient + curvature @ b
    for _ in range(100_000):
        largest = 0.0
        for j in range(len(b)):
            rest = linear[j] - curvature[j] @ new + curvature[j, j] * new[j]
            value = rest if j == 0 else np.sign(rest) * max(abs(rest) - penalty, 0)
            value /= curvature[j, j]
            largest, new[j] = max(largest, abs(value - new[j])), value
        if largest <= 1e-15:
            break
    return new


def cox(name, columns, step=1.0):
    """Efron's Cox model with one baseline, times cut to a grid."""

    def theirs(ours):
        del ours
        frame = getattr(data, name)()
        x = pd.DataFrame(data.standardised(frame, columns), columns=columns)
        options = {"precision": 1e-14, "r_precision": 1e-16, "max_steps": 200}
        fitter = CoxPHFitter().fit(
            x.assign(time=np.floor(frame["time"] / step), event=frame["event"]), "time", "event", fit_options=options
        )
        return {"coefficients": fitter.params_.to_numpy(), "se": fitter.standard_errors_.to_numpy()}

    return theirs


def cox_by_site(name, columns):
    """Efron's Cox model with a baseline for each site; lifelines stops at 7e-9 from this maximum."""

    def theirs(ours):
        del ours
        frame = getattr(data, name)()
        fit = sm.PHReg(
            frame["time"].to_numpy(), data.standardised(frame, columns), status=frame["event"].to_numpy(),
            strata=frame["site"].to_numpy(), ties="efron",
        ).fit(disp=False)  # fmt: skip
        return {"coefficients": fit.params, "se": fit.bse}

    return theirs


def cox_breslow(ours):
    """Breslow's ties."""
    del ours
    frame = data.gbsg2()
    fit = sm.PHReg(
        frame["time"].to_numpy(), data.standardised(frame, GBSG2), status=frame["event"].to_numpy(), ties="breslow"
    ).fit(disp=False, tol=1e-14)
    return {"coefficients": fit.params, "se": fit.bse}
