"""Select: a model's ordered list of selection steps, each on the training patients of one replicate."""

from typing import Any

import numpy as np

from cohortium.common.study_analysis import Correlation, Model, Screen
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.penalised import penalised_path
from cohortium.strategies import correlation, screening


def select(
    federation: StudyFederation, model: Model, rows: dict[str, Any], columns: Columns, patients: int
) -> tuple[Columns, Any]:
    """Columns that all steps keep, and the LASSO path if a step made one.

    A categorical variable is kept or dropped whole. Screening keeps at most floor(patients / 4) columns, which is also
    what a correlation matrix may have: more would nearly give the rows away (statistics.md).
    """
    path = None
    strength: Any = None  # |t| of each column, from the last screen
    for step in model.selection:
        if len(columns) == 0:
            break
        if isinstance(step, Screen):
            test = _t_test(federation, model, rows, columns)
            kept = screening.screen(test, step.p, keep_at_most=patients // 4)
            strength = np.abs(test.t)
        elif isinstance(step, Correlation):
            if strength is None:
                strength = np.abs(_t_test(federation, model, rows, columns).t)
            view = _standardised(rows, columns)
            kept = correlation.prune(correlation.gram(federation.rows(view)), strength, step.r)
        else:
            path = penalised_path(federation, rows, columns, step)
            kept = path.selected
        whole = columns.whole_variables(kept)
        columns = columns.take(whole)
        strength = None if strength is None else strength[whole]
    return columns, path


def _standardised(rows: dict[str, Any], columns: Columns) -> dict[str, Any]:
    return {"kind": "matrix", "rows": rows, "group": rows["endpoint"], **columns.recipe}


def _t_test(federation: StudyFederation, model: Model, rows: dict[str, Any], columns: Columns) -> Any:
    del model
    return screening.t_test(federation.rows(_standardised(rows, columns)), len(columns))
