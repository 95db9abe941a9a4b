"""References of classifiers: torch, xgboost, scikit-learn, and Newton's method on pooled rows; nothing of ours."""

from importlib.util import find_spec
from itertools import pairwise

import data
import numpy as np
from sklearn.svm import SVC

TEN = [f"x{i:02d}" for i in range(10)]
HIDDEN = (5, 3)
TRAINING = {"optimizer": "adam", "learning_rate": 0.02, "l2": 0.01, "seed": 4}
STEPS = (1, 200)
PENALTY = 1.0
GAMMA = 0.1
TREES = {"trees": 15, "max_depth": 3, "learning_rate": 0.3, "l2": 1.0, "min_child_weight": 5.0, "max_bin": 32}


def without_xgboost():
    """Why boosting cannot be compared here."""
    return "" if find_spec("xgboost") else "xgboost is not installed"


def rows():
    """Ten standardised columns of breast_cancer, the outcome."""
    frame = data.breast_cancer()
    return data.standardised(frame, TEN), frame["y"].to_numpy(float)


def network(ours):
    """Weights after 1 and after 200 full-batch steps of Adam in float64, from the same public start."""
    import torch

    x, y = (torch.tensor(part) for part in rows())
    widths, start, parts = [10, *HIDDEN, 1], ours["start"], []
    for before, after in pairwise(widths):
        linear = torch.nn.Linear(before, after, dtype=torch.float64)
        size = before * after
        weight, bias, start = start[:size], start[size : size + after], start[size + after :]
        linear.load_state_dict({"weight": torch.tensor(weight.reshape(after, before)), "bias": torch.tensor(bias)})
        parts += [linear, torch.nn.Tanh()]
    model = torch.nn.Sequential(*parts[:-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=TRAINING["learning_rate"])
    found = []
    for step in range(1, max(STEPS) + 1):
        optimiser.zero_grad()
        penalty = sum((linear.weight**2).sum() for linear in parts[::2])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
        (loss + TRAINING["l2"] / 2 * penalty).backward()
        optimiser.step()
        if step in STEPS:
            found.append(torch.cat([part.detach().ravel() for part in model.parameters()]).numpy().copy())
    return {"weights": np.array(found)}


def svm(ours):
    """Minimum of |w|^2 / 2 + C sum of squared hinges, the intercept penalised as liblinear does: Newton's method."""
    del ours
    x, y = rows()
    return {"coefficients": _squared_hinge(x, y)}


def svm_of_features(ours):
    """The same on the random cosines that the study publishes."""
    return {"coefficients": _squared_hinge(ours["features"], rows()[1])}


def _squared_hinge(x, y):
    design, sign = np.column_stack([np.ones(len(x)), x]), 2 * y - 1
    w = np.zeros(design.shape[1])
    for _ in range(100):
        short = 1 - sign * (design @ w)
        at = short > 0
        gradient = w - 2 * PENALTY * design[at].T @ (sign[at] * short[at])
        if np.abs(gradient).max() < 1e-11:
            return w
        w = w - np.linalg.solve(np.eye(len(w)) + 2 * PENALTY * design[at].T @ design[at], gradient)
    raise RuntimeError("no certified solution")


def kernel_machine(ours):
    """Share of patients whom the machine with the exact kernel labels otherwise; none, were the two equal."""
    x, y = rows()
    return {"labelled_otherwise": np.mean(SVC(C=PENALTY, gamma=GAMMA).fit(x, y).predict(x) != ours["labels"])}


def boosting(ours):
    """Margin of xgboost's hist on the same bins, and which features each tree splits, how often."""
    import xgboost

    x, y = rows()
    bins = [np.searchsorted(cut, column, side="right") for cut, column in zip(ours["cuts"], x.T, strict=True)]
    matrix = xgboost.DMatrix(np.column_stack(bins).astype(np.float32), y)
    options = {
        "objective": "binary:logistic", "tree_method": "hist", "max_bin": 256, "base_score": y.mean(), "nthread": 1,
        "max_depth": TREES["max_depth"], "eta": TREES["learning_rate"], "lambda": TREES["l2"],
        "min_child_weight": TREES["min_child_weight"],
    }  # fmt: skip
    model = xgboost.train(options, matrix, TREES["trees"])
    nodes = model.trees_to_dataframe()
    splits = np.zeros((TREES["trees"], 10))
    for tree, feature in zip(nodes.Tree, nodes.Feature, strict=True):
        if feature != "Leaf":
            splits[tree, int(feature.removeprefix("f"))] += 1
    return {"margin": model.predict(matrix, output_margin=True), "splits": splits}
