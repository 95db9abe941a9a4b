"""Release figures: what a study asks of its sites for its figures, by cohort: sums, or finished figures of a site."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cohortium.common.federation import Statistic
from cohortium.common.study import Study
from cohortium.common.study_analysis import CoxModel
from cohortium.server.release_sizes import NOBODY, Release, Share, release
from cohortium.server.stages.cohorts import cohorts, is_refitted
from cohortium.server.stages.resampled import resampled_cohorts
from cohortium.strategies import (
    calibration,
    competing_risks,
    concordance,
    concordance_pairs,
    cutoff,
    discrimination,
    heterogeneity,
    moments,
    reclassification,
    score_bins,
    slope_within_sites,
    survival,
    survival_calibration,
    survival_groups,
)
from cohortium.strategies.cohort_figures import CohortSpec, ScoredModel, time_step
from cohortium.strategies.continuous_figures import CONTINUOUS_FIGURES
from cohortium.strategies.rows import Matrix, Scored, ScoredCompeting, ScoredSurvival, Survival
from cohortium.strategies.time_dependent import evaluation_cells
from cohortium.strategies.validation import BINARY_FIGURES
from cohortium.strategies.validation_survival import SURVIVAL_FIGURES


def study_cohorts(study: Study) -> dict[str, CohortSpec]:
    """Cohorts of the study's figures, by name, before any model is fitted."""
    models = tuple(
        ScoredModel(
            name=name, digest="", endpoint=model.endpoint, outcome=study.endpoint[model.endpoint].kind, cutoff=None
        )
        for name, model in study.model.items()
    )
    return cohorts(study, models)


def figure_names(study: Study, spec: CohortSpec) -> list[str]:
    """What a site that computes a cohort's figures to the end sends of each model, as named in results.json."""
    names = {"binary": BINARY_FIGURES, "survival": tuple(f"survival.{name}" for name in SURVIVAL_FIGURES)}
    names["continuous"] = CONTINUOUS_FIGURES
    kinds = dict.fromkeys(study.endpoint[endpoint].kind for endpoint in by_endpoint(spec))
    compared = ["comparisons"] if spec.compare else []
    slopes = "survival" in kinds and study.validation.calibration_slope
    asked = ["survival.calibration_slope_within_sites"] if slopes else []
    if spec.part == "external" and not spec.where and any(is_refitted(study, model.name) for model in spec.models):
        asked.append("updating.models.refit")
    if "survival" in kinds and study.validation.logrank_strata and not spec.where:
        asked.append("survival.log_rank_stratified")
    if any(getattr(study.endpoint[endpoint], "competing", ()) for endpoint in by_endpoint(spec)):
        asked.append("survival.competing_risks")
    return [name for kind in kinds for name in names[kind]] + asked + compared


def figures(study: Study) -> Iterator[Release]:
    """Cut-offs on the training part, then every cohort that enough sites hold."""
    for name, spec in study_cohorts(study).items():
        if not study.hides_its_sites(spec.part):
            continue
        for endpoint, models in by_endpoint(spec).items():
            if study.endpoint[endpoint].kind == "continuous":
                pairs = sum({*pair} <= {model.name for model in models} for pair in spec.compare)
                yield _predictions(study, spec.part, name, 1 + 3 * len(models) + pairs)
                if spec.heterogeneity:
                    yield from _between_sites(study, spec.part, name, _predicted(1 + 3 * len(models)))
                continue
            if study.endpoint[endpoint].kind == "binary":
                if name == "train":
                    yield from itertools.islice(_binary(study, spec.part, "cut-offs", len(models), 1), 2)
                pairs = sum({*pair} <= {model.name for model in models} for pair in spec.compare)
                yield from _binary(study, spec.part, name, len(models), int(spec.settings["folds"]), pairs=pairs)
                scored: Any = Scored(np.empty((0, len(models))), NOBODY, NOBODY.astype(np.int64))
            else:
                if name == "train":
                    yield from _survival_cutoffs(study, spec.part, _scored_survival(len(models)))
                yield from _over_time(study, spec.part, name, models, endpoint)
                pairs = [pair for pair in spec.compare if set(pair) <= {model.name for model in models}]
                if pairs:
                    yield _compared(study, spec.part, name, _scored_survival(len(models)), len(pairs))
                scored = _scored_survival(len(models))
            if spec.heterogeneity:
                yield from _between_sites(study, spec.part, name, scored)


def resampled(study: Study) -> Iterator[Release]:
    """Main figures of further repeats of cross-validation, and of fits without a fold on their own patients."""
    specs = resampled_cohorts(study, next(iter(study_cohorts(study).values())).models).values()
    alike = {"optimism" if spec.without else "repeats of cross-validation": spec for spec in specs}
    for purpose, spec in alike.items():
        for endpoint, scored in by_endpoint(spec).items():
            if study.endpoint[endpoint].kind == "continuous":
                yield _predictions(study, spec.part, purpose, 1 + 3 * len(scored))
            elif study.endpoint[endpoint].kind == "binary":
                yield from _binary(study, spec.part, purpose, len(scored), 1)
            else:
                rows = _scored_survival(len(scored))
                yield _cells(study, spec.part, purpose, score_bins.occupancy, rows)
                yield from timeline(study, spec.part, purpose, rows)
                yield _joint(study, spec.part, purpose, rows)


def _predictions(study: Study, part: str, purpose: str, columns: int) -> Release:
    """Moments of outcome, predictions and errors."""
    asked = {"centre": np.zeros((1, columns)), "power": 1}
    return release(study, part, purpose, moments.power_sums, lambda: (_predicted(columns), asked))


def _predicted(columns: int) -> Matrix:
    return Matrix(np.empty((0, columns)), NOBODY.astype(np.int64))


def _between_sites(study: Study, part: str, purpose: str, rows: heterogeneity.Rows) -> Iterator[Release]:
    """Weighted sums of the sites' own figures."""
    asked = {"minimum_count": study.privacy.minimum_count, "time_step": 1.0}
    figures, models = heterogeneity.shape(rows)
    known = np.ones((len(figures), models))
    at = asked | {"tau2": known, "centre": known, "unit": known}
    yield release(study, part, purpose, heterogeneity.able, lambda: (rows, asked))
    yield release(study, part, purpose, heterogeneity.sums, lambda: (rows, at))
    if study.validation.tau2 == "reml":
        yield release(study, part, purpose, heterogeneity.restricted, lambda: (rows, at))


def by_endpoint(spec: CohortSpec) -> dict[str, list[ScoredModel]]:
    """Models that are held against each endpoint, as `cohort_figures` groups them."""
    found: dict[str, list[ScoredModel]] = {}
    for model in spec.models:
        found.setdefault(model.endpoint, []).append(model)
    if spec.survival:
        found[spec.survival] = list(spec.models)
    return found


def _binary(study: Study, part: str, purpose: str, models: int, folds: int, *, pairs: int = 0) -> Iterator[Release]:
    rows = Scored(np.empty((0, models)), NOBODY, NOBODY.astype(np.int64))
    thresholds = np.zeros((models, 1 + len(study.validation.decision_thresholds)), np.int64)
    spline = {"knots": np.zeros((models, 4)), "basis": np.tile(np.eye(4), (models, 1, 1))}
    step = {"coefficients": np.zeros((3, models, 4)), **spline}
    yield _cells(study, part, purpose, score_bins.occupancy, rows)
    yield _cells(study, part, purpose, discrimination.histogram, rows, folds=folds)
    yield release(study, part, purpose, cutoff.above, lambda: (rows, {"thresholds": thresholds}))
    yield release(study, part, purpose, calibration.terms, lambda: (rows, step))
    if pairs:
        yield _cells(study, part, purpose, discrimination.placements, rows, tables=np.zeros((models, 2, 1)))
        asked = {"pairs": np.zeros((pairs, 2), np.int64), "cutoffs": np.zeros(models, np.int64)}
        yield release(study, part, purpose, reclassification.moves, lambda: (rows, asked))


def _survival_cutoffs(study: Study, part: str, rows: ScoredSurvival) -> Iterator[Release]:
    purpose = "cut-offs"
    yield _cells(study, part, purpose, score_bins.occupancy, rows)
    if study.validation.cutoff == "log_rank":
        yield from timeline(study, part, purpose, rows)
        yield _joint(study, part, purpose, rows)


def _joint(study: Study, part: str, purpose: str, rows: ScoredSurvival) -> Release:
    def share(c: int, t: int) -> Share:
        return rows, {"edges": [np.arange(c)] * rows.score.shape[1], "points": np.arange(t), "time_step": 1.0}

    return release(study, part, purpose, concordance.joint, share, "ct")


def _compared(study: Study, part: str, purpose: str, rows: ScoredSurvival, pairs: int) -> Release:
    models = rows.score.shape[1]
    asked = {"moves": np.zeros((models, 1, 2, 1)), "pairs": np.zeros((pairs, 2), np.int64), "time_step": 1.0}
    cells = {"edges": [np.arange(1)] * models, "points": np.arange(0)}
    return release(study, part, purpose, concordance_pairs.products, lambda: (rows, asked | cells))


def _over_time(
    study: Study, part: str, purpose: str, models: Sequence[ScoredModel], endpoint: str
) -> Iterator[Release]:
    rows, scored = _scored_survival(len(models)), len(models)
    known: Any = study.endpoint[endpoint]
    horizons = len(known.horizon)
    predicting = [name for name in (model.name for model in models) if _predicts(study, name, endpoint)]

    def by_group(t: int) -> Share:
        return rows, {"points": np.arange(t), "cutoffs": np.zeros(scored, np.int64), "time_step": 1.0}

    def squared_errors() -> Share:
        evaluated = horizons + len(evaluation_cells(known.horizon, time_step(study, endpoint)))
        at_horizons = {"horizons": np.zeros(evaluated, np.int64), "observed_at_horizon": np.zeros(evaluated)}
        at_events = {"points": np.arange(0), "observed": np.zeros(0), "time_step": 1.0}
        return rows, {"baseline_survival": np.zeros((scored, evaluated)), **at_horizons, **at_events}

    def within_site() -> Share:
        return rows, {"cutoffs": np.zeros(scored, np.int64), "time_step": 1.0}

    yield _cells(study, part, purpose, score_bins.occupancy, rows)
    yield from timeline(study, part, purpose, rows)
    yield _joint(study, part, purpose, rows)
    yield release(study, part, purpose, survival.exits_by_group, by_group, "t")
    yield release(study, part, purpose, survival_groups.log_rank_within_site, within_site)
    for variable in study.validation.logrank_strata if "/" not in purpose else ():
        yield release(study, part, f"{purpose}, each level of {variable}", survival.exits_by_group, by_group, "t")
    if predicting or study.privacy.score_resolution == "exact":
        predicted = {"baseline_survival": np.ones((scored, horizons))}
        yield _cells(study, part, purpose, survival_calibration.cell_sums, rows, **predicted)
    if predicting and horizons:
        yield release(study, part, purpose, concordance.squared_errors, squared_errors)
    if study.validation.calibration_slope and any(study.endpoint_of(m.name).kind == "survival" for m in models):
        asked = {"slopes": np.ones(scored), "time_step": 1.0}
        yield release(study, part, purpose, slope_within_sites.terms, lambda: (rows, asked))
    if known.competing:
        rivals = ScoredCompeting(*rows, NOBODY.astype(np.int64))
        yield from timeline(study, part, purpose, rivals)
        yield release(study, part, purpose, competing_risks.causes, lambda t: (rivals, by_group(t)[1]), "t")


def _predicts(study: Study, name: str, endpoint: str) -> bool:
    """Whether a model has a baseline hazard over all sites for this endpoint."""
    model = study.model[name]
    return isinstance(model, CoxModel) and model.strata == "none" and model.endpoint == endpoint


def timeline(
    study: Study, part: str, purpose: str, rows: Survival | ScoredSurvival | ScoredCompeting
) -> Iterator[Release]:
    """What finds the time cells in which somebody leaves."""

    def exits(u: int) -> Share:
        return rows, {"cells": u, "time_step": 1.0}

    yield release(study, part, purpose, survival.extent, lambda: (rows, {"time_step": 1.0}))
    yield release(study, part, purpose, survival.exits, exits, "u")


def _cells(study: Study, part: str, purpose: str, what: Statistic, rows: Any, **more: Any) -> Release:
    def share(c: int) -> Share:
        return rows, {"edges": [np.arange(c)] * rows.score.shape[1], **more}

    return release(study, part, purpose, what, share, "c")


def _scored_survival(models: int) -> ScoredSurvival:
    return ScoredSurvival(np.empty((0, models)), NOBODY, NOBODY)
