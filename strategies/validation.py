"""Validation of binary models: every figure of one cohort, as results.json holds them.

`validate_binary` runs at the coordinator over sums, and unchanged at a single site over its own rows. All models travel
in the same sums. Messages: score bins (0 to 3), histogram (1), then the recalibration's Newton steps (5 to 8) with the
counts at thresholds and `compare` beside them: 9 to 12 in all, 6 to 9 with exact scores, for any number of models.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import (
    binary_figures,
    calibration,
    calibration_groups,
    cutoff,
    discrimination,
    multiplicity,
    reclassification,
    score_bins,
)
from cohortium.strategies.binary_figures import BINARY_FIGURES
from cohortium.strategies.rows import Counts
from cohortium.strategies.score_bins import Resolution
from cohortium.strategies.validation_settings import Figure, Settings, undefined, withheld
from cohortium.strategies.validation_survival import validate_survival

__all__ = ["BINARY_FIGURES", "Settings", "choose_cutoffs", "compare", "validate_binary", "validate_survival"]

TESTED = ("difference", "ci", "z", "p")


def validate_binary(federation: Federation, models: Sequence[str], settings: Settings) -> dict[str, dict[str, Figure]]:
    """All figures of every model on one cohort.

    Parameters
    ----------
    federation : Federation
        Rows are `Scored`, one column of scores a model.
    models : sequence of str
        Names, in the order of the columns.
    settings : Settings

    Returns
    -------
    dict of model to figures (`BINARY_FIGURES`), as under COHORT in results.json
    """
    edges, histogram = _histogram(federation, len(models), settings)
    patients = histogram.patients.sum(0)
    if patients[0].sum() < settings.minimum_count:
        return {name: withheld(BINARY_FIGURES, settings.minimum_count) for name in models}

    def recalibrated() -> list[calibration.Recalibration | Undefined]:
        try:
            return list(calibration.fit(federation, patients, histogram.score_sum))
        except Undefined as why:
            return [why] * len(models)

    thresholds = _thresholds(models, settings)
    parts: list[Callable[[], Any]] = [recalibrated, lambda: federation.sum(cutoff.above, thresholds=thresholds)]
    recalibrations, called = federation.together(parts)
    figures = {}
    for m, name in enumerate(models):
        n, cells = int(patients[m].sum()), len(edges[m])
        of_model = histogram.patients[:, m, :, :cells]
        sums, own = histogram.accuracy[m], of_model.sum(0)
        groups = calibration_groups.groups(own, histogram.score_sum[m, :cells], minimum=settings.minimum_count)
        figures[name] = {
            "n": n,
            "events": int(patients[m, 1].sum()),
            **binary_figures.ranking(of_model, edges[m], settings),
            **binary_figures.accuracy(groups, float(histogram.squared_error[m] / score_bins.GRID**2 / n), sums),
            "calibration": binary_figures.calibrated(groups, sums, recalibrations[m], settings),
            "updating": binary_figures.updated(recalibrations[m]),
            "decision_curve": binary_figures.decisions(called.patients[m, :, 1:], called.total, settings),
            "at_cutoff": binary_figures.at_cutoff(name, called.patients[m, :, 0], called.total, settings),
        }
    return figures


def compare(
    federation: Federation, models: Sequence[str], pairs: Sequence[tuple[str, str]], settings: Settings
) -> list[dict[str, Figure]]:
    """DeLong's test of pairs of models, NRI and IDI; two sums in one message after the score histogram.

    Returns
    -------
    list of entries of ``comparisons`` in results.json, without ``cohort``
    """
    edges, histogram = _histogram(federation, len(models), settings)
    patients = histogram.patients.sum(0)
    heads = [{"a": a, "b": b, "test": "delong"} for a, b in pairs]
    if patients[0].sum() < settings.minimum_count:
        return [head | withheld((*TESTED, *reclassification.NAMES), settings.minimum_count) for head in heads]
    order = {name: m for m, name in enumerate(models)}
    columns = np.array([[order[a], order[b]] for a, b in pairs])

    def joint() -> discrimination.Paired | Undefined:
        try:
            return discrimination.paired(federation, edges, patients)
        except Undefined as why:
            return why

    def moved() -> reclassification.Moves:
        return federation.sum(reclassification.moves, pairs=columns, cutoffs=_own_cutoffs(models, settings))

    asked: list[Callable[[], Any]] = [joint, moved]
    areas, moves = federation.together(asked)
    entries = []
    for k, (head, (a, b)) in enumerate(zip(heads, columns, strict=True)):
        both = all(name in settings.cutoffs for name in pairs[k])
        found = dict.fromkeys(TESTED, undefined(areas)) if isinstance(areas, Undefined) else _comparison(areas, a, b)
        entries.append(head | found | reclassification.improvements(moves, k, with_cutoffs=both))
    return multiplicity.adjusted(entries)


def choose_cutoffs(
    federation: Federation, models: Sequence[str], rule: Literal["youden", "median"] | float, resolution: Resolution
) -> dict[str, float]:
    """Each model's cut-off on the training part (`Scored` rows); 2 sums for the median, up to 4 for Youden's.

    Raises
    ------
    Undefined
        No patients, or one class only under Youden's rule.
    """
    if rule == "median":
        return dict(zip(models, cutoff.median(federation, len(models), scale="probability").tolist(), strict=True))
    if rule == "youden":
        edges, histogram = _histogram(federation, len(models), Settings(score_resolution=resolution))
        patients = histogram.patients.sum(0)
        return {name: cutoff.youden(patients[m, :, : len(edges[m])], edges[m]) for m, name in enumerate(models)}
    return dict.fromkeys(models, float(rule))


def _histogram(
    federation: Federation, models: int, settings: Settings
) -> tuple[list[Counts], discrimination.Histogram]:
    edges = score_bins.edges(federation, models, scale="probability", resolution=settings.score_resolution)
    return edges, federation.sum(discrimination.histogram, edges=edges, folds=settings.folds)


def _thresholds(models: Sequence[str], settings: Settings) -> Counts:
    """Each model's cut-off (or one that calls nobody), then the decision thresholds; (models, 1 + k) in grid units."""
    shared = cutoff.on_grid(np.array(settings.decision_thresholds))
    return np.column_stack([_own_cutoffs(models, settings), np.tile(shared, (len(models), 1))])


def _own_cutoffs(models: Sequence[str], settings: Settings) -> Counts:
    nobody = 2.0
    return cutoff.on_grid(np.array([settings.cutoffs.get(name, nobody) for name in models]))


def _comparison(joint: discrimination.Paired, a: int, b: int) -> dict[str, Figure]:
    try:
        difference, ci, z, p = joint.test(a, b)
    except Undefined as why:
        return {"difference": float(joint.estimates[a] - joint.estimates[b])} | dict.fromkeys(
            ("ci", "z", "p"), undefined(why)
        )
    return {"difference": difference, "ci": list(ci), "z": z, "p": p}
