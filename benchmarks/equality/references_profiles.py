"""References of profile intervals: roots of penalised scores inside a root of the likelihood they leave; not ours.

An end of an interval is where the penalised likelihood, at its maximum over the other coefficients, has lost half the
95 % quantile of chi-squared (Heinze & Schemper 2002).
"""

import numpy as np
from references_inference import marked, separated
from scipy import optimize, special, stats

LOST = stats.chi2.ppf(0.95, 1) / 2
FARTHER = 1.5
"""Standard errors by which an end is bracketed, step by step."""


def logistic(ours):
    """Firth's logistic regression with an intercept; ends and tests of the others."""
    del ours
    frame, x = separated()
    design, y = np.column_stack([np.ones(len(x)), x]), frame["y"].to_numpy(float)

    def penalised(b):
        risk = special.expit(design @ b)
        root = design * np.sqrt(risk * (1 - risk))[:, None]
        leverage = (np.linalg.qr(root)[0] ** 2).sum(1)
        value = y @ (design @ b) - np.logaddexp(0, design @ b).sum() + np.linalg.slogdet(root.T @ root)[1] / 2
        return value, design.T @ (y - risk + leverage * (0.5 - risk)), root.T @ root

    return _profiles(penalised, 5, range(1, 5))


def cox(ours):
    """Firth's Cox model, Efron's ties."""
    del ours
    frame, x = marked()
    time, event = frame["time"].to_numpy(), frame["event"].to_numpy()
    places = [np.flatnonzero((time == t) & (event == 1)) for t in np.unique(time[event == 1])]
    shares = np.array([
        (time >= time[died[0]]) * (1 - j / len(died) * np.isin(np.arange(len(x)), died))
        for died in places for j in range(len(died))
    ])  # fmt: skip

    def value(b):
        """With its information; at complex coefficients too, whose imaginary part gives derivatives."""
        weight = shares * np.exp(x @ b)
        total = weight.sum(1)
        mean = (weight @ x) / total[:, None]
        square = np.einsum("dn,ni,nj->ij", weight / total[:, None], x, x) - mean.T @ mean
        return (x[event == 1] @ b).sum() - np.log(total).sum() + np.log(np.linalg.det(square)) / 2, square

    def penalised(b):
        slope = np.array([value(b + 1e-30j * e)[0].imag / 1e-30 for e in np.eye(3)])
        found, information = value(b.astype(complex))
        return found.real, slope, information.real

    return _profiles(penalised, 3, range(3))


def _profiles(penalised, size, wanted):
    """Ends and p of some coefficients; ``penalised(b)`` is value, score and information."""
    top = optimize.root(lambda b: penalised(b)[1], np.zeros(size), tol=1e-14).x
    best, _, information = penalised(top)
    errors, found = np.sqrt(np.diag(np.linalg.inv(information))), {"low": [], "high": [], "log_p": []}

    def left(k, value, start):
        """What is left of the loss allowed where one coefficient has a value, and all coefficients there."""
        free = np.arange(size) != k

        def held(b):
            full = np.insert(b, k, value)
            return -penalised(full)[1][free]

        b = np.insert(optimize.root(held, start[free], tol=1e-14).x, k, value)
        if np.abs(penalised(b)[1][free]).max() > 1e-9:
            raise RuntimeError("no root of the score")
        return penalised(b)[0] - best + LOST, b

    def at_zero(k):
        """Likelihood left where one coefficient is zero; the others are followed there from the maximum."""
        b = top
        for value in np.linspace(top[k], 0.0, 9)[1:]:
            above, b = left(k, value, b)
        return above

    for k in wanted:
        for name, side in (("low", -1), ("high", 1)):
            inside, b = top[k], top
            while True:
                outside = inside + side * FARTHER * errors[k]
                above, there = left(k, outside, b)
                if above < 0:
                    break
                inside, b = outside, there
            found[name].append(
                optimize.brentq(lambda v, k=k, b=b: left(k, v, b)[0], *sorted((inside, outside)), xtol=1e-13)
            )
        found["log_p"].append(stats.chi2.logsf(2 * (LOST - at_zero(k)), 1))
    return found
