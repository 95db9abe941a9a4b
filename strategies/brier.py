"""Brier score and its parts: how far scores lie from outcomes, and how much of that is miscalibration.

From the score histogram alone, at no further sum. Decomposition: Murphy, J Appl Meteorol 1973, over groups of patients;
what a group's scores differ among themselves is kept as a part of its own (Stephenson, Coelho & Jolliffe, Weather
Forecast 2008), so that the parts add up to the Brier score exactly. Spiegelhalter's test: Stat Med 1986.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.strategies.calibration_groups import Groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Decomposition:
    """``brier = reliability - resolution + uncertainty + within_groups``."""

    reliability: float
    resolution: float
    uncertainty: float
    within_groups: float


def decomposition(of: Groups, brier: float) -> Decomposition:
    """Parts of a Brier score over the groups of a calibration curve.

    Parameters
    ----------
    of : Groups
    brier : float
        Mean squared difference of outcome and score over the same patients.
    """
    n = of.patients.sum()
    share, observed = of.patients / n, of.events / of.patients
    prevalence = of.events.sum() / n
    reliability = float(share @ (of.predicted / of.patients - observed) ** 2)
    resolution = float(share @ (observed - prevalence) ** 2)
    uncertainty = float(prevalence * (1 - prevalence))
    return Decomposition(
        reliability=reliability,
        resolution=resolution,
        uncertainty=uncertainty,
        within_groups=brier - reliability + resolution - uncertainty,
    )


def scaled(of: Groups, brier: float) -> float:
    """1 - Brier / (Brier of giving everyone the prevalence): 1 is perfect, 0 no better than the prevalence.

    Raises
    ------
    Undefined
        One class only: the prevalence alone is perfect then.
    """
    prevalence = of.events.sum() / of.patients.sum()
    if prevalence in (0, 1):
        raise Undefined("a scaled Brier score needs patients with and without the outcome")
    return float(1 - brier / (prevalence * (1 - prevalence)))


def spiegelhalter(excess: float, variance: float) -> tuple[float, float]:
    """Spiegelhalter's z and its two-sided p: is the Brier score the one that calibrated scores would have?

    Parameters
    ----------
    excess, variance : float
        Sums of (y - s)(1 - 2 s) and of (1 - 2 s)^2 s (1 - s).

    Raises
    ------
    Undefined
        Every score is 0, 1/2 or 1.
    """
    if variance <= 1e-12:  # a sum's rounding
        raise Undefined("Spiegelhalter's test needs a score other than 0, 1/2 and 1")
    z = excess / float(np.sqrt(variance))
    return z, float(2 * stats.norm.sf(abs(z)))
