"""Classifiers: how fine a question of network, machine or tree training may be, held against the approved study.

Gradients and histograms add over patients, but the coordinator chooses the weights, trees and bins that they are taken
at. Shapes are those that the study names; a histogram's cells hold at least five patients on average.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.common.study_analysis import NetworkModel
from cohortium.common.study_models import MOST_COLUMNS, GradientBoostingModel, MlpModel, RffSvmModel
from cohortium.strategies import permutation, shapley
from cohortium.strategies.gradient_boosting import PATIENTS_A_CELL
from cohortium.strategies.linear_svm import FOLDS

STATISTICS = {
    "mlp.gradient": ("mlp",),
    "linear_svm.loss": ("linear_svm", "rff_svm"),
    "linear_svm.sigmoid": ("linear_svm", "rff_svm"),
    "gradient_boosting.occupancy": ("gradient_boosting",),
    "gradient_boosting.histograms": ("gradient_boosting",),
}
"""Statistics of training, and the kinds of model that ask for them."""


def check(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], patients: int) -> None:
    """Refuse training that the study does not name.

    Parameters
    ----------
    patients : int
        Of all sites, public.

    Raises
    ------
    SumRefused
    """
    models = [
        model
        for model in study.model.values()
        if model.kind in STATISTICS[statistic] and model.endpoint == view["endpoint"]
    ]
    if not any(_as_approved(study, model, statistic, parameters, patients) for model in models):
        raise SumRefused(
            statistic,
            "the study trains no such model of this endpoint, or its layers, components, depth or bins are others, or "
            f"cells would hold fewer than {PATIENTS_A_CELL} patients; ask for what the sites approved",
        )


def _as_approved(study: Study, model: Any, statistic: str, parameters: Mapping[str, Any], patients: int) -> bool:
    if isinstance(model, MlpModel):
        return list(parameters["hidden"]) == list(model.hidden)
    if statistic.startswith("linear_svm."):
        kernel = parameters["kernel"]
        if isinstance(model, RffSvmModel):
            return kernel is not None and list(kernel[1:]) == [model.components, study.study.seed]
        return kernel is None
    if statistic == "gradient_boosting.histograms" and isinstance(model, GradientBoostingModel):
        columns, bins = parameters["cuts"].shape[0], parameters["cuts"].shape[1] + 1
        trees, nodes = np.shape(parameters["feature"])
        finest = 2 ** (model.max_depth - 1) * bins
        return (
            columns <= MOST_COLUMNS
            and trees <= model.trees
            and nodes == 2 ** (model.max_depth + 1) - 1
            and 0 <= parameters["level"] < model.max_depth
            and bins <= model.max_bin
            and (bins == 2 or finest * PATIENTS_A_CELL <= patients)
        )
    return True


def check_explained(
    study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], patients: int
) -> None:
    """Refuse explanations of a model's score that the study does not ask for, or over other patients.

    Parameters
    ----------
    patients : int
        Of all sites, public: the part of them that is explained follows from it.

    Raises
    ------
    SumRefused
    """
    fit, endpoint = parameters["fit"], view["rows"]["endpoint"]
    if statistic == permutation.replaced.name:
        asked, group, variables = "permutation", endpoint, len(parameters["replacements"])
        as_approved = True
        part = permutation.halvings(patients, variables)
    else:
        asked, group, (rows, variables) = "shap", None, np.shape(parameters["orders"])
        as_approved = rows == shapley.BACKGROUND
        part = shapley.halvings(patients, variables)
    if variables > shapley.MOST_VARIABLES:  # the more there are, the fewer patients are explained
        why = f"contributions of more than {shapley.MOST_VARIABLES} variables; no model has so many"
        raise SumRefused(statistic, why)
    explained = asked in study.validation.explain and any(
        model.endpoint == endpoint and _same_form(study, model, fit) for model in study.model.values()
    )
    of_patients = view["kind"] == "keyed" and view.get("group") == group and parameters["halvings"] == part
    if not explained or not as_approved or not of_patients:
        raise SumRefused(
            statistic,
            f"the study explains no such model of this endpoint by {asked}, or by fewer permutations, of fewer "
            "variables or over other patients; ask for what the sites approved",
        )


def _same_form(study: Study, model: Any, fit: Mapping[str, Any]) -> bool:
    """Whether a score is of the form that a model's is, which is named by its keys."""
    keys = set(fit)
    if isinstance(model, RffSvmModel):
        kernel = list(fit.get("kernel", ()))[1:]
        return keys == {"coefficients", "kernel"} and kernel == [model.components, study.study.seed]
    if isinstance(model, MlpModel):
        return keys == {"weights", "hidden"} and list(fit["hidden"]) == list(model.hidden)
    if isinstance(model, NetworkModel):
        return keys == {"weights", "head"} and list(fit["head"]) == list(model.head)
    if isinstance(model, GradientBoostingModel) and keys == {"trees", "base"}:
        trees, nodes = np.shape(fit["trees"]["feature"])
        return trees <= model.trees and nodes == 2 ** (model.max_depth + 1) - 1
    return False


def inner_folds(study: Study) -> set[int]:
    """How many inner folds the machines of a study are scaled with; empty where it has none."""
    return {FOLDS for model in study.model.values() if model.kind in STATISTICS["linear_svm.sigmoid"]}
