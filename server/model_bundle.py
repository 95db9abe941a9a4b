"""Model bundle: a fitted model, all that it is scored with, and a model card, in OUT/models/NAME.

It holds what `cohortium predict` needs without the run, in the form that a hospital scored with during it, so that
predictions are the same to the last digit. The format is in common/model_files.py.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cohortium.common.codec import pack
from cohortium.common.libraries import measuring
from cohortium.common.model_files import FORMAT, add_weights, write_model
from cohortium.common.study import Study
from cohortium.server.model_card import card
from cohortium.server.results import json_ready
from cohortium.server.stages.fitted import Fit, FittedModel
from cohortium.server.stages.inference import grouped
from cohortium.strategies import applicability
from cohortium.strategies.nomogram import END, MOST_AXES, nomogram
from cohortium.strategies.views import feature_columns

INTERCEPT = "(Intercept)"


def write_bundles(
    study: Study,
    fitted: Mapping[str, FittedModel],
    content: Mapping[str, Any],
    published: Mapping[str, bytes],
    feature_names: tuple[str, ...],
    out: Path,
) -> None:
    """Write one folder a model.

    Parameters
    ----------
    content : mapping
        What results.json holds, and ``cutoffs``.
    published : mapping of digest to bytes
        Objects of the run: harmonisations, equations that fill gaps.
    feature_names : tuple of str
        Feature columns of a prepared table.
    """
    models: dict[str, str] = {}  # digest during the run -> digest in the folder
    objects: dict[str, bytes] = {}
    for name in study.model_order:
        final = fitted[name].final
        blocks = [_moved(block, models) for block in final.published["blocks"]]
        objects |= {digest: published[digest] for digest in _used(final.published["blocks"])}
        outcome = study.endpoint_of(name).kind
        data = pack({"name": name, "outcome": outcome, "replicates": {"": {**final.published, "blocks": blocks}}})
        models[fitted[name].digest] = digest = hashlib.sha256(data).hexdigest()
        objects[digest] = data
    levels = _levels(study, fitted)
    for name, model in fitted.items():
        chain = [name, *_below(study, name)]
        needed = {models[fitted[n].digest] for n in chain}
        needed |= {digest for n in chain for digest in _used(fitted[n].final.published["blocks"])}
        sets = sorted({used for n in chain for used in study.model[n].feature_sets})
        sampling = content["models"][name].get("explanation", {}).get("shap_sampling")
        background = {"background": sampling["background"]["object"]} if sampling else {}
        description = {
            "format": FORMAT,
            "name": name,
            "study": {"name": study.study.name, "hash": study.hash},
            "kind": study.model[name].kind,
            "endpoint": study.model[name].endpoint,
            "outcome": study.endpoint_of(name).kind,
            "model": models[model.digest],
            "columns": list(model.final.columns.names),
            "terms": list(model.final.terms),
            "estimates": model.final.estimates,
            "cutoff": content["cutoffs"].get(name),
            "patients": content["models"][name]["cohorts"].get("train", {}).get("n"),
            "covariance": _covariance(study, name, model.final),
            "nomogram": _nomogram(study, model.final, content["models"][name].get("explanation", {})),
            "baseline": _baseline(study, name, model.final),
            # noised models stand on public ranges: nothing is known of where their patients were
            "training": {} if study.privacy.dp else {n: _training(fitted[n].final) for n in chain},
            **levels,
            "features": {used: feature_columns(feature_names, used) for used in sets},
            **({"libraries": libraries} if (libraries := measuring(study, sets)) else {}),
            **background,
        }
        kept = {digest: objects[digest] for digest in needed}
        kept |= {digest: published[digest] for digest in background.values()}
        write_model(out / name, json_ready(description), study, kept, card(study, name, content))
    add_weights(out, study)


def _used(blocks: list[dict[str, Any]]) -> set[str]:
    """Published objects that blocks name, other than models."""
    return {block[key] for block in blocks for key in ("harmonise", "chain") if block.get(key)}


def _moved(block: dict[str, Any], models: Mapping[str, str]) -> dict[str, Any]:
    return {**block, "model": models[block["model"]]} if "model" in block else block


def _below(study: Study, name: str) -> Iterator[str]:
    """Models below a model, each once and those further down later."""
    below = [*study.model[name].models_below]
    for other in below:
        below += [n for n in study.model[other].models_below if n not in below]
    yield from below


# --- what the training patients were like ---------------------------------------------------------------------


def _training(fit: Fit) -> dict[str, Any]:
    """Centre and scale of a model's columns; 0 and 0 of a column that nobody has."""
    known = np.isfinite(fit.columns.centre) & np.isfinite(fit.columns.scale)
    return {
        "columns": list(fit.columns.names),
        "centre": np.where(known, fit.columns.centre, 0.0),
        "scale": np.where(known, fit.columns.scale, 0.0),
    }


def _levels(study: Study, fitted: Mapping[str, FittedModel]) -> dict[str, Any]:
    """Share of the training patients with each level that some model has a column for, and terms that never vary."""
    if study.privacy.dp:
        return {"shares": {}, "constant": []}
    levels = {term for variable in study.variable if variable.kind != "continuous" for term in variable.terms}
    shares: dict[str, float] = {}
    constant: dict[str, None] = {}
    for model in fitted.values():
        centres = zip(model.final.columns.names, model.final.columns.centre.tolist(), strict=True)
        shares |= {term: float(np.clip(share, 0, 1)) for term, share in centres if term in levels}
        constant |= dict.fromkeys(term for term in model.final.notes.get("left_out", ()) if term in levels)
    return {"shares": shares, "constant": list(constant)}


# --- intervals, survival, points ------------------------------------------------------------------------------


def _covariance(study: Study, name: str, fit: Fit) -> dict[str, Any] | str:
    """Covariance of the standardised coefficients, or why a prediction has no interval."""
    kind, names, scale = study.model[name].kind, fit.columns.names, fit.columns.scale
    if not fit.terms:
        return f"a model of kind {kind} has no coefficients whose uncertainty is known"
    if fit.covariance is None:
        return fit.no_errors
    if "site_effects" in fit.notes:
        return "sites have intercepts of their own: that of another hospital is not known"
    if "meta_analysis" in fit.notes:
        return "a meta-analysis pools coefficient by coefficient: how their errors go together is not known"
    intercept = fit.terms[0] == INTERCEPT
    if fit.terms[int(intercept) :] != names:
        return "its coefficients are not those of its columns"
    matrix = applicability.standardised(fit.covariance, fit.columns.centre, scale, intercept=intercept)
    try:
        known = applicability.remembered(matrix, intercept=intercept, events=fit.notes.get("events"))
    except np.linalg.LinAlgError:
        return "the covariance of its coefficients has no inverse"
    freedom = fit.degrees_of_freedom
    return {
        "matrix": matrix,
        "intercept": intercept,
        "information": known.information,
        "middle": known.middle,
        # of a sum of estimates there is none: the least of them makes no interval too short
        "degrees_of_freedom": None if freedom is None else float(np.min(freedom)),
    }


def _baseline(study: Study, name: str, fit: Fit) -> dict[str, Any] | str:
    """Cumulative baseline hazard, or why there is none."""
    if "baseline" in fit.notes:
        return fit.notes["baseline"]
    if (kind := study.endpoint_of(name).kind) != "survival":
        return f"a {kind} endpoint has no survival"
    if study.model[name].kind == "cox":
        return "each hospital has a baseline hazard of its own (strata), and none is known for all"
    return f"a model of kind {study.model[name].kind} has no baseline hazard"


def _nomogram(study: Study, fit: Fit, explained: Mapping[str, Any]) -> dict[str, Any] | str:
    """The nomogram of the report where the study asks for one; else its axes follow from means and spreads.

    Axes of measured variables then end at mean +- 2.326 SD, the 1st and 99th percentile of a normal variable, and
    within the declared range.
    """
    columns, published = fit.columns, fit.published
    slopes = fit.estimates[int(fit.terms[:1] == (INTERCEPT,)) :]
    if len(slopes) != len(columns) or "coefficients" not in published or "kernel" in published:
        return "the score is not a linear function of the model's columns"
    groups = grouped(columns)
    if not 0 < len(groups) <= MOST_AXES:
        return f"{len(groups)} variables are no nomogram; 1 to {MOST_AXES} are"
    more = {"columns": list(columns.names), "slopes": slopes}
    found = explained.get("nomogram", {})
    if "axes" not in found:
        axes: dict[str, list[tuple[Any, float]]] = {}
        for column, centre, scale, slope in zip(
            columns.columns, columns.centre, columns.scale, slopes.tolist(), strict=True
        ):
            variable = study.variables.get(column.variable)
            if variable is None or (variable.kind == "continuous" and column.name == variable.name):
                low, high = (variable.range if variable else None) or (-np.inf, np.inf)
                ends = np.clip([centre - END * scale, centre + END * scale], low, high)
                axes[column.name] = [(float(value), float(value * slope)) for value in ends]
            elif "=" in column.name:
                axes.setdefault(column.variable, [(next(iter(variable.level_index)), 0.0)])
                axes[column.variable].append((column.name.partition("=")[2], slope))
            else:
                axes[column.name] = [(0, 0.0), (1, slope)]
        weights = np.asarray(published["coefficients"], dtype=np.float64)
        at_zero = weights[0] - np.sum(weights[1:] * published["centre"] / published["scale"])
        found = nomogram(float(at_zero), axes)
    return {**{key: found[key] for key in ("axes", "points_per_unit", "lowest")}, **more}
