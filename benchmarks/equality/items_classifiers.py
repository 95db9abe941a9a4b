"""Items of other classifiers: networks by gradient sums, support vector machines, boosted trees."""

from typing import Any

import data
import numpy as np
import references_classifiers as references
from federations import at_sites
from item import Federate, Item

from cohortium.strategies import gradient_boosting, linear_svm, mlp
from cohortium.strategies.random_features import Kernel, features
from cohortium.strategies.rows import Labelled

KERNEL = Kernel(gamma=references.GAMMA, components=100, seed=11)


def _sites() -> list[Labelled]:
    frame = data.breast_cancer()
    x, y = references.rows()
    fold = frame.groupby("site").cumcount().to_numpy() % linear_svm.FOLDS
    return at_sites(Labelled, frame, x=x, y=y, fold=fold)


def _network(federate: Federate) -> dict[str, Any]:
    sites, hidden = federate(_sites()), references.HIDDEN
    fits = [mlp.fit(sites, 10, hidden=hidden, iterations=steps, **references.TRAINING) for steps in references.STEPS]
    start = mlp.initial_weights(10, hidden, references.TRAINING["seed"])
    return {"weights": np.array([fit.weights for fit in fits]), "start": start}


def _svm(federate: Federate) -> dict[str, Any]:
    return {"coefficients": linear_svm.fit(federate(_sites()), 10, penalty=references.PENALTY).coefficients}


def _rff_svm(federate: Federate) -> dict[str, Any]:
    fit = linear_svm.fit(federate(_sites()), 10, penalty=references.PENALTY, kernel=KERNEL)
    x, _ = references.rows()
    labels = (linear_svm.decision(x, fit.coefficients, KERNEL) > 0).astype(float)
    return {
        "coefficients": fit.coefficients, "features": features(x, KERNEL), "labels": labels, "labelled_otherwise": 0.0,
    }  # fmt: skip


def _boosting(federate: Federate) -> dict[str, Any]:
    fit = gradient_boosting.fit(federate(_sites()), **references.TREES)
    x, _ = references.rows()
    splits = np.array([[np.sum(tree == j) for j in range(10)] for tree in fit.trees.feature])
    margin = gradient_boosting.linear_predictor(fit.trees, fit.base, x)
    return {"margin": margin, "splits": splits, "cuts": fit.cuts}


BREAST = "breast_cancer, 4 sites"
GRADIENTS = "; ours has gradients alone (two matrices of active patients would differ by one), hence 1e-6"
ITEMS = (
    Item(name="network by gradient sums: weights after 1 and 200 steps of Adam", data=BREAST, ours=_network,
         theirs=references.network, reference="torch, float64, full batch"),
    Item(name="linear support vector machine, squared hinge: coefficients", data=BREAST, ours=_svm,
         theirs=references.svm, target=1e-6, reference=f"Newton's method to a gradient of 1e-11{GRADIENTS}"),
    Item(name="RFF-SVM (random Fourier features): coefficients", data=BREAST, ours=_rff_svm,
         theirs=references.svm_of_features, target=1e-6, reference=f"Newton's method on the same features{GRADIENTS}"),
    Item(name="RFF-SVM, NOT equal to the kernel machine: share of patients labelled otherwise", data=BREAST,
         ours=_rff_svm, theirs=references.kernel_machine, target=0.03,
         reference="scikit-learn SVC; 100 random features approximate its kernel, no bound is certified"),
    Item(name="gradient boosting, 15 trees: margins, and the features that each tree splits", data=BREAST,
         ours=_boosting, theirs=references.boosting, target=1e-5, absent=references.without_xgboost,
         reference="xgboost hist on the same bins; its gradients and leaves are float32, hence 1e-5"),
)  # fmt: skip
