"""Grey level runs: how far one level goes on in a direction (IBSI 3.7; Galloway, 1975)."""

import numpy as np

from cohortium.client.imaging.ibsi.counts import Counts, averaged, counted, joined, of_matrix
from cohortium.client.imaging.ibsi.region import IN_PLANE, IN_SPACE, Levels, Measured

NAMES = (
    "sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", "glnu", "glnu_norm", "rlnu", "rlnu_norm",
    "r_perc", "gl_var", "rl_var", "rl_entr",
)  # fmt: skip


def features(region: Measured, dimension: str) -> dict[str, float]:
    """Features ``rlm_NAME_AGGREGATION`` of a region; aggregated as co-occurrence matrices are."""
    steps = IN_SPACE if dimension == "3D" else IN_PLANE
    runs = joined([_runs(region.levels, step, direction) for direction, step in enumerate(steps)])
    voxels = int(region.inside.sum())
    by_direction = [runs.direction == d for d in range(len(steps))]
    everywhere = [voxels] * len(steps)
    averages = averaged(runs, by_direction, everywhere, NAMES)
    merged = of_matrix(runs, voxels * len(steps), NAMES)
    if dimension == "3D":
        found = {"3D_avg": averages, "3D_comb": merged}
    else:
        in_slice = region.inside.sum(axis=(1, 2))
        slices = np.flatnonzero(in_slice)
        each = [(runs.place == z) & (runs.direction == d) for z in slices for d in range(len(steps))]
        found = {
            "2D_avg": averaged(runs, each, [int(in_slice[z]) for z in slices for _ in steps], NAMES),
            "2D_comb": averaged(
                runs, [runs.place == z for z in slices], [int(in_slice[z]) * len(steps) for z in slices], NAMES
            ),
            "2_5D_avg": averages,
            "2_5D_comb": merged,
        }
    return {f"rlm_{name}_{how}": value for how, values in found.items() for name, value in values.items()}


def _runs(levels: Levels, step: tuple[int, int, int], direction: int) -> Counts:
    """Runs along one direction; `levels` has a voxel of background around it, so a step never leaves the array."""
    flat = levels.ravel()
    stride = int(np.dot(step, [levels.shape[1] * levels.shape[2], levels.shape[2], 1]))
    inside = np.flatnonzero(flat)
    starts = inside[flat[inside - stride] != flat[inside]]
    length = np.ones(len(starts), dtype=np.int64)
    level = flat[starts]
    going, ahead = np.arange(len(starts)), starts + stride
    while len(going):
        same = flat[ahead] == level[going]
        going, ahead = going[same], ahead[same] + stride
        length[going] += 1
    return counted(level, length, starts // (levels.shape[1] * levels.shape[2]), direction)
