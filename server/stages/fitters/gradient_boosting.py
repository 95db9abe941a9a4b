"""Gradient boosting: the trees of one replicate of a [model.NAME] of kind gradient_boosting."""

from typing import Any, cast

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.study_models import MOST_COLUMNS, GradientBoostingModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit, labelled
from cohortium.strategies import gradient_boosting


def fit(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    """Trees, the log-odds they start from, and how often each column was split."""
    del path
    model = cast(GradientBoostingModel, federation.study.model[name])
    if len(columns) > MOST_COLUMNS:
        raise NotIdentifiable(
            f"{len(columns)} columns are too many for a histogram of each; boosting takes {MOST_COLUMNS}: select first"
        )
    boosted = gradient_boosting.fit(
        federation.rows(labelled(rows, columns)),
        trees=model.trees,
        max_depth=model.max_depth,
        learning_rate=model.learning_rate,
        l2=model.l2,
        min_child_weight=model.min_child_weight,
        max_bin=model.max_bin,
    )
    feature = boosted.trees.feature
    splits = np.bincount(feature[feature != gradient_boosting.LEAF], minlength=len(columns))
    return Fit(
        columns=columns,
        published={**columns.recipe, "trees": boosted.trees._asdict(), "base": boosted.base},
        notes={
            "splits": dict(zip(columns.names, splits.tolist(), strict=True)),
            "bins": boosted.cuts.shape[1] + 1,
            "patients": boosted.patients,
        },
    )
