"""Measured region: what all IBSI features are computed from, and the directions and slices they are aggregated over.

IBSI: Image biomarker standardisation initiative, reference manual (Zwanenburg et al., arXiv:1612.07003 v11) and
Radiology 295:328, 2020. Section numbers in this folder are the manual's.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Levels = NDArray[np.int64]
Mask = NDArray[np.bool_]

IN_PLANE = ((0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1))
"""Steps (z, y, x) to half of the eight neighbours in a slice."""

IN_SPACE = (*IN_PLANE, *((1, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)))
"""Steps to half of the 26 neighbours."""


class Measured(NamedTuple):
    """A region in its bounding box with one voxel of background around it, arrays (z, y, x).

    Attributes
    ----------
    values : float64
        Intensities.
    morphology, inside : bool
        Morphological mask, and intensity mask: what re-segmentation left of it.
    levels : int64
        Discretised intensity, 1 to `n_levels`; 0 outside the intensity mask.
    spacing_mm : (3,), z, y, x
    """

    values: Array
    morphology: Mask
    inside: Mask
    levels: Levels
    n_levels: int
    spacing_mm: Array

    @property
    def of_region(self) -> Array:
        """Intensities of the intensity mask, (n,)."""
        return self.values[self.inside]


def shifted(array: NDArray, step: tuple[int, int, int]) -> tuple[NDArray, NDArray]:
    """Views of an array: each voxel that has a neighbour at `step`, and that neighbour."""
    here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, array.shape, strict=True))
    there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, array.shape, strict=True))
    return array[here], array[there]


def entropy(p: NDArray, axis: int | tuple[int, ...] | None = None) -> Array:
    """Shannon entropy in bits; 0 log 0 = 0."""
    return -np.sum(p * np.log2(p, where=p > 0, out=np.zeros_like(p)), axis=axis)


def average(found: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each feature over matrices; those without any entry (NaN) do not count."""
    together = {name: np.array([one[name] for one in found]) for name in found[0]}
    return {
        name: float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else np.nan
        for name, values in together.items()
    }
