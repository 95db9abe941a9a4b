"""Validation of survival: C-index, AUC and Brier score at horizons, and Kaplan-Meier of risk groups, for one cohort.

Like `validation.validate_binary`, it runs at the coordinator over sums and at a single site over its own rows.
Messages: score bins (3) with the time grid (2) beside them, then joint table, risk groups and Brier score in one: 4
for any number of models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import concordance, cutoff, score_bins, survival
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined, withheld

SURVIVAL_FIGURES = (
    "n", "events", "c_index", "auc_at", "brier_at", "log_rank", "hazard_ratio", "kaplan_meier", "median",
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
    dict of model to figures (`SURVIVAL_FIGURES`), as under ``survival`` in results.json, with n and events
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
        lambda: _groups(federation, models, points, settings),
        lambda: _brier(federation, models, total, settings),
    ]
    ranking, groups, brier = federation.together(parts)
    return {name: {"n": n, "events": events} | ranking[name] | brier[name] | groups[name] for name in models}


def _ranking(
    federation: Federation,
    models: Sequence[str],
    edges: list[Counts],
    points: Counts,
    total: survival.Exits,
    settings: Settings,
) -> dict[str, dict[str, Figure]]:
    """C-index and AUC at the horizons."""
    if settings.concordance == "within_site":
        why = undefined('it needs the joint table of times and scores, which concordance = "within_site" does not send')
        try:
            found = concordance.within_site(federation, time_step=settings.time_step)
        except Undefined as none:
            return {name: {"c_index": undefined(none), "auc_at": why} for name in models}
        return {name: {"c_index": _index(c), "auc_at": why} for name, c in zip(models, found, strict=True)}

    tables = federation.sum(concordance.joint, edges=edges, points=points, time_step=settings.time_step).patients
    observed = concordance.observed(total)
    horizons = survival.time_cell(np.array(settings.horizon, float), settings.time_step)

    def of(table: Counts, lower: Counts) -> dict[str, Figure]:
        alone = score_bins.widths(lower, "linear") == 1
        single = np.ones_like(alone) if settings.score_resolution == "exact" else alone

        def auc(cell: int) -> Figure:
            return defined(lambda: concordance.auc_at(table, points, observed, cell))

        return {
            "c_index": defined(lambda: _index(concordance.harrell(table, single))),
            "auc_at": _by_time(settings, [auc(int(cell)) for cell in horizons]),
        }

    return {name: of(tables[m, :, :, : len(edges[m])], edges[m]) for m, name in enumerate(models)}


def _groups(
    federation: Federation, models: Sequence[str], points: Counts, settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Kaplan-Meier, log-rank and hazard ratio of low and high risk."""
    names = ("kaplan_meier", "median", "log_rank", "hazard_ratio")
    none = undefined("no cut-off was chosen for this model")
    figures: dict[str, dict[str, Figure]] = {name: dict.fromkeys(names, none) for name in models}
    cutoffs = cutoff.on_grid(np.array([settings.cutoffs.get(name, 0.0) for name in models]))
    if not settings.cutoffs:
        return figures
    sums = federation.sum(survival.exits_by_group, points=points, cutoffs=cutoffs, time_step=settings.time_step)
    time = np.concatenate([[0.0], points * settings.time_step])
    for m, name in enumerate(models):
        if name in settings.cutoffs:
            figures[name] = _of_groups(time, sums.events[m], survival.at_risk(sums.exits[m]), settings)
    return figures


def _of_groups(time: Array, events: Counts, at_risk: Counts, settings: Settings) -> dict[str, Figure]:
    small = {"withheld": f"a risk group has fewer than {settings.minimum_count} patients"}
    curves: dict[str, Figure] = {}
    medians: dict[str, Figure] = {}
    for g, group in enumerate(("low", "high")):
        if at_risk[g, 0] == 0:
            curves[group] = medians[group] = undefined("no patient is in this risk group")
        elif at_risk[g, 0] < settings.minimum_count:
            curves[group] = medians[group] = small
        else:
            curve = survival.kaplan_meier(time, events[g], at_risk[g], minimum_count=settings.minimum_count)
            limits = (curve.time, curve.survival, curve.lower, curve.upper)
            curves[group] = [[*map(float, row), int(n)] for *row, n in zip(*limits, curve.at_risk, strict=True)]
            medians[group] = defined(lambda curve=curve: curve.median)

    def log_rank() -> Figure:
        chi2, p = survival.log_rank(events, at_risk)
        return {"chi2": chi2, "p": p}

    def hazard_ratio() -> Figure:
        ratio = survival.hazard_ratio(events, at_risk)
        return {"estimate": ratio.estimate, "ci": list(ratio.confidence_interval()), "p": ratio.p}

    shown = not (0 < at_risk[:, 0].min() < settings.minimum_count)
    return {
        "kaplan_meier": curves,
        "median": medians,
        "log_rank": defined(log_rank) if shown else small,
        "hazard_ratio": defined(hazard_ratio) if shown else small,
    }


def _brier(
    federation: Federation, models: Sequence[str], total: survival.Exits, settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Brier score at the horizons, where a model predicts survival."""
    none = undefined("the model predicts no survival at this time: it has no baseline hazard over all sites")
    figures = {name: {"brier_at": _by_time(settings, [none] * len(settings.horizon))} for name in models}
    predicted = {name: values for name, values in settings.baseline_survival.items() if len(values)}
    if not predicted or not settings.horizon:
        return figures
    certain = (1.0,) * len(settings.horizon)
    scores = concordance.brier(
        federation,
        total,
        survival.time_cell(np.array(settings.horizon, float), settings.time_step),
        np.array([predicted.get(name, certain) for name in models]),
        time_step=settings.time_step,
    )
    for m, name in enumerate(models):
        if name in predicted:
            missing = undefined("nobody is followed beyond this time")
            found = [float(score) if np.isfinite(score) else missing for score in scores[m]]
            figures[name] = {"brier_at": _by_time(settings, found)}
    return figures


def _by_time(settings: Settings, figures: Sequence[Figure]) -> dict[str, Figure]:
    """Figures under their horizon, written as a study writes it: ``"1095"``."""
    return {f"{time:.10g}": figure for time, figure in zip(settings.horizon, figures, strict=True)}


def _index(c: concordance.Concordance) -> dict[str, Figure]:
    return {"estimate": c.estimate, "ci": list(c.confidence_interval()), "bound": c.bound}
