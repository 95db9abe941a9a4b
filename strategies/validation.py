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
from cohortium.strategies import calibration, cutoff, decision_curve, discrimination, score_bins
from cohortium.strategies.rows import Counts
from cohortium.strategies.score_bins import Resolution
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined, withheld
from cohortium.strategies.validation_survival import validate_survival

__all__ = ["Settings", "choose_cutoffs", "compare", "validate_binary", "validate_survival"]

BINARY_FIGURES = (
    "n", "events", "auc", "roc", "pr", "average_precision", "brier", "calibration", "decision_curve", "at_cutoff",
)  # fmt: skip


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
        figures[name] = {
            "n": n,
            "events": int(patients[m, 1].sum()),
            **_ranking(of_model, edges[m]),
            "brier": float(histogram.squared_error[m] / score_bins.GRID**2 / n),
            "calibration": _calibration(of_model.sum(0), histogram.score_sum[m, :cells], recalibrations[m], settings),
            "decision_curve": {
                "thresholds": list(settings.decision_thresholds),
                "net_benefit": decision_curve.net_benefit(
                    called.patients[m, :, 1:], called.total, settings.decision_thresholds
                ).tolist(),
                "treat_all": decision_curve.treat_all(called.total, settings.decision_thresholds).tolist(),
            },
            "at_cutoff": _at_cutoff(name, called.patients[m, :, 0], called.total, settings),
        }
    return figures


def compare(
    federation: Federation, models: Sequence[str], pairs: Sequence[tuple[str, str]], settings: Settings
) -> list[dict[str, Figure]]:
    """DeLong's test of pairs of models; one sum after the score histogram.

    Returns
    -------
    list of entries of ``comparisons`` in results.json, without ``cohort``
    """
    edges, histogram = _histogram(federation, len(models), settings)
    patients = histogram.patients.sum(0)
    heads = [{"a": a, "b": b, "test": "delong"} for a, b in pairs]
    if patients[0].sum() < settings.minimum_count:
        return [head | withheld(("difference", "ci", "z", "p"), settings.minimum_count) for head in heads]
    try:
        joint = discrimination.paired(federation, edges, patients)
    except Undefined as why:
        return [head | dict.fromkeys(("difference", "ci", "z", "p"), undefined(why)) for head in heads]
    order = {name: m for m, name in enumerate(models)}
    return [head | _comparison(joint, order[head["a"]], order[head["b"]]) for head in heads]


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
    nobody = 2.0
    shared = cutoff.on_grid(np.array(settings.decision_thresholds))
    own = cutoff.on_grid(np.array([settings.cutoffs.get(name, nobody) for name in models]))
    return np.column_stack([own, np.tile(shared, (len(models), 1))])


def _ranking(by_fold: Counts, lower: Counts) -> dict[str, Figure]:
    """Figures of one model's (folds, 2, cells) counts that depend on the order of the scores only."""
    patients = by_fold.sum(0)

    def auc() -> Figure:
        area = discrimination.auc(patients, lower)
        figure = {
            "estimate": area.estimate,
            "ci": defined(lambda: list(area.confidence_interval())),
            "bound": area.bound,
        }
        if len(by_fold) > 1:
            figure["folds_mean"] = defined(
                lambda: float(np.mean([discrimination.auc(f, lower).estimate for f in by_fold]))
            )
        return figure

    return {
        "auc": defined(auc),
        "roc": defined(lambda: discrimination.roc(patients).tolist()),
        "pr": defined(lambda: discrimination.precision_recall(patients).tolist()),
        "average_precision": defined(lambda: discrimination.average_precision(patients)),
    }


def _calibration(
    patients: Counts, score_sum: Counts, fitted: calibration.Recalibration | Undefined, settings: Settings
) -> dict[str, Figure]:
    groups = calibration.groups(patients, score_sum, minimum=settings.minimum_count)

    def hosmer_lemeshow() -> Figure:
        chi2, df, p = calibration.hosmer_lemeshow(groups, cohort=settings.cohort)
        return {"chi2": chi2, "df": df, "p": p}

    names = ("intercept", "intercept_ci", "slope", "slope_ci", "ici")
    return {
        **{name: _plain(fitted if isinstance(fitted, Undefined) else getattr(fitted, name)) for name in names},
        "hosmer_lemeshow": defined(hosmer_lemeshow),
        "curve": [
            [float(s / n), float(e / n), int(n)]
            for s, e, n in zip(groups.predicted, groups.events, groups.patients, strict=True)
        ],
    }


def _at_cutoff(name: str, positive: Counts, total: Counts, settings: Settings) -> Figure:
    if name not in settings.cutoffs:
        return undefined("no cut-off was chosen for this model")
    counts = cutoff.Confusion.of(positive, total)
    figures: dict[str, Figure] = {"cutoff": float(settings.cutoffs[name]), "rule": settings.cutoff_rule}
    figures |= {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}
    for share, (of, among) in counts.shares().items():
        none = undefined("no patient to divide by: nobody of this class, or nobody called so")
        figures[share] = of / among if among else none
        figures[f"{share}_ci"] = list(cutoff.wilson(of, among)) if among else none
    return figures


def _comparison(joint: discrimination.Paired, a: int, b: int) -> dict[str, Figure]:
    try:
        difference, ci, z, p = joint.test(a, b)
    except Undefined as why:
        return {"difference": float(joint.estimates[a] - joint.estimates[b])} | dict.fromkeys(
            ("ci", "z", "p"), undefined(why)
        )
    return {"difference": difference, "ci": list(ci), "z": z, "p": p}


def _plain(value: float | tuple[float, float] | Undefined) -> Figure:
    """JSON-ready form of a figure."""
    if isinstance(value, Undefined):
        return undefined(value)
    return list(value) if isinstance(value, tuple) else value
