"""MLP: the full-batch training of one replicate of a [model.NAME] of kind mlp."""

from typing import Any, cast

from cohortium.common.study_models import MlpModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, labelled
from cohortium.strategies import mlp


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Weights after the last iteration; a sum each."""
    del path
    model = cast(MlpModel, federation.study.model[name])
    trained = mlp.fit(
        federation.rows(labelled(rows, columns)),
        len(columns),
        hidden=model.hidden,
        iterations=model.iterations,
        l2=model.l2,
        optimizer=model.optimizer,
        learning_rate=model.learning_rate,
        seed=federation.study.study.seed,
    )
    return Fit(
        columns=columns,
        published={**columns.recipe, "hidden": list(model.hidden), "weights": trained.weights},
        notes={"loss": list(trained.losses), "rounds": len(trained.losses), "patients": trained.patients},
    )
