"""Outside: in what a new patient differs from those that a model was made of, in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from cohortium.client.predict.saved import Model
from cohortium.common.model_files import Covariance
from cohortium.common.study_data import level_text
from cohortium.strategies import applicability
from cohortium.strategies.rows import Array

SHOWN = 3
"""Features of a set that a line names."""


def outside(model: Model, values: Mapping[str, Array], recorded: Mapping[str, Array], z: Array) -> list[list[str]]:
    """Warnings of each patient.

    Parameters
    ----------
    values : variable -> (n,)
        As given, NaN = missing.
    recorded : model -> (n, p)
        Its columns in study units, NaN = missing.
    z : (n, p)
        Columns of the model itself, filled and standardised.
    """
    found = [[] for _ in z]
    for i, warnings in enumerate(found):
        for name, columns in recorded.items():
            warnings += [text for text in _far(model, name, columns[i], values, i) if text not in warnings]
        warnings += _levels(model, {name: float(column[i]) for name, column in values.items()})
    covariance = model.saved.description.covariance
    if isinstance(covariance, Covariance):
        for warnings, text in zip(found, _together(covariance, z), strict=True):
            warnings += text
    return found


def _far(model: Model, name: str, recorded: Array, values: Mapping[str, Array], patient: int) -> list[str]:
    """Columns of one model in which a patient is more than three standard deviations from the mean."""
    training = model.saved.description.training.get(name)
    if training is None:
        return []
    variables, texts = model.saved.study.variables, []
    sets: dict[str, dict[str, float]] = {}
    for column, centre, scale, value in zip(training.columns, training.centre, training.scale, recorded, strict=False):
        if column in variables and variables[column].kind != "continuous":
            continue
        if column in variables and np.isnan(values[column][patient]):
            continue  # filled, not seen
        if "=" in column or column.endswith(":missing") or not scale > 0 or np.isnan(value):
            continue
        distance = (value - centre) / scale
        if column.startswith("features."):
            sets.setdefault(column.split("/")[0], {})[column] = float(distance)
        elif abs(distance) > applicability.FAR:
            unit = variables[column].unit if column in variables else ""
            what = f"{column} = {value:.4g}{' ' + unit if unit else ''}"
            if column.startswith("model."):
                what = f"the score of model {column.removeprefix('model.')} ({value:.3g})"
            texts.append(f"{what} is {_deviations(distance)} the mean of the training patients ({centre:.4g})")
    return texts + [text for owner, distances in sets.items() for text in _far_features(owner, distances)]


def _far_features(owner: str, distances: Mapping[str, float]) -> list[str]:
    """Of a feature set, whose columns are many."""
    columns, values = list(distances), np.array(list(distances.values()))
    far = applicability.far_columns(values)
    if not len(far):
        return []
    named = ", ".join(f"{columns[i]} ({values[i]:+.1f})" for i in far[:SHOWN])
    return [
        f"{len(far)} of {len(columns)} columns of {owner} are more than {applicability.FAR:g} standard deviations "
        f"from the mean of the training patients; farthest: {named}"
    ]


def _deviations(distance: float) -> str:
    return f"{abs(distance):.1f} standard deviations {'above' if distance > 0 else 'below'}"


def _levels(model: Model, values: Mapping[str, float]) -> list[str]:
    """Levels that no or few training patients had."""
    description, texts = model.saved.description, []
    for name, value in values.items():
        variable = model.saved.study.variables[name]
        if variable.kind == "continuous" or np.isnan(value):
            continue
        terms, level = variable.terms, int(value)
        what = f"{name} = {level_text(variable.levels[level])}"
        if level and terms[level - 1] in description.constant:
            texts.append(f"{what}: no training patient had it, or all had; the model says nothing of it")
            continue
        shares = [description.shares.get(term) for term in terms]
        share = shares[level - 1] if level else _rest(shares)
        if share is None or description.patients is None:
            continue
        if share * description.patients < applicability.FEW_PATIENTS - 0.5:
            texts.append(f"{what} is rare: fewer than {applicability.FEW_PATIENTS} training patients had it")
    return texts


def _rest(shares: Sequence[float | None]) -> float | None:
    """Share of the reference level, where those of all others are known."""
    known = [share for share in shares if share is not None]
    return 1 - sum(known) if len(known) == len(shares) else None


def _together(covariance: Covariance, z: Array) -> list[list[str]]:
    """Whether the columns, each likely, are unlikely together."""
    known = applicability.Remembered(covariance.information, np.array(covariance.middle))
    matrix = np.array(covariance.matrix)
    limit = applicability.farthest_likely(max(z.shape[1], 1))
    squared = applicability.squared_distance(z, matrix, intercept=covariance.intercept, known=known)
    return [
        [
            f"the predictors taken together are unlike those of the training patients: squared Mahalanobis distance "
            f"{d2:.1f}, and {applicability.RARE:.1%} of patients like them lie beyond {limit:.1f} (chi-square, "
            f"{z.shape[1]} columns)"
        ]
        if d2 > limit
        else []
        for d2 in squared.tolist()
    ]
