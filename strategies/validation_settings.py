"""Validation settings: what a study says about its figures, and the JSON forms of a figure that is not there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cohortium.common.errors import Undefined
from cohortium.strategies.decision_curve import THRESHOLDS
from cohortium.strategies.score_bins import Resolution

Figure = Any
"""A JSON-ready number, list or dictionary; ``{"undefined": reason}`` where it cannot exist."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a study says about its validation.

    Parameters
    ----------
    score_resolution, minimum_count
        As in ``[privacy]``.
    decision_thresholds : tuple of float
        Risks in (0, 1), on the grid of 1e-4.
    cutoffs : mapping of model to float
        Chosen on train; a model without one has no figures at a cut-off.
    cutoff_rule : str or float
        What chose them, repeated in the figures.
    folds : int
        Folds of a cross-validated cohort; 1 elsewhere.
    cohort : {"development", "validation"}
        Whether the models were fitted on these patients (degrees of freedom of Hosmer-Lemeshow).
    time_step : float
        Width of the time grid in the unit of the times; 1 = exact for whole days.
    horizon : tuple of float
        Times at which AUC and Brier score of survival are reported.
    baseline_survival : mapping of model to tuple of float
        Survival at each horizon of a patient with score 0; a model without it (or with none) has no Brier score.
    bootstrap, seed : int
        Replicates of bootstrap intervals (0: none), and what their draws follow from.
    baseline_curve : mapping of model to tuple of float
        The same at each of `time_dependent.evaluation_cells`, over which the Brier score is integrated.
    log_hazards : tuple of str
        Models whose score is a log relative hazard, so that it has a calibration slope.
    calibration_slope : {None, "within_sites"}
        Whether survival models have a calibration slope stratified by site: about 4 more sums.
    compare : tuple of pairs of models
        Whose C-indices are compared.
    concordance : {"pooled", "within_site"}
        Pairs that the C-index compares. ``"within_site"`` sends no joint table of times and scores.
    """

    score_resolution: Resolution = "binned"
    minimum_count: int = 5
    decision_thresholds: tuple[float, ...] = THRESHOLDS
    cutoffs: Mapping[str, float] = field(default_factory=dict)
    cutoff_rule: str | float = "youden"
    folds: int = 1
    cohort: Literal["development", "validation"] = "validation"
    time_step: float = 1.0
    horizon: tuple[float, ...] = ()
    baseline_survival: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    bootstrap: int = 0
    seed: int = 0
    baseline_curve: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    log_hazards: tuple[str, ...] = ()
    calibration_slope: Literal["within_sites"] | None = None
    compare: tuple[tuple[str, str], ...] = ()
    concordance: Literal["pooled", "within_site"] = "pooled"

    def __post_init__(self) -> None:
        outside = [t for t in self.decision_thresholds if not 0 < t < 1]
        if outside:
            raise ValueError(f"decision_thresholds = {outside[0]} is outside 0..1 (exclusive): a threshold is a risk")


def defined(figure: Callable[[], Figure]) -> Figure:
    """The figure, or ``{"undefined": reason}``."""
    try:
        return figure()
    except Undefined as why:
        return undefined(why)


def undefined(why: Undefined | str) -> dict[str, str]:
    """A figure that cannot exist for this cohort."""
    return {"undefined": str(why)}


def withheld(figures: Sequence[str], minimum_count: int) -> dict[str, Figure]:
    """All figures of a cohort that is too small to be shown."""
    return {name: {"withheld": f"the cohort has fewer than {minimum_count} patients"} for name in figures}
