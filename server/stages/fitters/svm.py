"""SVM: the machine of one replicate of a [model.NAME] of kind linear_svm or rff_svm, scaled to probabilities."""

from typing import Any, cast

from cohortium.common.study_models import LinearSvmModel, RffSvmModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, labelled, to_study_units
from cohortium.strategies import linear_svm
from cohortium.strategies.random_features import Kernel


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Coefficients of the log-odds after Platt scaling: of the columns, or of their random features."""
    del path
    model = cast(LinearSvmModel | RffSvmModel, federation.study.model[name])
    kernel = None
    if isinstance(model, RffSvmModel):
        kernel = Kernel(model.gamma or 1 / len(columns), model.components, federation.study.study.seed)
    view = labelled(rows, columns, inner_folds=linear_svm.FOLDS)
    machine = linear_svm.fit(federation.rows(view), len(columns), penalty=model.C, kernel=kernel)
    notes = {
        "platt": {"slope": machine.slope, "offset": machine.offset},
        "objective": machine.objective,
        "rounds": machine.sums,
    }
    published = {**columns.recipe, "coefficients": machine.logit}
    if kernel is not None:
        return Fit(columns=columns, published={**published, "kernel": list(kernel)}, notes=notes)
    estimates = to_study_units(columns) @ machine.logit
    return Fit(
        columns=columns, published=published, terms=("(Intercept)", *columns.names), estimates=estimates, notes=notes
    )
