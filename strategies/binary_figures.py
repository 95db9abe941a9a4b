"""Binary figures: the sums of one cohort written as the entries of results.json, for one model; pure, no federation."""

from dataclasses import asdict

import numpy as np

from cohortium.common.errors import Undefined
from cohortium.strategies import (
    bootstrap,
    brier,
    calibration,
    calibration_groups,
    cutoff,
    decision_curve,
    discrimination,
    updating,
)
from cohortium.strategies.calibration_groups import Groups
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined

BINARY_FIGURES = (
    "n", "events", "auc", "roc", "pr", "average_precision", "average_precision_ci", "brier", "brier_scaled",
    "brier_parts", "log_loss", "calibration", "updating", "decision_curve", "at_cutoff",
)  # fmt: skip


def ranking(by_fold: Counts, lower: Counts, settings: Settings) -> dict[str, Figure]:
    """Figures of one model's (folds, 2, cells) counts that depend on the order of the scores only."""
    patients = by_fold.sum(0)

    def auc() -> Figure:
        area = discrimination.auc(patients, lower)
        figure = {
            "estimate": area.estimate,
            "ci": defined(lambda: list(area.confidence_interval())),
            "se": defined(lambda: float(np.sqrt(area.variance))),
            "bound": area.bound,
        }
        if len(by_fold) > 1:
            figure["folds_mean"] = defined(
                lambda: float(np.mean([discrimination.auc(f, lower).estimate for f in by_fold]))
            )
        if settings.bootstrap:
            figure["bootstrap_ci"] = _bootstrapped(bootstrap.auc, patients, settings)
        return figure

    precision = defined(lambda: discrimination.average_precision(patients))
    events = int(patients[1].sum())
    figures = {
        "auc": defined(auc),
        "roc": defined(lambda: discrimination.roc(patients).tolist()),
        "pr": defined(lambda: discrimination.precision_recall(patients).tolist()),
        "average_precision": precision,
        "average_precision_ci": precision
        if isinstance(precision, dict)
        else defined(lambda: list(discrimination.average_precision_interval(precision, events))),
    }
    if settings.bootstrap:
        interval = _bootstrapped(bootstrap.average_precision, patients, settings)
        figures["average_precision_bootstrap_ci"] = precision if isinstance(precision, dict) else interval
    return figures


def accuracy(groups: Groups, squared_error: float, sums: Array) -> dict[str, Figure]:
    """Brier score with its parts, and the logarithmic score.

    Parameters
    ----------
    squared_error : float
        Mean of (outcome - score)^2.
    sums : (3,)
        As `discrimination.Histogram.accuracy`.
    """
    return {
        "brier": squared_error,
        "brier_scaled": defined(lambda: brier.scaled(groups, squared_error)),
        "brier_parts": asdict(brier.decomposition(groups, squared_error)),
        "log_loss": float(-sums[2] / groups.patients.sum()),
    }


def calibrated(
    groups: Groups, sums: Array, fitted: calibration.Recalibration | Undefined, settings: Settings
) -> dict[str, Figure]:
    """What is under ``calibration``."""

    def hosmer_lemeshow() -> Figure:
        chi2, df, p = calibration_groups.hosmer_lemeshow(groups, cohort=settings.cohort)
        return {"chi2": chi2, "df": df, "p": p}

    def spiegelhalter() -> Figure:
        z, p = brier.spiegelhalter(float(sums[0]), float(sums[1]))
        return {"z": z, "p": p}

    def observed_to_expected() -> Figure:
        ratio, ci = calibration_groups.observed_to_expected(groups)
        return {"estimate": ratio, "ci": list(ci)}

    names = ("intercept", "intercept_ci", "slope", "slope_ci", "ici", "e50", "e90")
    return {
        **{name: _plain(fitted if isinstance(fitted, Undefined) else getattr(fitted, name)) for name in names},
        "ece": calibration_groups.expected_calibration_error(groups),
        "observed_to_expected": defined(observed_to_expected),
        "spiegelhalter": defined(spiegelhalter),
        "hosmer_lemeshow": defined(hosmer_lemeshow),
        "curve": [
            [float(s / n), float(e / n), int(n)]
            for s, e, n in zip(groups.predicted, groups.events, groups.patients, strict=True)
        ],
    }


def updated(fitted: calibration.Recalibration | Undefined) -> Figure:
    """What is under ``updating``."""
    found = fitted if isinstance(fitted, Undefined) else fitted.updating
    return undefined(found) if isinstance(found, Undefined) else updating.closed_test(found)


def decisions(called: Counts, total: Counts, settings: Settings) -> dict[str, Figure]:
    """What is under ``decision_curve``; `called` (2, k) by outcome and threshold, `total` (2,)."""
    thresholds = settings.decision_thresholds
    figures: dict[str, Figure] = {
        "thresholds": list(thresholds),
        "net_benefit": decision_curve.net_benefit(called, total, thresholds).tolist(),
        "treat_all": decision_curve.treat_all(total, thresholds).tolist(),
        "treat_none": [0.0] * len(thresholds),
        "interventions_avoided": decision_curve.interventions_avoided(called, total, thresholds).tolist(),
    }
    if settings.bootstrap and thresholds:
        between = -np.diff(np.column_stack([total, called, np.zeros(2, np.int64)]))
        figures["net_benefit_bootstrap_ci"] = _bootstrapped(bootstrap.net_benefit(thresholds), between, settings)
    return figures


def at_cutoff(name: str, positive: Counts, total: Counts, settings: Settings) -> Figure:
    """What is under ``at_cutoff``."""
    if name not in settings.cutoffs:
        return undefined("no cut-off was chosen for this model")
    counts = cutoff.Confusion.of(positive, total)
    figures: dict[str, Figure] = {"cutoff": float(settings.cutoffs[name]), "rule": settings.cutoff_rule}
    figures |= {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}
    for share, (of, among) in counts.shares().items():
        none = undefined("no patient to divide by: nobody of this class, or nobody called so")
        figures[share] = of / among if among else none
        figures[f"{share}_ci"] = list(cutoff.wilson(of, among)) if among else none
    for key, ratio in {"f1": counts.f1(), **counts.ratios()}.items():
        value, ci = (ratio, ratio) if isinstance(ratio, Undefined) else ratio
        figures[key], figures[f"{key}_ci"] = _plain(value), _plain(ci)
    return figures


def _bootstrapped(figure: bootstrap.Replicated, patients: Counts, settings: Settings) -> Figure:
    found = bootstrap.percentile_interval(figure, patients, replicates=settings.bootstrap, seed=settings.seed)
    if found is None:
        return undefined("in a tenth or more of the replicates the figure does not exist")
    return np.stack(found, axis=-1).tolist()


def _plain(value: float | tuple[float, float] | Undefined) -> Figure:
    """JSON-ready form of a figure."""
    if isinstance(value, Undefined):
        return undefined(value)
    return list(value) if isinstance(value, tuple) else value
