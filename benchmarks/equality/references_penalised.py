"""References of penalised models: scikit-learn's coordinate descent inside Newton steps; nothing of ours.

Each solution is certified: where the optimality conditions do not hold to 1e-11 the reference fails.
"""

import warnings

import data
import numpy as np
import statsmodels.api as sm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet
from statsmodels.duration.hazard_regression import PHReg

EIGHT = ["x01", "x04", "x08", "x09", "x11", "x14", "x18", "x21"]
THREE = ["x01", "x04", "x08"]
GBSG2 = ["horTh", "age", "menostat", "tsize", "tgrade", "pnodes", "progrec", "estrec"]
FOLDS = 5
MIXING = 0.5
CERTIFIED = 1e-11


def folds(frame):
    """Inner fold of each patient: its place within its site."""
    return frame.groupby("site").cumcount().to_numpy() % FOLDS


def _net(x, y, penalty, mixing, weight=None, *, intercept=True):
    """Coordinate descent; it is certified by who calls it, not by its own stopping rule."""
    net = ElasticNet(alpha=penalty, l1_ratio=mixing, tol=1e-17, max_iter=1_000, fit_intercept=intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(x, y, sample_weight=weight)
    return np.concatenate([[net.intercept_ if intercept else 0.0], net.coef_])


def _violation(gradient, slopes, penalty, mixing):
    """Of the optimality conditions; `gradient` of the mean loss."""
    gradient = gradient + penalty * (1 - mixing) * slopes
    at_zero = np.maximum(np.abs(gradient) - penalty * mixing, 0)
    return np.where(slopes != 0, np.abs(gradient + np.sign(slopes) * penalty * mixing), at_zero).max(initial=0.0)


def _logistic(x, y, penalty, mixing):
    b = np.zeros(x.shape[1] + 1)
    for _ in range(60):
        z = b[0] + x @ b[1:]
        risk = 1 / (1 + np.exp(-z))
        if max(abs((risk - y).mean()), _violation(x.T @ (risk - y) / len(y), b[1:], penalty, mixing)) <= CERTIFIED:
            return b
        weight = risk * (1 - risk)
        b = _net(x, z + (y - risk) / weight, penalty * len(y) / weight.sum(), mixing, weight)
    raise RuntimeError("no certified solution")


def _deviance(b, x, y):
    z = b[0] + x @ b[1:]
    return 2 * (np.logaddexp(0, z) - y * z).mean()


def cross_validated(mixing):
    """Path, cross-validated deviance and the chosen penalties of a logistic model, at the same penalties."""

    def theirs(ours):
        frame = data.breast_cancer()
        x, y, fold = data.standardised(frame, EIGHT), frame["y"].to_numpy(float), folds(frame)
        path = np.array([_logistic(x, y, penalty, mixing) for penalty in ours["lambdas"]])
        deviance = np.empty((FOLDS, len(path)))
        for k in range(FOLDS):
            out = fold == k
            for at, penalty in enumerate(ours["lambdas"]):
                deviance[k, at] = _deviance(_logistic(x[~out], y[~out], penalty, mixing), x[out], y[out])
        size = np.bincount(fold)
        mean = np.average(deviance, axis=0, weights=size)
        se = np.sqrt(np.average((deviance - mean) ** 2, axis=0, weights=size) / (FOLDS - 1))
        low = int(mean.argmin())
        return {
            "coefficients": path, "cv_deviance": mean, "cv_se": se, "index_min": low,
            "index_1se": int(np.argmax(mean <= mean[low] + se[low])),
        }  # fmt: skip

    return theirs


def linear_net(ours):
    """Elastic net of a standardised number (x20) on eight others; the last row is least squares."""
    frame = data.breast_cancer()
    x, y = data.standardised(frame, EIGHT), data.standardised(frame, ["x20"])[:, 0]
    path = [_net(x, y, penalty, MIXING) for penalty in ours["lambdas"]]
    for penalty, b in zip(ours["lambdas"], path, strict=True):
        if _violation(x.T @ (b[0] + x @ b[1:] - y) / len(y), b[1:], penalty, MIXING) > CERTIFIED:
            raise RuntimeError("no certified solution")
    return {"coefficients": np.array(path), "least_squares": sm.OLS(y, sm.add_constant(x)).fit().params}


def least_squares(ours):
    """Linear regression of a standardised number (x20): coefficients, SE, p by Student's t, R squared, F."""
    del ours
    frame = data.breast_cancer()
    x, y = data.standardised(frame, EIGHT), data.standardised(frame, ["x20"])[:, 0]
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    return {
        "coefficients": fit.params, "se": fit.bse, "p": fit.pvalues, "r_squared": fit.rsquared,
        "adjusted": fit.rsquared_adj, "f": fit.fvalue,
    }  # fmt: skip


def cox(ours):
    """Cox LASSO stratified by site, Breslow's ties: Newton steps on statsmodels' score and curvature."""
    frame = data.gbsg2()
    x, n = data.standardised(frame, GBSG2), len(frame)
    model = PHReg(frame["time"], x, status=frame["event"], strata=frame["site"], ties="breslow")
    found, b = [], np.zeros(8)
    for penalty in ours["lambdas"]:
        for _ in range(60):
            gradient = -model.score(b) / n
            if _violation(gradient, b, penalty, 1.0) <= CERTIFIED:
                break
            root = np.linalg.cholesky(-model.hessian(b) / n).T
            target = np.linalg.solve(root.T, root.T @ (root @ b) - gradient)
            b = _net(root, target, penalty / len(b), 1.0, intercept=False)[1:]
        else:
            raise RuntimeError("no certified solution")
        found.append(b)
    return {"coefficients": np.array(found)}


def local_average(ours):
    """Mean of the own maximum-likelihood fits of the sites with five patients of each class, weighted by patients."""
    del ours
    frame = data.breast_cancer()
    x, y, site = data.standardised(frame, THREE), frame["y"].to_numpy(float), frame["site"].to_numpy()
    able = [site == s for s in np.unique(site) if min(np.bincount(y[site == s].astype(int), minlength=2)) >= 5]
    fits = [_maximum(x[at], y[at]) for at in able]
    return {"coefficients": np.average(fits, axis=0, weights=[at.sum() for at in able])}


def exact(ours):
    """The pooled maximum-likelihood fit."""
    del ours
    frame = data.breast_cancer()
    return {"coefficients": _maximum(data.standardised(frame, THREE), frame["y"].to_numpy(float))}


def _maximum(x, y):
    return sm.Logit(y, sm.add_constant(x)).fit(method="newton", tol=1e-14, disp=False).params


def exact_lasso(ours):
    """The pooled LASSO at the penalty that the federation's cross-validation chose."""
    frame = data.breast_cancer()
    x, y = data.standardised(frame, EIGHT), frame["y"].to_numpy(float)
    return {"coefficients": _logistic(x, y, ours["penalty"], 1.0)}
