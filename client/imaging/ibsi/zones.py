"""Grey level zones: connected voxels of one level, by size and by distance from the region's border (IBSI 3.8, 3.9).

Thibault et al., IEEE Trans Biomed Eng 61:630, 2014.
"""

from typing import Any

import numpy as np
from scipy import ndimage

from cohortium.client.imaging.ibsi.counts import Counts, averaged, counted, of_matrix
from cohortium.client.imaging.ibsi.region import Levels, Mask, Measured
from cohortium.client.imaging.matrices import connected

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
    zone = connected(region.levels, flat=dimension == "2D")[region.inside]
    # Each zone's level and slice are those of its voxels, its distance the least of theirs
    _, first = np.unique(zone, return_index=True)
    level = region.levels[region.inside][first]
    place = np.nonzero(region.inside)[0][first]
    found: dict[str, float] = {}
    if "szm" in families:
        counts = counted(level, np.bincount(zone)[1:], place)
        found |= by_slice_or_merged("szm", SIZE_NAMES, counts, region, dimension)
    if "dzm" in families:
        distance = np.full(len(level), np.iinfo(np.int64).max)
        np.minimum.at(distance, zone - 1, _steps_to_border(region.morphology, dimension)[region.inside])
        found |= by_slice_or_merged("dzm", DISTANCE_NAMES, counted(level, distance, place), region, dimension)
    return found


def _steps_to_border(morphology: Mask, dimension: str) -> Levels:
    """Steps over faces to the nearest voxel outside the morphological mask: 1 on its border."""
    # The transform of scipy is typed as several things at once
    steps: Any = ndimage.distance_transform_cdt
    if dimension == "3D":
        return steps(morphology, metric="taxicab").astype(np.int64)
    return np.stack([steps(slice_, metric="taxicab") for slice_ in morphology]).astype(np.int64)


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
