"""References of explanations of any score: the scores written anew, Shapley's definition, scikit-learn's AUC.

Nothing of ours: trees are walked node by node, networks are matrix products, random cosines are drawn as published.
"""

import itertools
import math

import data
import numpy as np
from scipy import special
from sklearn.metrics import roc_auc_score

GROUP = np.array([0, 1, 1, 2, 3])  # texture, size in three levels (two columns), smoothness, symmetry
RATES = np.array([0.5, 1.2, 2.0, 0.7, 0.4])
FITS = {
    "linear": {"coefficients": np.array([-1.1, *RATES])},
    "mlp": {
        "hidden": [3],
        "weights": np.array([*(0.6 * RATES), *(-0.4 * RATES[::-1]), *np.sin(np.arange(5.0)), 0.3, -0.2, 0.1,
                             2, -1.5, 0.7, -0.4]),
    },
    "network": {
        "head": [4],
        "weights": np.array([*RATES, *-RATES, *np.cos(np.arange(10.0)), 0.2, 0.4, -0.1, 0.3,
                             1, -0.8, 0.6, 0.5, -0.6], np.float32),
    },
    "rff_svm": {"kernel": [0.3, 40, 7], "coefficients": 1.5 * np.cos(np.arange(41.0))},
    "gradient_boosting": {
        "base": -0.5,
        "trees": {
            "feature": np.array([[2, 0, 4, -1, -1, -1, -1], [1, 3, -1, -1, -1, -1, -1], [0, -1, 3, -1, -1, -1, -1]]),
            "threshold": np.array([[0.5, 0.1, -0.4, 0, 0, 0, 0], [0.5, 0.3, 0, 0, 0, 0, 0], [1, 0, -0.2, 0, 0, 0, 0]]),
            "value": np.array([[0, 0, 0, -1.1, -0.3, 0.4, 1.6], [0, 0, 1, -0.6, 0.2, 0, 0], [0, -0.4, 0, 0, 0, 0, 1]]),
        },
    },
}  # fmt: skip
"""Scores of every form, whose weights are given: what is compared is their explanation."""


def rows():
    """Standardised columns of breast_cancer, size cut in three levels, and the outcome."""
    frame = data.breast_cancer()
    frame = frame.assign(**{f"level{k}": (np.digitize(frame["x00"], [12.5, 15.0]) == k) * 1.0 for k in (1, 2)})
    return data.standardised(frame, ["x01", "level1", "level2", "x04", "x08"]), frame["y"].to_numpy()


def levels():
    """The three levels as rows of the two columns of size, and their shares."""
    x, _ = rows()
    return np.unique(x[:, 1:3], axis=0, return_counts=True)


def score(kind, x):
    """Log-odds of every row of x (n, 5)."""
    fit = FITS[kind]
    if kind == "gradient_boosting":
        heaps = zip(*(fit["trees"][field] for field in ("feature", "threshold", "value")), strict=True)
        return fit["base"] + sum(_leaf(*heap, x, 0) for heap in heaps)
    if kind in ("mlp", "network"):
        (width,), weights = fit.get("hidden") or fit["head"], np.asarray(fit["weights"], float)
        inner = x @ weights[: 5 * width].reshape(width, 5).T + weights[5 * width : 6 * width]
        bent = np.tanh(inner) if kind == "mlp" else inner.clip(0)
        return bent @ weights[6 * width : 7 * width] + weights[7 * width]
    if kind == "rff_svm":
        gamma, components, seed = fit["kernel"]
        rng = np.random.default_rng(seed)
        frequencies = rng.normal(0, np.sqrt(2 * gamma), (5, components))
        x = np.sqrt(2 / components) * np.cos(x @ frequencies + rng.uniform(0, 2 * np.pi, components))
    return fit["coefficients"][0] + x @ fit["coefficients"][1:]


def _leaf(feature, threshold, value, x, node):
    if feature[node] < 0:
        return np.full(len(x), value[node])
    below = x[:, feature[node]] < threshold[node]
    return np.where(
        below,
        _leaf(feature, threshold, value, x, 2 * node + 1),
        _leaf(feature, threshold, value, x, 2 * node + 2),
    )


def shapley(kind, background):
    """Shapley value of each variable for every patient, (n, 4): all coalitions, who is absent from background rows."""
    x, _ = rows()
    worth = {
        s: np.mean([score(kind, np.where(np.isin(GROUP, s), x, row)) for row in background], axis=0)
        for k in range(5)
        for s in itertools.combinations(range(4), k)
    }
    values = np.zeros((len(x), 4))
    for j in range(4):
        for s in worth:
            if j not in s:
                share = math.factorial(len(s)) * math.factorial(3 - len(s)) / math.factorial(4)
                values[:, j] += share * (worth[tuple(sorted((*s, j)))] - worth[s])
    return values


def shap(kind):
    """Mean value and mean |value| of each variable, mean score of patients and of background rows."""

    def figures(ours):
        values = shapley(kind, ours["background"])
        x, _ = rows()
        return {
            "mean": values.mean(0), "mean_absolute": np.abs(values).mean(0), "score": score(kind, x).mean(),
            "expected": score(kind, ours["background"]).mean(),
        }  # fmt: skip

    return figures


def shares_of_the_largest(ours):
    """Mean |value| as a share of the largest, of each kind, all orders of variables."""
    sizes = [np.abs(shapley(kind, ours["background"])).mean(0) for kind in FITS]
    return {"share": [size / size.max() for size in sizes]}


def permutation(kind):
    """Fall of the AUC over every patient with every value of the public marginal; levels move together."""

    def figures(ours):
        x, y = rows()
        whole = roc_auc_score(y, _rounded(kind, x))
        known, counts = levels()
        even = np.ones(len(ours["marginal"][0]))
        of_measured = dict(zip((0, 2, 3), ours["marginal"], strict=True))
        falls = []
        for variable in range(4):
            values, weights = (known, counts) if variable == 1 else (of_measured[variable][:, None], even)
            drawn = np.repeat(x[None], len(values), axis=0)
            drawn[:, :, variable == GROUP] = values[:, None]
            scores, weights = _rounded(kind, drawn.reshape(-1, 5)), np.repeat(weights, len(x))
            falls.append(whole - roc_auc_score(np.tile(y, len(values)), scores, sample_weight=weights))
        return {"auc": whole, "falls": falls}

    return figures


def _rounded(kind, x):
    return np.rint(special.expit(score(kind, x)) * 1e4) / 1e4
