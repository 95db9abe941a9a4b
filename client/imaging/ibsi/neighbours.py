"""Neighbourhoods: how a voxel differs from the mean of its neighbours, and how many of them are like it.

Neighbourhood grey tone difference matrix (IBSI 3.10; Amadasun and King, 1989) and neighbouring grey level dependence
matrix (IBSI 3.11; Sun and Wee, 1983), both of the voxels at distance 1, the latter with coarseness 0.
"""

import numpy as np
from scipy import ndimage

from cohortium.client.imaging.ibsi.counts import counted
from cohortium.client.imaging.ibsi.region import IN_PLANE, IN_SPACE, Array, Levels, Measured, average, shifted
from cohortium.client.imaging.ibsi.zones import by_slice_or_merged

TONE_NAMES = ("coarseness", "contrast", "busyness", "complexity", "strength")
DEPENDENCE_NAMES = (
    "lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", "glnu", "glnu_norm", "dcnu", "dcnu_norm",
    "dc_perc", "gl_var", "dc_var", "dc_entr", "dc_energy",
)  # fmt: skip


def dependence(region: Measured, dimension: str) -> dict[str, float]:
    """Features ``ngl_NAME_AGGREGATION``: a voxel depends on those of its neighbours that have its level."""
    alike = np.ones(region.levels.shape, dtype=np.int64)  # itself
    for step in IN_SPACE if dimension == "3D" else IN_PLANE:
        here, there = shifted(region.levels, step)
        alike_here, alike_there = shifted(alike, step)
        same = here == there
        alike_here += same
        alike_there += same
    place = np.nonzero(region.inside)[0]
    counts = counted(region.levels[region.inside], alike[region.inside], place)
    return by_slice_or_merged("ngl", DEPENDENCE_NAMES, counts, region, dimension)


def tone_difference(region: Measured, dimension: str) -> dict[str, float]:
    """Features ``ngt_NAME_AGGREGATION`` of a region."""
    kernel = np.zeros((3, 3, 3))
    kernel[0 if dimension == "3D" else 1 : 3 if dimension == "3D" else 2] = 1
    kernel[1, 1, 1] = 0
    neighbours = ndimage.convolve(region.inside.astype(float), kernel, mode="constant")
    total = ndimage.convolve(region.levels.astype(float), kernel, mode="constant")
    valid = region.inside & (neighbours > 0.5)
    difference = np.zeros(region.levels.shape)
    difference[valid] = np.abs(region.levels[valid] - total[valid] / neighbours[valid])
    merged = _of_voxels(region.levels[valid], difference[valid], region.n_levels)
    if dimension == "3D":
        return {f"ngt_{name}_3D": value for name, value in merged.items()}
    each = average(
        [
            _of_voxels(region.levels[z][valid[z]], difference[z][valid[z]], region.n_levels)
            for z in np.flatnonzero(region.inside.any(axis=(1, 2)))
        ]
    )
    return {f"ngt_{name}_2D": value for name, value in each.items()} | {
        f"ngt_{name}_2_5D": value for name, value in merged.items()
    }


def _of_voxels(level: Levels, difference: Array, n_levels: int) -> dict[str, float]:
    """Features of voxels with neighbours: their levels, and their differences from the mean of these."""
    if not len(level):
        return dict.fromkeys(TONE_NAMES, np.nan)
    n = np.bincount(level, minlength=n_levels + 1)
    present = np.flatnonzero(n)
    p = n[present] / n.sum()
    s = np.bincount(level, difference, minlength=n_levels + 1)[present]
    i = present.astype(float)
    apart = i[:, None] - i[None, :]
    p_i, p_j, s_i, s_j = p[:, None], p[None, :], s[:, None], s[None, :]
    levels = len(i)
    weighted = np.abs(i[:, None] * p_i - i[None, :] * p_j).sum()
    total = p @ s
    return {
        "coarseness": float(1 / total) if total > 0 else 1e6,  # IBSI 3.10.1: a large number where nothing differs
        "contrast": float((p_i * p_j * apart**2).sum() / (levels * (levels - 1)) * s.sum() / n.sum())
        if levels > 1
        else 0.0,
        "busyness": float(total / weighted) if levels > 1 and weighted > 0 else 0.0,
        "complexity": float((np.abs(apart) * (p_i * s_i + p_j * s_j) / (p_i + p_j)).sum() / n.sum()),
        "strength": float(((p_i + p_j) * apart**2).sum() / s.sum()) if s.sum() > 0 else 0.0,
    }
