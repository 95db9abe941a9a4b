"""Rows: what the local halves see of a site's patients; every array has one entry a patient."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


class Matrix(NamedTuple):
    """Columns as they are: raw or standardised, NaN = missing.

    x : (n, p) float64; group : (n,) int64, the class or cohort of a patient (0, 1, ...).
    """

    x: Array
    group: Counts


def group_codes(rows: Matrix, groups: int) -> Counts:
    """Group of each patient, (n,); with a single group all patients are in it, whatever their code."""
    return np.zeros(len(rows.x), dtype=np.int64) if groups == 1 else rows.group


class Labelled(NamedTuple):
    """A design with a binary outcome.

    x : (n, p) float64, standardised, no NaN; y : (n,) of 0.0 and 1.0; fold : (n,) int64, inner cross-validation fold
    (all 0 where none is used). An intercept is not a column here unless an algorithm says so.
    """

    x: Array
    y: Array
    fold: Counts


class Survival(NamedTuple):
    """A design with a right-censored time.

    x : (n, p) float64, standardised, no NaN; time : (n,) in the endpoint's unit, on the study's time grid; event : (n,)
    of 0.0 and 1.0.
    """

    x: Array
    time: Array
    event: Array


class FoldedSurvival(NamedTuple):
    """A design with a right-censored time, and inner cross-validation folds.

    x : (n, p) float64, standardised, no NaN; time : (n,) in the endpoint's unit; event : (n,) of 0.0 and 1.0; fold :
    (n,) int64.
    """

    x: Array
    time: Array
    event: Array
    fold: Counts


class Scored(NamedTuple):
    """Reported scores of m binary models beside the outcome.

    score : (n, m) float64, already rounded to the 1e-4 grid; y : (n,) of 0.0 and 1.0; fold : (n,) int64 (all 0 where
    there are no folds).
    """

    score: Array
    y: Array
    fold: Counts


class ScoredSurvival(NamedTuple):
    """Reported scores of m models beside a right-censored time.

    score : (n, m) float64 on the 1e-4 grid; time, event : (n,).
    """

    score: Array
    time: Array
    event: Array


class ScoredCompeting(NamedTuple):
    """Reported scores of m models beside a time with competing events.

    score : (n, m) float64 on the 1e-4 grid; time : (n,); event : (n,) of 0.0 and 1.0, any event; cause : (n,) int64,
    censored (0), the event of interest (1) or a competing one (2).
    """

    score: Array
    time: Array
    event: Array
    cause: Counts
