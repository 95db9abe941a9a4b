"""Risk groups: survival of low and high risk beside each other, for all models on one cohort; two sums, one message."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cohortium.common.federation import Federation
from cohortium.strategies import cutoff, survival, survival_groups
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined

OF_GROUPS = ("kaplan_meier", "median", "log_rank", "log_rank_within_sites", "hazard_ratio", "survival_at", "rmst_at")


def figures(
    federation: Federation, models: Sequence[str], points: Counts, settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Figures (`OF_GROUPS`) of each model that has a cut-off.

    `points` are the time cells that the counts are cut at, the first one after each horizon among them.
    """
    none = undefined("no cut-off was chosen for this model")
    figures: dict[str, dict[str, Figure]] = {name: dict.fromkeys(OF_GROUPS, none) for name in models}
    cutoffs = cutoff.on_grid(np.array([settings.cutoffs.get(name, 0.0) for name in models]))
    if not settings.cutoffs:
        return figures
    step = settings.time_step
    asked: list[Callable[[], Any]] = [
        lambda: federation.sum(survival.exits_by_group, points=points, cutoffs=cutoffs, time_step=step),
        lambda: survival_groups.stratified_log_rank(federation, cutoffs, time_step=step),
    ]
    sums, within = federation.together(asked)
    time = np.concatenate([[0.0], points * step])
    for m, name in enumerate(models):
        if name in settings.cutoffs:
            figures[name] = _of_groups(time, sums.events[m], survival.at_risk(sums.exits[m]), within[m], settings)
    return figures


def _of_groups(
    time: Array, events: Counts, at_risk: Counts, within_sites: Figure, settings: Settings
) -> dict[str, Figure]:
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
            medians[f"{group}_ci"] = defined(lambda curve=curve: _median_interval(curve))

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
        "log_rank_within_sites": within_sites if shown else small,
        **(survival_groups.figures(time, events, at_risk, settings) if shown else _not_shown(small)),
    }


def _not_shown(why: Figure) -> dict[str, Figure]:
    return {"survival_at": why, "rmst_at": why}


def _median_interval(curve: survival.Curve) -> Figure:
    low, high = survival_groups.median_interval(curve)
    return [low, undefined("the upper limit of survival stays above one half") if high is None else high]
