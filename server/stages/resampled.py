"""Resampled: the main figures of every repeat of cross-validation, and how optimistic the apparent ones are.

Both are made of fits that cross-validation needs anyway; their sums travel with those of the other figures. Optimism is
the mean figure of the fits without a fold on the patients they were fitted on, less the cross-validated figure, as in
``validate(fit, method = "crossvalidation")`` of R's rms (Harrell, Regression Modeling Strategies, 2nd ed. 2015, section
5.3.4), but for the figure of the patients not seen: that is the pooled one of each repeat, since figures of single
folds would tell of few patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cohortium.common.study import Study
from cohortium.strategies.cohort_figures import CohortSpec, ScoredModel, study_settings
from cohortium.strategies.validation_settings import Figure
from cohortium.strategies.view_patients import fold_numbers, further_repeats

FIGURES = {
    "binary": ("auc", "brier", "calibration.intercept", "calibration.slope"),
    "survival": ("survival.c_index",),
    "continuous": ("r_squared", "rmse"),
}
"""Main figures by kind of endpoint, as paths in a cohort's record."""


def resampled_cohorts(study: Study, models: tuple[ScoredModel, ...]) -> dict[str, CohortSpec]:
    """The training patients by each further repeat, and without each fold by the fits that were made on them.

    Nothing is asked of them but what the main figures need.
    """
    settings = study_settings(study) | {
        "decision_thresholds": (),
        "bootstrap": 0,
        "calibration_slope": None,
        "logrank_strata": {},
    }
    settings |= {"competing": (), "timing": {e: {**t, "horizon": []} for e, t in settings["timing"].items()}}
    plain = [replace(m, cutoff=None, baseline_survival=(), baseline_curve=(), log_hazard=False) for m in models]
    base = CohortSpec(part="train", of="final", models=tuple(plain), settings=settings)
    found = {repeat: replace(base, of=repeat) for repeat in further_repeats(study)}
    if study.validation.optimism:
        numbers = range(fold_numbers(study, study.split.repeats).start)
        found |= {f"without {number}": replace(base, without=(number,)) for number in numbers}
    return found


def resampled_figures(
    study: Study, cohorts: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Figure]]:
    """``repeated`` and ``optimism`` of each model, where the study asks for them.

    Parameters
    ----------
    cohorts : cohort -> model -> figures, as in results.json
    found : the same of the `resampled_cohorts`
    """
    figures: dict[str, dict[str, Figure]] = {}
    if study.split.folds is None:
        return figures
    further = further_repeats(study)
    for name in study.model:
        paths, own = FIGURES[study.endpoint_of(name).kind], figures.setdefault(name, {})
        tested = [cohorts["cross_validated"][name], *(found[repeat][name] for repeat in further)]
        if further:
            own["repeated"] = {"repeats": len(tested)} | {_key(path): _spread(tested, path) for path in paths}
        if study.validation.optimism:
            trained = [of_fit[name] for cohort, of_fit in found.items() if cohort not in further]
            apparent = cohorts["train"][name]
            own["optimism"] = {_key(path): _corrected(apparent, trained, tested, path) for path in paths}
    return figures


def _key(path: str) -> str:
    return path.removeprefix("survival.")


def _spread(tested: Sequence[Any], path: str) -> Figure:
    """A figure in each repeat, and how far it varies with the folds that were drawn."""
    values, why, bound = _values(tested, path)
    if why:
        return why
    found = {"values": values, "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    return found | {"min": min(values), "max": max(values)} | ({} if bound is None else {"bound": bound})


def _corrected(apparent: Any, trained: Sequence[Any], tested: Sequence[Any], path: str) -> Figure:
    """A figure without the optimism that its fits show."""
    (index, *_), why, _ = _values([apparent], path)
    training, why_not, _ = _values(trained, path)
    test, none, _ = _values(tested, path)
    if missing := why or why_not or none:
        return missing
    means = float(np.mean(training)), float(np.mean(test))
    optimism = means[0] - means[1]
    found = {"apparent": index, "training": means[0], "tested": means[1]}
    return found | {"optimism": optimism, "corrected": index - optimism}


def _values(records: Sequence[Any], path: str) -> tuple[list[float], Figure, float | None]:
    """A figure in several records, the first reason why one lacks it, and the widest of their bounds."""
    values, bounds = [], []
    for record in records:
        figure = record
        for key in path.split("."):
            if why := {kind: figure[kind] for kind in ("withheld", "undefined") if kind in figure}:
                return [np.nan], why, None
            figure = figure[key]
        if isinstance(figure, Mapping):
            if "estimate" not in figure:
                return [np.nan], dict(figure), None
            bounds.append(figure["bound"])
            figure = figure["estimate"]
        values.append(float(figure))
    return values, None, max(bounds, default=None)
