"""Counts of (grey level, size): the features that run, zone, distance and dependence matrices share (IBSI 3.7 to 3.11).

A matrix is a list of its entries, since the largest zone of a liver would be column two million.
"""

from typing import NamedTuple

import numpy as np

from cohortium.client.imaging.ibsi.region import Levels, Mask, average, entropy


class Counts(NamedTuple):
    """Entries of matrices: level, size, how many, and of which slice and direction; each (n,)."""

    level: Levels
    size: Levels
    number: Levels
    place: Levels  # slice
    direction: Levels

    def where(self, chosen: Mask) -> "Counts":
        """Entries that are chosen."""
        return Counts(*(column[chosen] for column in self))


def counted(level: Levels, size: Levels, place: Levels | int = 0, direction: int = 0) -> Counts:
    """Entries from single runs, zones or voxels: equal ones counted."""
    if not len(level):
        return Counts(*np.zeros((5, 0), dtype=np.int64))
    place = np.broadcast_to(place, level.shape)
    n_levels, n_sizes = level.max() + 1, size.max() + 1
    keys, number = np.unique((place * n_levels + level) * n_sizes + size, return_counts=True)
    rest, found_size = np.divmod(keys, n_sizes)
    found_place, found_level = np.divmod(rest, n_levels)
    return Counts(found_level, found_size, number, found_place, np.full(len(keys), direction))


def joined(parts: list[Counts]) -> Counts:
    """Entries of several lists."""
    return Counts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def of_matrix(counts: Counts, voxels: int, names: tuple[str, ...]) -> dict[str, float]:
    """Features of all entries as one matrix.

    Parameters
    ----------
    voxels : int
        How many there could be: voxels of the region, times the directions that were merged.
    names : tuple of 16 or 17
        The family's names, in the order of the manual: small, large, low, high, small low, small high, large low,
        large high, level non-uniformity, normalised, size non-uniformity, normalised, percentage, variance of levels,
        of sizes, entropy, energy.
    """
    if not (total := counts.number.sum()):
        return dict.fromkeys(names, np.nan)
    i, j = counts.level.astype(float), counts.size.astype(float)
    n_sizes = int(counts.size.max()) + 1
    # One direction's entries and another's can be the same cell of the merged matrix
    cells, cell = np.unique(counts.level * n_sizes + counts.size, return_inverse=True)
    p = np.bincount(cell, counts.number, minlength=len(cells)) / total
    i, j = (cells // n_sizes).astype(float), (cells % n_sizes).astype(float)
    of_level = np.bincount(cells // n_sizes, p)
    of_size = np.bincount(np.unique(j, return_inverse=True)[1], p)
    mean_level, mean_size = p @ i, p @ j
    values = (
        p @ j**-2.0, p @ j**2, p @ i**-2.0, p @ i**2,
        p @ (i * j) ** -2.0, p @ (i / j) ** 2, p @ (j / i) ** 2, p @ (i * j) ** 2,
        total * (of_level @ of_level), of_level @ of_level, total * (of_size @ of_size), of_size @ of_size,
        total / voxels, p @ (i - mean_level) ** 2, p @ (j - mean_size) ** 2, entropy(p), p @ p,
    )  # fmt: skip
    return {name: float(value) for name, value in zip(names, values, strict=False)}


def averaged(counts: Counts, by: list[Mask], voxels: list[int], names: tuple[str, ...]) -> dict[str, float]:
    """Features of the matrix of each group of entries, averaged.

    Parameters
    ----------
    by : list of (n,) bool
        Which entries belong to each group.
    voxels : list of int
        See `of_matrix`, for each group.
    """
    return average([of_matrix(counts.where(group), n, names) for group, n in zip(by, voxels, strict=True)])
