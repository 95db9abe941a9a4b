"""Validation of survival: discrimination, accuracy and calibration over time, and risk groups, for one cohort.

Like `validation.validate_binary`, it runs at the coordinator over sums and at a single site over its own rows.
Messages: score bins (3) with the time grid (2) beside them, then joint table, predictions, risk groups and Brier
scores in one: 4 for any number of models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import (
    concordance,
    concordance_pairs,
    risk_groups,
    score_bins,
    slope_within_sites,
    survival,
    survival_calibration,
    time_dependent,
)
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined, withheld

OF_PREDICTIONS = ("calibration_at", "decision_curve_at")
OF_SCORES = ("c_index", "uno_c", "auc_at", "auc_at_ci", "calibration_slope", *OF_PREDICTIONS)
NO_BASELINE = undefined("the model predicts no survival at this time: it has no baseline hazard over all sites")
SURVIVAL_FIGURES = (
    "n", "events", "c_index", "uno_c", "auc_at", "auc_at_ci", "brier_at", "scaled_brier_at", "integrated_brier",
    "calibration_slope", "calibration_at", "decision_curve_at", "log_rank", "log_rank_within_sites", "hazard_ratio",
    "kaplan_meier", "median", "survival_at", "rmst_at",
)  # fmt: skip


def validate_survival(
    federation: Federation, models: Sequence[str], settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Survival figures of every model on one cohort.

    Parameters
    ----------
    federation : Federation
        Rows are `ScoredSurvival`, one column of scores a model; a higher score is a higher risk.
    models : sequence of str
        Names, in the order of the columns.
    settings : Settings

    Returns
    -------
    dict of model to figures (`SURVIVAL_FIGURES`), as under ``survival`` in results.json, with n and events; and, where
    the settings compare models, ``compared``: entries of ``comparisons`` of which the model is the first
    """
    step = settings.time_step
    horizons = survival.time_cell(np.array(settings.horizon, float), step)
    pooled = settings.concordance == "pooled"

    def cells() -> list[Counts]:
        resolution = settings.score_resolution
        return score_bins.edges(federation, len(models), scale="linear", resolution=resolution) if pooled else []

    def times() -> survival.Exits:
        return survival.timeline(federation, step)

    first: list[Callable[[], Any]] = [cells, times]
    edges, total = federation.together(first)
    n, events = int(total.exits.sum()), int(total.events.sum())
    if n < settings.minimum_count:
        return {name: withheld(SURVIVAL_FIGURES, settings.minimum_count) for name in models}

    points = concordance.points(total, horizons)
    parts: list[Callable[[], Any]] = [
        lambda: _ranking(federation, models, edges, points, total, settings),
        lambda: risk_groups.figures(federation, models, points, settings),
        lambda: _brier(federation, models, total, settings),
        lambda: _slopes_within_sites(federation, models, settings),
    ]
    found = federation.together(parts)
    return {name: {"n": n, "events": events} | {k: v for of in found for k, v in of[name].items()} for name in models}


def _slopes_within_sites(
    federation: Federation, models: Sequence[str], settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Calibration slopes stratified by site, where the study asks for them."""
    if settings.calibration_slope is None or not set(models) & set(settings.log_hazards):
        return {name: {} for name in models}
    found = slope_within_sites.slopes(federation, len(models), time_step=settings.time_step)
    why = undefined("the score of this model is no log hazard")
    return {
        name: {"calibration_slope_within_sites": _estimate(slope) if name in settings.log_hazards else why}
        for name, slope in zip(models, found, strict=True)
    }


def _estimate(found: survival_calibration.Estimate | Undefined) -> Figure:
    if isinstance(found, Undefined):
        return undefined(found)
    return {"estimate": found.value, "ci": list(found.confidence_interval())}


def _ranking(
    federation: Federation,
    models: Sequence[str],
    edges: list[Counts],
    points: Counts,
    total: survival.Exits,
    settings: Settings,
) -> dict[str, dict[str, Figure]]:
    """What needs times beside scores: C-indices, AUC at the horizons, calibration and net benefit."""
    if settings.concordance == "within_site":
        why = undefined('it needs the joint table of times and scores, which concordance = "within_site" does not send')
        rest = dict.fromkeys(OF_SCORES, why)
        try:
            found = concordance.within_site(federation, time_step=settings.time_step)
        except Undefined as none:
            return {name: rest | {"c_index": undefined(none)} for name in models}
        return {name: rest | {"c_index": _index(c)} for name, c in zip(models, found, strict=True)}

    unknown = (1.0,) * len(settings.horizon)  # of a model that predicts no risk
    baseline = np.array([settings.baseline_survival.get(name) or unknown for name in models])

    def joint() -> Counts:
        return federation.sum(concordance.joint, edges=edges, points=points, time_step=settings.time_step).patients

    def predicted() -> survival_calibration.CellSums | None:
        slopes = settings.score_resolution == "exact" and set(settings.log_hazards) & set(models)
        if not (slopes or settings.baseline_survival):
            return None
        return federation.sum(survival_calibration.cell_sums, edges=edges, baseline_survival=baseline)

    asked: list[Callable[[], Any]] = [joint, predicted]
    tables, sums = federation.together(asked)

    def of(m: int, name: str, lower: Counts) -> dict[str, Figure]:
        table = tables[m, :, :, : len(lower)]
        alone = score_bins.widths(lower, "linear") == 1
        single = np.ones_like(alone) if settings.score_resolution == "exact" else alone
        figures = _discrimination(table, single, points, total, settings)
        score = None if sums is None or name not in settings.log_hazards else sums.score[m, : len(lower)]
        risk = sums.risk[m, :, : len(lower)] if sums is not None and settings.baseline_survival.get(name) else None
        return figures | {"calibration_slope": _slope(table, score, single)} | _at_risk(table, points, risk, settings)

    found = {name: of(m, name, edges[m]) for m, name in enumerate(models)}
    for entry in _compared(federation, models, tables, edges, points, settings):
        found[entry["a"]].setdefault("compared", []).append(entry)
    return found


def _compared(
    federation: Federation,
    models: Sequence[str],
    tables: Counts,
    edges: list[Counts],
    points: Counts,
    settings: Settings,
) -> list[dict[str, Figure]]:
    """Difference of C of each pair that the study compares; one more sum where there is one."""
    if not settings.compare:
        return []
    heads = [{"a": a, "b": b, "test": "concordance"} for a, b in settings.compare]
    order = {name: m for m, name in enumerate(models)}
    pairs = np.array([[order[a], order[b]] for a, b in settings.compare])
    try:
        found = concordance_pairs.differences(federation, tables, edges, points, pairs, time_step=settings.time_step)
    except Undefined as why:
        return [head | dict.fromkeys(("difference", "ci", "z", "p"), undefined(why)) for head in heads]
    return [head | concordance_pairs.figures(difference) for head, difference in zip(heads, found, strict=True)]


def _discrimination(
    table: Counts, single: NDArray[np.bool_], points: Counts, total: survival.Exits, settings: Settings
) -> dict[str, Figure]:
    """C-indices, and AUC at the horizons, of one model."""
    horizons = survival.time_cell(np.array(settings.horizon, float), settings.time_step)
    before = int(horizons[-1]) if len(horizons) else None

    def area(cell: int) -> Figure:
        return defined(lambda: time_dependent.auc_at(table, points, total, cell))

    areas = [area(int(cell)) for cell in horizons]
    return {
        "c_index": defined(lambda: _index(concordance.harrell(table, single))),
        "uno_c": defined(lambda: _index(time_dependent.uno(table, single, points, total, before=before))),
        "auc_at": _by_time(settings, [a if isinstance(a, dict) else a.estimate for a in areas]),
        "auc_at_ci": _by_time(settings, [a if isinstance(a, dict) else list(a.confidence_interval()) for a in areas]),
    }


def _slope(table: Counts, score: Array | None, single: NDArray[np.bool_]) -> Figure:
    """Calibration slope of one model, where its score is a log hazard that the table holds exactly."""
    if score is None or not single.all():
        return undefined(
            'needs a score that is a log hazard, and each on its own: a survival model, and score_resolution = "exact"'
        )

    return defined(lambda: _estimate(survival_calibration.slope(table, score)))


def _at_risk(table: Counts, points: Counts, risk: Array | None, settings: Settings) -> dict[str, Figure]:
    """Calibration and net benefit of one model at each horizon."""
    if risk is None:
        return {name: _by_time(settings, [NO_BASELINE] * len(settings.horizon)) for name in OF_PREDICTIONS}
    horizons = survival.time_cell(np.array(settings.horizon, float), settings.time_step)
    least = settings.minimum_count

    def calibration(h: int) -> Figure:
        found = survival_calibration.at_horizon(table, points, risk[h], int(horizons[h]), minimum_count=least)
        ratio = {"estimate": found.ratio, "ci": list(found.ratio_interval)}
        curve = [list(row) for row in found.curve]
        return {"expected": found.expected, "observed": found.observed, "observed_to_expected": ratio, "curve": curve}

    def benefit(h: int) -> Figure:
        asked = settings.decision_thresholds
        found = survival_calibration.net_benefit(table, points, risk[h], int(horizons[h]), asked)
        return {name: values.tolist() for name, values in found._asdict().items()}

    at = range(len(horizons))
    return {
        "calibration_at": _by_time(settings, [defined(lambda h=h: calibration(h)) for h in at]),
        "decision_curve_at": _by_time(settings, [defined(lambda h=h: benefit(h)) for h in at]),
    }


def _brier(
    federation: Federation, models: Sequence[str], total: survival.Exits, settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Brier score at the horizons and over time, and against the null model, where a model predicts survival."""
    missing = _by_time(settings, [NO_BASELINE] * len(settings.horizon))
    none = {"brier_at": missing, "scaled_brier_at": missing, "integrated_brier": NO_BASELINE}
    figures: dict[str, dict[str, Figure]] = {name: dict(none) for name in models}
    predicted = {name: values for name, values in settings.baseline_survival.items() if len(values)}
    if not predicted or not settings.horizon:
        return figures
    evaluated = time_dependent.evaluation_cells(settings.horizon, settings.time_step)
    h = len(settings.horizon)
    cells = np.concatenate([survival.time_cell(np.array(settings.horizon, float), settings.time_step), evaluated])
    curves = {name: (*predicted[name], *settings.baseline_curve.get(name, ())) for name in predicted}
    if not all(len(curve) == len(cells) for curve in curves.values()):  # horizons alone were predicted
        cells, curves = cells[:h], {name: curve[:h] for name, curve in curves.items()}
    certain = (1.0,) * len(cells)
    baseline = np.array([curves.get(name, certain) for name in models])
    scores = concordance.brier(federation, total, cells, baseline, time_step=settings.time_step)
    null = time_dependent.null_brier(total, cells)
    for m, name in enumerate(models):
        if name in predicted:
            figures[name] = _accuracy(scores[m], null, cells, settings)
    return figures


def _accuracy(score: Array, null: Array, cells: Counts, settings: Settings) -> dict[str, Figure]:
    """Brier scores of one model: at the horizons, which come first, and over the cells that follow."""
    h = len(settings.horizon)
    missing = undefined("nobody is followed beyond this time")
    certain = undefined("the null model makes no error")

    def integral() -> Figure:
        mine, nobodys = (time_dependent.integrated(values[h:], cells[h:]) for values in (score, null))
        return {"estimate": mine, "null": nobodys, "scaled": 1 - mine / nobodys if nobodys > 0 else certain}

    def scaled(i: int) -> Figure:
        return certain if null[i] <= 0 else float(1 - score[i] / null[i])

    exist = np.isfinite(score[:h])
    return {
        "brier_at": _by_time(settings, [float(score[i]) if exist[i] else missing for i in range(h)]),
        "scaled_brier_at": _by_time(settings, [scaled(i) if exist[i] else missing for i in range(h)]),
        "integrated_brier": defined(integral),
    }


def _by_time(settings: Settings, figures: Sequence[Figure]) -> dict[str, Figure]:
    """Figures under their horizon, written as a study writes it: ``"1095"``."""
    return {f"{time:.10g}": figure for time, figure in zip(settings.horizon, figures, strict=True)}


def _index(c: concordance.Concordance) -> dict[str, Figure]:
    return {"estimate": c.estimate, "ci": list(c.confidence_interval()), "bound": c.bound}
