"""Select: a model's ordered list of selection steps, each on the training patients of one replicate."""

from typing import Any, NamedTuple

import numpy as np

from cohortium.common.study_analysis import Correlation, Icc, Mrmr, Screen, StepwiseAic, StepwiseP
from cohortium.common.study_models import Model
from cohortium.server.federation import StudyFederation
from cohortium.server.stages import agreement, stepwise
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.penalised import path_view, penalised_path
from cohortium.strategies import correlation, cox_screen, mrmr, rank_correlation, rank_tests, screening
from cohortium.strategies.rows import Array


class Selected(NamedTuple):
    """Columns that all steps keep, the LASSO path if a step made one, and what each step kept."""

    columns: Columns
    path: Any
    steps: list[dict[str, Any]]  # {"method", "from", "kept"}, and what a kind of step adds


def select(
    federation: StudyFederation, model: Model, rows: dict[str, Any], columns: Columns, patients: int
) -> Selected:
    """Take a model's selection steps in order.

    A categorical variable is kept or dropped whole. Screening keeps at most floor(patients / 4) columns, which is also
    what a correlation matrix may have: more would nearly give the rows away (statistics.md).
    """
    path = None
    strength: Array | None = None  # |t| of each column, once a step asked for it
    steps: list[dict[str, Any]] = []
    for step in model.selection:
        if len(columns) == 0:
            break
        told = {"method": step.method, "from": len(columns)}
        if isinstance(step, Screen) and step.test == "t":
            test = _t_test(federation, rows, columns)
            kept = screening.screen(test, step.p, keep_at_most=patients // 4)
            strength = np.abs(test.t)
            told["test"] = step.test
        elif isinstance(step, Screen) and step.test == "cox":
            view = path_view(federation, rows, columns)
            kept = cox_screen.screen(cox_screen.score_tests(federation.rows(view)), step.p, keep_at_most=patients // 4)
            told["test"] = step.test
        elif isinstance(step, Screen):
            found = _rank_test(federation, step, rows, columns, patients // 4)
            kept = found.kept
            told |= {"test": step.test, "refined": found.undecided}
        elif isinstance(step, Correlation | Mrmr):
            if strength is None:
                strength = np.abs(_t_test(federation, rows, columns).t)
            if isinstance(step, Correlation):
                kept = correlation.prune(_correlation(federation, step.coefficient, rows, columns), strength, step.r)
            else:
                kept = mrmr.select(strength**2, _correlation(federation, "pearson", rows, columns), step.keep)
        elif isinstance(step, Icc):
            kept, way = agreement.select(federation, rows, columns, step)
            told |= way
        elif isinstance(step, StepwiseAic | StepwiseP):
            kept, way = stepwise.select(federation, model, rows, columns, step)
            told |= way
        else:
            path = penalised_path(federation, rows, columns, step)
            kept = path.selected
        whole = columns.whole_variables(kept)
        columns = columns.take(whole)
        strength = None if strength is None else strength[whole]
        steps.append(told | {"kept": len(columns)})
    return Selected(columns, path, steps)


def _t_test(federation: StudyFederation, rows: dict[str, Any], columns: Columns) -> screening.ScreenResult:
    return screening.t_test(federation.rows(_standardised(rows, columns)), len(columns))


def _rank_test(
    federation: StudyFederation, step: Screen, rows: dict[str, Any], columns: Columns, most: int
) -> rank_tests.RankScreen:
    return rank_tests.screen(
        federation.rows(_standardised(rows, columns)),
        len(columns),
        step.p,
        test="auc" if step.test == "auc" else "mann_whitney",
        keep_at_most=most,
        centre=columns.centre,
        scale=columns.scale,
        fill=columns.fill,
    )


def _correlation(federation: StudyFederation, coefficient: str, rows: dict[str, Any], columns: Columns) -> Array:
    sums = federation.rows(_standardised(rows, columns))
    return rank_correlation.spearman(sums) if coefficient == "spearman" else correlation.gram(sums)


def _standardised(rows: dict[str, Any], columns: Columns) -> dict[str, Any]:
    return {"kind": "matrix", "rows": rows, "group": rows["endpoint"], **columns.recipe}
