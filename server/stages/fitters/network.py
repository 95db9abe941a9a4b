"""Network: the rounds of FedAvg of one replicate of a [model.NAME] of kind network."""

from typing import Any, cast

from cohortium.common.heads import Head
from cohortium.common.study_analysis import NetworkModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, labelled
from cohortium.strategies import fedavg


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Weights after the last round, or after the best one where there is patience."""
    del path
    model = cast(NetworkModel, federation.study.model[name])
    head = Head(inputs=len(columns), hidden=tuple(model.head))
    trained = fedavg.fit(
        federation.rows(labelled(rows, columns)),
        head,
        seed=federation.study.study.seed,
        rounds=model.rounds,
        local_epochs=model.local_epochs,
        batch_size=model.batch_size,
        optimizer=model.optimizer,
        learning_rate=model.learning_rate,
        class_weight=model.class_weight,
        patience=model.patience,
    )
    return Fit(
        columns=columns,
        published={**columns.recipe, "head": list(model.head), "weights": trained.weights},
        notes={"loss": list(trained.losses), "shares": list(trained.shares), "rounds": len(trained.losses)},
    )
