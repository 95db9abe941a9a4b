"""Score bins: cells of the score grid, the same at every site, with about ten patients of the cohort each.

A reported score is an integer of 1e-4 (0 to 10,000 for a probability, unbounded for a linear predictor). Everything
that ranks patients works on counts a cell. `edges` finds the cells by counting on a coarse public grid and splitting
only what is crowded; the counts that find them carry no outcome. Cells of single grid values (``resolution = "exact"``)
show nearly every patient's score, so a study has to ask for them.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Scored, ScoredSurvival

GRID = 10_000
"""Grid steps in a score of 1."""
PER_BIN = 10
"""Patients that a cell is meant to hold."""

Scale = Literal["probability", "linear"]
Resolution = Literal["binned", "exact"]

# Beyond +-1e8 a linear predictor is a broken model; such scores share the outermost cells.
_LARGEST = 2**40


def grid(score: Array) -> Counts:
    """Scores as integers of 1e-4."""
    return np.rint(np.asarray(score) * GRID).astype(np.int64)


def cell(score: Array, edges: Counts) -> NDArray[np.intp]:
    """Index of each score's cell: i holds edges[i] <= grid < edges[i + 1], the outermost cells also what is beyond."""
    return np.maximum(np.searchsorted(edges, grid(score), side="right") - 1, 0)


def widths(lower: Counts, scale: Scale) -> Counts:
    """Grid values in each cell, (cells,)."""
    return np.diff(lower, append=GRID + 1 if scale == "probability" else _LARGEST)


# --- at each site ---------------------------------------------------------------------------------------------


class Occupancy(NamedTuple):
    """Patients in each cell."""

    patients: Counts  # (models, cells); zero beyond a model's own cells


@statistic("score_bins.occupancy", adds_over="rows")
def occupancy(rows: Scored | ScoredSurvival, *, edges: list[Counts]) -> Occupancy:
    """Count patients a cell for every model; `edges` holds the sorted lower edges of each."""
    most = max(len(lower) for lower in edges)
    return Occupancy(
        np.stack([np.bincount(cell(rows.score[:, m], lower), minlength=most) for m, lower in enumerate(edges)])
    )


# --- at the server --------------------------------------------------------------------------------------------


def edges(
    federation: Federation, models: int, *, scale: Scale, resolution: Resolution = "binned", per_bin: int = PER_BIN
) -> list[Counts]:
    """Lower edges of each model's cells, in grid units.

    Parameters
    ----------
    federation : Federation
        Its rows are `Scored` or `ScoredSurvival` with `models` columns of scores.
    scale : {"probability", "linear"}
        The grid: 0 to 10,000, or all integers.
    resolution : {"binned", "exact"}
        ``"binned"``: equal-frequency cells of about `per_bin` patients, none with fewer but empty ones (unless the
        cohort has fewer); at most 3 sums for all models together. ``"exact"``: no two different scores share a cell;
        no sum for probabilities (every grid value is a cell), about 3 for linear predictors.
    per_bin : int
        Patients a cell is meant to hold.

    Returns
    -------
    list of (cells,) int64, ascending; one array a model
    """
    if resolution == "exact" and scale == "probability":
        return [np.arange(GRID + 1)] * models
    # Crowded cells are cut into pieces of about a quarter bin, so that merged bins come out even.
    sums, crowded = (3, 2 * per_bin) if resolution == "binned" else (12, 1)
    cells = [start(scale)] * models
    patients = _patients(federation, cells)
    for _ in range(sums - 1):
        finer = [
            split(lower, scale, np.where(n > crowded, 4 * n // per_bin if resolution == "binned" else 128, 1))
            for lower, n in zip(cells, patients, strict=True)
        ]
        if all(len(new) == len(old) for new, old in zip(finer, cells, strict=True)):
            break
        cells, patients = finer, _patients(federation, finer)
    if resolution == "exact":
        return [_occupied(lower, n) for lower, n in zip(cells, patients, strict=True)]
    return [_merged(lower, scale, n, per_bin) for lower, n in zip(cells, patients, strict=True)]


def start(scale: Scale) -> Counts:
    """Public cells to begin with: a hundred even ones, or eight an octave on both sides of zero."""
    if scale == "probability":
        return np.arange(0, GRID + 1, 100)
    magnitudes = np.rint(2.0 ** np.arange(6, np.log2(_LARGEST), 1 / 8)).astype(np.int64)
    return np.concatenate([-magnitudes[::-1], [0], magnitudes])


def split(lower: Counts, scale: Scale, pieces: Counts) -> Counts:
    """Cut cell i into `pieces[i]` even ones, or into single grid values where it is narrower than that."""
    width = widths(lower, scale)
    pieces = np.clip(pieces, 1, width)
    return np.concatenate([edge + np.arange(k) * w // k for edge, w, k in zip(lower, width, pieces, strict=True)])


def _patients(federation: Federation, cells: list[Counts]) -> list[Counts]:
    total = federation.sum(occupancy, edges=cells).patients
    return [total[m, : len(lower)] for m, lower in enumerate(cells)]


def _occupied(lower: Counts, patients: Counts) -> Counts:
    """Drop cells without a patient (their room goes to the cell below, which stays one score)."""
    return lower[patients > 0] if patients.any() else lower[:1]


def _merged(lower: Counts, scale: Scale, patients: Counts, per_bin: int) -> Counts:
    """Join neighbours until every bin holds at least `per_bin`; what is left at the top joins the last bin.

    A crowded single grid value keeps a bin of its own (a staging score has few values, and its ties are real), with an
    empty bin beside it.
    """
    alone = (widths(lower, scale) == 1) & (patients >= per_bin)
    left = np.cumsum(patients[::-1])[::-1]  # in this cell and above
    starts, held = [0], 0
    for i, n in enumerate(patients):
        full = held >= per_bin and (left[i] >= per_bin or left[i] == 0)
        if i > 0 and (full or (held == 0 and alone[i])):
            starts.append(i)
            held = 0
        held += n
    return lower[starts]
