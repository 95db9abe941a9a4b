"""Grey level zones: connected voxels of one level, by size and by distance from the region's border (IBSI 3.8, 3.9).

Thibault et al., IEEE Trans Biomed Eng 61:630, 2014.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohortium.client.imaging.ibsi.counts import Counts, averaged, counted, of_matrix
from cohortium.client.imaging.ibsi.region import Measured

_EMPHASES = ("lgze", "hgze")
_TAIL = ("z_perc", "gl_var")
SIZE_NAMES = (
    "sze", "lze", *_EMPHASES, "szlge", "szhge", "lzlge", "lzhge", "glnu", "glnu_norm", "zsnu", "zsnu_norm", *_TAIL,
    "zs_var", "zs_entr",
)  # fmt: skip
DISTANCE_NAMES = (
    "sde", "lde", *_EMPHASES, "sdlge", "sdhge", "ldlge", "ldhge", "glnu", "glnu_norm", "zdnu", "zdnu_norm", *_TAIL,
    "zd_var", "zd_entr",
)  # fmt: skip


def features(region: Measured, dimension: str, families: tuple[str, ...] = ("szm", "dzm")) -> dict[str, float]:
    """Features ``szm_NAME_AGGREGATION`` and ``dzm_NAME_AGGREGATION`` of a region.

    Zones are of 26-connected voxels, or of 8-connected ones in each slice.
    """
    depth = 1 if dimension == "3D" else 0
    # Eight or 26 neighbours; in 2D the structure has nothing above and below
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1 - depth : 2 + depth] = True
    labels, level = _labels(region, structure)
    zones = np.arange(1, len(level) + 1)
    place = ndimage.maximum(np.indices(labels.shape, sparse=True)[0] + 0 * labels, labels, zones).astype(np.int64)
    found: dict[str, float] = {}
    if "szm" in families:
        size = np.bincount(labels.ravel())[1:]
        found |= _aggregated("szm", SIZE_NAMES, counted(level, size, place), region, dimension)
    if "dzm" in families:
        distance = ndimage.minimum(_steps_to_border(region.morphology, dimension), labels, zones).astype(np.int64)
        found |= _aggregated("dzm", DISTANCE_NAMES, counted(level, distance, place), region, dimension)
    return found


def _labels(region: Measured, structure: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the zone of each voxel (1, 2, ...; 0 outside), and the level of each zone."""
    labels = np.zeros(region.levels.shape, dtype=np.int64)
    levels: list[NDArray[np.int64]] = []
    so_far = 0
    for level in np.unique(region.levels[region.inside]):
        found, n = ndimage.label(region.levels == level, structure)
        labels += np.where(found, found + so_far, 0)
        levels.append(np.full(n, level))
        so_far += n
    return labels, np.concatenate(levels)


def _steps_to_border(morphology: NDArray[np.bool_], dimension: str) -> NDArray[np.int64]:
    """Steps over faces to the nearest voxel outside the morphological mask: 1 on its border."""
    if dimension == "3D":
        return ndimage.distance_transform_cdt(morphology, metric="taxicab").astype(np.int64)
    return np.stack([ndimage.distance_transform_cdt(slice_, metric="taxicab") for slice_ in morphology]).astype(
        np.int64
    )


def _aggregated(
    family: str, names: tuple[str, ...], zones: Counts, region: Measured, dimension: str
) -> dict[str, float]:
    return by_slice_or_merged(family, names, zones, region, dimension)


def by_slice_or_merged(
    family: str, names: tuple[str, ...], counts: Counts, region: Measured, dimension: str
) -> dict[str, float]:
    """Features of one matrix (3D, 2.5D), and of the matrix of each slice, averaged (2D)."""
    merged = of_matrix(counts, int(region.inside.sum()), names)
    if dimension == "3D":
        return {f"{family}_{name}_3D": value for name, value in merged.items()}
    in_slice = region.inside.sum(axis=(1, 2))
    slices = np.flatnonzero(in_slice)
    each = averaged(counts, [counts.place == z for z in slices], [int(in_slice[z]) for z in slices], names)
    return {
        f"{family}_{name}_{how}": value
        for how, values in (("2D", each), ("2_5D", merged))
        for name, value in values.items()
    }
