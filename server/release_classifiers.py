"""Release classifiers: the sums that networks, vector machines and boosted trees are trained on, and their sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cohortium.common.federation import Statistic
from cohortium.common.study import Study
from cohortium.common.study_models import GradientBoostingModel, LinearSvmModel, MlpModel, RffSvmModel
from cohortium.server.release_sizes import NOBODY, Share
from cohortium.strategies import gradient_boosting, linear_svm, mlp
from cohortium.strategies.random_features import Kernel
from cohortium.strategies.rows import Labelled

KINDS = ("mlp", "staging", "linear_svm", "rff_svm", "gradient_boosting")


def classifier_sums(study: Study, model: Any) -> Iterator[tuple[str, Statistic, Callable[[int], Share]]]:
    """What is added to the purpose, the statistic, and its share for a number of columns; staging asks for nothing."""
    if isinstance(model, MlpModel):
        hidden = list(model.hidden)
        yield (
            f" in {model.iterations} rounds",
            mlp.gradient,
            lambda p: (_labelled(p), {"weights": np.zeros(mlp.size(p, hidden)), "hidden": hidden}),
        )
    elif isinstance(model, LinearSvmModel | RffSvmModel):
        yield from _machine(study, model)
    elif isinstance(model, GradientBoostingModel):
        yield "", gradient_boosting.occupancy, lambda p: (_labelled(p), {})

        def histograms(p: int) -> Share:
            heap = np.zeros((1, 2 ** (model.max_depth + 1) - 1))
            trees = {"feature": heap.astype(np.int64) - 1, "threshold": heap, "value": heap}
            cuts = np.zeros((p, model.max_bin - 1))
            return _labelled(p), {**trees, "base": 0.0, "cuts": cuts, "level": model.max_depth - 1}

        yield f" in {model.trees} trees of depth {model.max_depth}", gradient_boosting.histograms, histograms


def _machine(
    study: Study, model: LinearSvmModel | RffSvmModel
) -> Iterator[tuple[str, Statistic, Callable[[int], Share]]]:
    made = isinstance(model, RffSvmModel)
    kernel = list(Kernel(1.0, model.components, study.study.seed)) if isinstance(model, RffSvmModel) else None

    def coefficients(p: int) -> np.ndarray:
        return np.zeros(1 + (model.components if isinstance(model, RffSvmModel) else p))

    def loss(p: int) -> Share:
        return _labelled(p), {"coefficients": coefficients(p), "held_out": linear_svm.NOBODY, "kernel": kernel}

    def sigmoid(p: int) -> Share:
        fitted = np.tile(coefficients(p), (linear_svm.FOLDS, 1))
        return _labelled(p), {"coefficients": fitted, "kernel": kernel, "line": np.zeros(2), "targets": [0.0, 1.0]}

    what = f" on {model.components} random features" if made else ""
    yield f"{what} in {linear_svm.SUMS} rounds at most", linear_svm.loss, loss
    yield ", its probabilities", linear_svm.sigmoid, sigmoid


def _labelled(columns: int) -> Labelled:
    return Labelled(np.empty((0, columns)), NOBODY, NOBODY.astype(np.int64))
