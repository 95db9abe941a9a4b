"""Results: results.json, every number of a run; ``{"withheld": why}``, ``{"undefined": why}`` where one is missing."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cohortium.common.study import Study
from cohortium.server.contributions import contributors, released
from cohortium.server.privacy_labels import labelled
from cohortium.server.stages.fitted import Fit, FittedModel
from cohortium.server.stages.replicates import in_words
from cohortium.server.stages.validate import Validated
from cohortium.strategies.interactions import interactions

FORMAT = "cohortium-results/1"
PACKAGES = ("cohortium", "flwr", "numpy", "scipy", "cryptography", "pandas", "pyarrow", "pydantic")
LEVEL = 0.95
LARGEST_EXPONENT = 700.0  # exp(709) is the end of doubles
NO_END = {"undefined": "the search for the ends of this interval did not settle"}
NO_TEST = {"undefined": "the standard error is 0, as of an outcome that is predicted exactly"}
NO_RATIO = {"undefined": "no number can hold a ratio per unit of this term; give the variable in another unit"}


def results(
    study: Study,
    *,
    engine: str,
    roster_hash: str,
    declared: Mapping[str, Mapping[str, Any]],
    table_one: list[dict[str, Any]],
    fitted: Mapping[str, FittedModel],
    validated: Validated,
    log: Sequence[Mapping[str, Any]],
    columns: int,
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything a run has found, as results.json holds it.

    Parameters
    ----------
    log : sequence of mapping
        Lines of the journal.
    columns : int
        Of a prepared table.
    """
    models = {
        name: {
            "kind": study.model[name].kind,
            "endpoint": study.model[name].endpoint,
            "selected": list(model.final.columns.names),
            "coefficients": coefficients(
                model.final,
                ratio=study.model[name].kind in ("logistic", "lasso", "cox")
                and study.endpoint_of(name).kind != "continuous",
            ),
            "notes": model.final.notes,
            **(
                {"unfitted": {in_words(study, fit): missing.why for fit, missing in model.unfitted.items()}}
                if model.unfitted
                else {}
            ),
            **({"cutoff_test": validated.cutoff_tests[name]} if name in validated.cutoff_tests else {}),
            **validated.resampled.get(name, {}),
            "cohorts": {cohort: figures[name] for cohort, figures in validated.cohorts.items() if name in figures},
            **({"explanation": validated.explanations[name]} if name in validated.explanations else {}),
        }
        for name, model in fitted.items()
    }
    content = {
        "format": FORMAT,
        "study": {
            "name": study.study.name,
            "title": study.study.title,
            "hash": study.hash,
            "seed": study.study.seed,
        },
        "roster_hash": roster_hash,
        "engine": engine,
        "secure_aggregation": study.privacy.secure_aggregation,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "sites": [
            {
                "name": site,
                "role": "external" if site in study.split.external else "train",
                **declared[site]["flow"],
            }
            for site in study.sites
        ],
        "features": {site: declared[site]["made_by"] for site in study.sites if declared[site]["made_by"]},
        "held_by": {cohort: list(sites) for cohort, sites in validated.held_by.items()},
        "contributors": contributors(study, log),
        "released_numbers": released(study, log, sum(declared[site]["flow"]["used"] for site in study.sites), columns),
        "cost": dict(cost),
        "table_one": table_one,
        "models": models,
        "comparisons": validated.comparisons,
        "interactions": interactions(validated.cohorts, study.validation.subgroups),
        "refused": refusals(validated, table_one),
    }
    return json_ready(labelled(content, study))


def coefficients(fit: Fit, *, ratio: bool) -> list[dict[str, Any]]:
    """Estimates in study units with Wald intervals, and profile ones; penalised by L1 they have no standard error."""
    rows = []
    for index, term in enumerate(fit.terms):
        row = {"term": term, "estimate": float(fit.estimates[index]), **_wald(fit, index), **_profile(fit, index)}
        if ratio and term != "(Intercept)":
            row |= {"ratio": _ratio(row["estimate"]), "ratio_ci": _ratios(row["ci"])}
            row |= {"profile_ratio_ci": _ratios(row["profile_ci"])} if "profile_ci" in row else {}
        rows.append(row)
    return rows


def _wald(fit: Fit, index: int) -> dict[str, Any]:
    """Standard error, interval and test of an estimate; Student's where the fit has degrees of freedom."""
    if fit.covariance is None:
        return {key: {"undefined": fit.no_errors} for key in ("se", "ci", "p")}
    estimate, error = float(fit.estimates[index]), float(np.sqrt(fit.covariance[index, index]))
    law = stats.norm if fit.degrees_of_freedom is None else stats.t(fit.degrees_of_freedom[index])
    half = float(law.ppf((1 + LEVEL) / 2)) * error
    p = float(2 * law.sf(abs(estimate / error))) if error else NO_TEST
    return {"se": error, "ci": [estimate - half, estimate + half], "p": p}


def _profile(fit: Fit, index: int) -> dict[str, Any]:
    """Profile interval and test of an estimate, where the fit has them."""
    if fit.profile is None:
        return {}
    ends = [float(fit.profile.low[index]), float(fit.profile.high[index])]
    found = all(map(math.isfinite, ends))
    return {"profile_ci": ends if found else NO_END, "profile_p": float(fit.profile.p[index])}


def _ratios(ends: Any) -> Any:
    """Ratios at the ends of an interval; why there are none, where it has no ends."""
    if isinstance(ends, dict):
        return ends
    ratios = [_ratio(end) for end in ends]
    return NO_RATIO if NO_RATIO in ratios else ratios


def _ratio(exponent: float) -> float | dict[str, str]:
    """The ratio that a coefficient stands for, unless no double can hold it: a gene's variance in kg, say."""
    return math.exp(exponent) if abs(exponent) < LARGEST_EXPONENT else NO_RATIO


def refusals(validated: Validated, table_one: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What sites held back, once a cohort and reason."""
    found = {}
    for cohort, figures in validated.cohorts.items():
        for model in figures.values():
            if isinstance(model, dict) and set(model) == {"withheld"}:
                found[cohort, model["withheld"]] = {"what": f"figures of {cohort}", "why": model["withheld"]}
    for entry in table_one:
        if "withheld" in entry:
            what = f"Table 1 of {entry['cohort']}: {entry['variable']}"
            found[what, entry["withheld"]] = {"what": what, "why": entry["withheld"]}
    return list(found.values())


def json_ready(value: Any) -> Any:
    """Plain Python values; a number that is none becomes a figure that says so, never NaN.

    Integers of integer arrays stay integers.
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"undefined": "not a finite number"}
    return value


def write_results(content: Mapping[str, Any], path: Path) -> None:
    """Write results.json, atomically."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
