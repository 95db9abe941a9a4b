"""Score: new patients to risks with intervals, points, and what is unusual about them.

The score is made by the code that hospitals scored their patients with (strategies/views.py), so it is that of
predictions.csv. Nothing of a patient leaves the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from cohortium.client.predict.outside import outside
from cohortium.client.predict.patients import NewPatient, features_of, values_of
from cohortium.client.predict.saved import Model
from cohortium.client.predict.versions import other_versions
from cohortium.common.errors import CaseError, ModelError
from cohortium.common.model_files import Baseline, Covariance, Nomogram
from cohortium.common.study_data import level_text
from cohortium.strategies import applicability, scoring, shapley, views
from cohortium.strategies.rows import Array

LEAST_BATCH = 10
"""Patients from whom a hospital's own location and scale of harmonised features are estimated, at least."""

FILLED = {
    "median": "filled by the median of the training patients",
    "mean": "filled by the mean of the training patients",
    "mode": "filled by the commonest level of the training patients",
    "indicator": "which has a coefficient of its own",
    "chained": "filled by the equations of the study",
}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one patient; a text in place of a figure says why there is none.

    Attributes
    ----------
    score : float
        A probability, or the linear predictor of a survival model; on the 1e-4 grid.
    interval : (low, high)
        95 %, of the same; of a survival model, of the difference from a patient with mean values.
    group : "high" or "low"
        From the cut-off on it is high.
    survival : list of (time, probability or None)
        At the endpoint's horizons; None beyond the follow-up of the study.
    points : list of (variable, value, points)
    contributions : (expected, list of (variable, value, contribution))
        To the linear predictor, of which `expected` is the mean over the background; together they are the patient's.
    filled : tuple of str
        What was missing, and what stands in for it.
    refused : str
        Why there is no score; everything else is empty then.
    """

    patient_id: str
    score: float | None = None
    interval: tuple[float, float] | str = ""
    group: str | None = None
    survival: list[tuple[float, float | None]] | str = ""
    points: list[tuple[str, Any, float]] | str = ""
    contributions: tuple[float, list[tuple[str, Any, float]]] | str = ""
    filled: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: str = ""


def predict(model: Model, patients: Sequence[NewPatient]) -> list[Prediction]:
    """Score patients, in their order.

    Raises
    ------
    ModelError
        The model's folder is not whole, image features are needed and not given, or too few patients came to
        harmonise them.
    """
    values, refused, drawn = _judged(model, patients)
    usable = [patient.patient_id for patient in patients if patient.patient_id not in refused]
    if model.needs.harmonised and 0 < len(usable) < LEAST_BATCH:
        raise ModelError(
            f"the model harmonises features.{', features.'.join(model.needs.harmonised)} (ComBat): what is a "
            f"hospital's own in them is estimated from {LEAST_BATCH} of its patients at least, and {len(usable)} came; "
            "give a table of patients of one hospital with --patients, or use a model without harmonised features"
        )
    found = model.computed(lambda: _scored(model, usable, values)) if usable else []
    versions = other_versions(model.saved.description.libraries) if drawn else []
    for number, p in enumerate(found):
        if p.patient_id in drawn:  # whose images were measured here
            filled = (*p.filled, *drawn[p.patient_id])
            found[number] = replace(p, filled=filled, warnings=(*p.warnings, *versions))
    scored = {p.patient_id: p for p in found}
    return [
        scored.get(patient.patient_id)
        or Prediction(patient_id=patient.patient_id, refused="; ".join(refused[patient.patient_id]))
        for patient in patients
    ]


def _judged(
    model: Model, patients: Sequence[NewPatient]
) -> tuple[dict[str, dict[str, float]], dict[str, list[str]], dict[str, list[str]]]:
    """Numbers of each patient, why some cannot be scored, and what networks drew."""
    wanted = [column for columns in model.needs.features.values() for column in columns]
    values, refused, drawn, measurement = {}, {}, {}, None
    for patient in patients:
        numbers, wrong = values_of(patient, model.saved.study, model.needs)
        if wanted and not wrong:
            features = features_of(patient, wanted)
            if features is None:
                from cohortium.client.imaging.workers import FAILURES
                from cohortium.client.predict.images import Measurement  # SimpleITK: only where images are measured

                measurement = measurement or Measurement(model)
                try:
                    features = measurement.features(patient)
                    drawn[patient.patient_id] = measurement.drawn(patient)
                except CaseError as unusable:
                    features, wrong = {}, [str(unusable)]
                except FAILURES as failed:
                    features, wrong = {}, [f"features cannot be computed: {type(failed).__name__}: {failed}"]
            numbers |= features
        values[patient.patient_id] = numbers
        if wrong:
            refused[patient.patient_id] = wrong
    return values, refused, drawn


def _scored(model: Model, ids: list[str], values: dict[str, dict[str, float]]) -> list[Prediction]:
    names = list(dict.fromkeys(name for patient in ids for name in values[patient]))
    columns = {name: np.array([values[patient].get(name, np.nan) for patient in ids]) for name in names}
    context = model.context(ids, columns)
    score, linear = model.score(context), model.linear_predictor(context)
    if not np.isfinite(score).all():
        raise ModelError(f"model {model.saved.folder}: a score is no number; the folder is not what a run has written")
    recorded = {name: model.recorded(context, name) for name in model.needs.models}
    filled = _filled_columns(model, recorded[model.saved.description.name])
    z = _standardised(model, filled)
    variables = {name: columns[name] for name in model.needs.variables}
    warnings = outside(model, variables, recorded, z)
    cutoff = model.saved.description.cutoff
    return [
        Prediction(
            patient_id=patient,
            score=float(score[i]),
            interval=interval,
            group=None if cutoff is None else "high" if score[i] >= cutoff else "low",
            survival=_survival(model, float(linear[i])),
            points=_points(model, filled[i]),
            contributions=_contributions(model, context, filled[i]),
            filled=_filled(model, {name: float(column[i]) for name, column in variables.items()}),
            warnings=tuple(warnings[i]),
        )
        for i, (patient, interval) in enumerate(zip(ids, _intervals(model, z, linear), strict=True))
    ]


def _filled_columns(model: Model, recorded: Array) -> Array:
    """Columns of the model in study units with gaps filled, (n, p): of several imputations their mean."""
    fill = np.asarray(model.fit(model.saved.description.name)["fill"], dtype=np.float64)
    whole = np.where(np.isnan(recorded), fill, recorded)
    width = len(model.saved.description.columns)
    return whole.reshape(len(whole), -1, width).mean(axis=1) if width else whole


def _standardised(model: Model, filled: Array) -> Array:
    training = model.saved.description.training.get(model.saved.description.name)
    if training is None:
        return np.zeros(filled.shape)
    scale = np.array(training.scale)
    return (filled - training.centre) / np.where(scale > 0, scale, 1.0)


def _intervals(model: Model, z: Array, linear: Array) -> list[tuple[float, float] | str]:
    covariance = model.saved.description.covariance
    if not isinstance(covariance, Covariance):
        return [covariance] * len(z)
    error = applicability.standard_error(z, np.array(covariance.matrix), intercept=covariance.intercept)
    half = applicability.half_width(covariance.degrees_of_freedom) * error
    low, high = linear - half, linear + half
    if model.saved.description.outcome == "binary":
        low, high = special.expit(low), special.expit(high)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _survival(model: Model, linear: float) -> list[tuple[float, float | None]] | str:
    """Probability of no event by each horizon; the baseline hazard is that of a patient whose score is 0."""
    baseline = model.saved.description.baseline
    if not isinstance(baseline, Baseline):
        return baseline
    endpoint = model.saved.study.endpoint[model.saved.description.endpoint]
    horizons = getattr(endpoint, "horizon", ())
    if not horizons:
        return "the study names no horizon"
    time, hazard = np.array(baseline.time), np.array([0.0, *baseline.cumulative_hazard])
    at = np.searchsorted(time, horizons, side="right")
    probability = np.exp(-hazard[at] * np.exp(linear)).tolist()
    last = time.max(initial=0.0)
    return [(h, p if h <= last else None) for h, p in zip(horizons, probability, strict=True)]


def _points(model: Model, filled: Array) -> list[tuple[str, Any, float]] | str:
    """Points of each axis; they may lie beyond its ends for a value beyond them."""
    nomogram = model.saved.description.nomogram
    if not isinstance(nomogram, Nomogram):
        return nomogram
    slopes = dict(zip(nomogram.columns, nomogram.slopes, strict=True))
    value = dict(zip(nomogram.columns, filled.tolist(), strict=True))
    found = []
    for axis in nomogram.axes:
        name, (first, at_first) = axis.variable, axis.points[0]
        mine = [name] if name in slopes else [column for column in slopes if column.startswith(f"{name}=")]
        contribution = sum(slopes[column] * value[column] for column in mine)
        # a level's axis starts at the reference, which contributes nothing
        start = slopes[name] * float(first) if name in slopes else 0.0
        found.append((name, _shown(model, mine, value), at_first + nomogram.points_per_unit * (contribution - start)))
    return found


def _contributions(
    model: Model, context: views.Context, filled: Array
) -> tuple[float, list[tuple[str, Any, float]]] | str:
    """What each variable adds to the linear predictor of a patient who comes alone: hundreds of scores a variable."""
    if (found := model.background()) is None:
        return "the study asked for no SHAP values of this model, or its score is linear: then points are"
    if len(context.table) > 1:
        return "given of one patient at a time"
    variables, background = found
    fit = model.fit(model.saved.description.name)
    expected = float(scoring.linear_predictor(fit, background.rows).mean())
    added = shapley.contributions(fit, views.design(context, fit, (), "final"), background)[0]
    value = dict(zip(model.saved.description.columns, filled.tolist(), strict=True))
    columns = [[c for c, g in zip(value, background.group, strict=True) if g == k] for k in range(len(variables))]
    shown = [_shown(model, mine, value) for mine in columns]
    return expected, list(zip(variables, shown, added.tolist(), strict=True))


def _shown(model: Model, columns: list[str], value: dict[str, float]) -> Any:
    """A patient's value on an axis: a number, or a level."""
    name = columns[0].partition("=")[0]
    if "=" not in columns[0]:
        return value[columns[0]]
    for column in columns:
        if value[column] == 1:
            return column.partition("=")[2]
    whole = all(value[column] == 0 for column in columns)
    return level_text(model.saved.study.variables[name].levels[0]) if whole else "filled"


def _filled(model: Model, values: dict[str, float]) -> tuple[str, ...]:
    variables = model.saved.study.variables
    return tuple(
        f"{name} was missing, {FILLED[variables[name].missing]}" for name, value in values.items() if np.isnan(value)
    )
