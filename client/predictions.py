"""Predictions: each patient's scores, written at the site and staying there, so that the figures can be recomputed."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.study_data import level_text
from cohortium.strategies import views
from cohortium.strategies.view_patients import further_repeats, unseen


def write_predictions(context: views.Context, models: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write predictions.csv, one row a patient.

    Columns: patient_id, part, with cross-validation fold, the endpoint columns as the study names them (1 is the
    positive value), and ``score.MODEL`` on the 1e-4 grid (of a continuous endpoint in full). With cross-validation
    ``score.MODEL`` is out-of-fold in train and ``fit.MODEL`` the final model's; ``repeat2.MODEL`` ... are out-of-fold
    with the folds of further repeats. Where the study leaves sites out, ``loso.MODEL`` comes from the model that has
    not seen the patient's site (outside train it is the final model's). They are empty where a fit that would give them
    could not be made: such figures are withheld.
    ``subgroup.VARIABLE`` is the level of each variable that a subgroup, a log-rank test or a secondary analysis is
    cut by.

    Parameters
    ----------
    models : list of {"name", "object"}
    """
    table, folds = context.table, bool(context.study.split.folds)
    columns: dict[str, Sequence[Any]] = {"patient_id": table.patient_id.tolist(), "part": table.part.tolist()}
    if folds:
        columns["fold"] = ["" if fold < 0 else int(fold) for fold in views.folds_of(context)]
    for name, endpoint in context.study.endpoint.items():
        stem = f"endpoint.{name}"
        if endpoint.kind != "survival":
            columns[endpoint.column] = [_number(value) for value in table.columns[stem]]
        else:
            columns[endpoint.time] = [_number(value) for value in table.columns[f"{stem}.time"]]
            columns[endpoint.event] = [_number(value) for value in table.columns[f"{stem}.event"]]
            if endpoint.competing:
                columns[f"competing.{endpoint.event}"] = [_number(v) for v in table.columns[f"{stem}.competing"]]
    for model in models:
        final = views.score(context, model["object"], "final")
        scores = _of_unseen(context, model["object"], "out_of_fold") if folds else final
        written = _number if context.objects[model["object"]]["outcome"] == "continuous" else _on_grid
        columns[f"score.{model['name']}"] = [written(value) for value in scores]
        if folds:
            columns[f"fit.{model['name']}"] = [written(value) for value in final]
        for repeat in further_repeats(context.study):
            again = _of_unseen(context, model["object"], repeat)
            columns[f"{repeat}.{model['name']}"] = [written(value) for value in again]
        if context.study.validation.leave_one_site_out:
            elsewhere = _of_unseen(context, model["object"], "left_out_site")
            columns[f"loso.{model['name']}"] = [written(value) for value in elsewhere]
    validation = context.study.validation
    for name in dict.fromkeys(
        [*validation.subgroups, *validation.logrank_strata, *(v for a in validation.analysis for v in a.where)]
    ):
        levels = context.study.variables[name].levels
        columns[f"subgroup.{name}"] = ["" if np.isnan(c) else level_text(levels[int(c)]) for c in table.columns[name]]
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    draft.replace(path)


def _of_unseen(context: views.Context, model: str, of: str) -> NDArray[np.float64]:
    """Scores of patients whom a model has not seen; NaN where one of the fits could not be made."""
    made = context.objects[model]["replicates"]
    if any(views.key_of(without) not in made for _, without in unseen(context, of)):
        return np.full(len(context.table), np.nan)
    return views.score(context, model, of)


def _on_grid(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _number(value: float) -> str:
    """Shortest text that reads back as the same number; empty where it is missing."""
    if np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
