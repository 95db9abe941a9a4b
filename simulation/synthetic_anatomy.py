"""Anatomy: the upper abdomen of a synthetic patient on contrast-enhanced CT, without disease and without a scanner."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.simulation.synthetic_grid import Field, Grid, Point, stretched

AIR_HU, FAT_HU, MUSCLE_HU, WATER_HU = -1000.0, -95.0, 55.0, 8.0


class Organ(NamedTuple):
    """An ellipsoid of one density, or a wall around water."""

    centre: Point
    radii: Point
    hu: float
    enhances: float = 1.0
    """How much of the contrast phase it takes up."""
    warp: float = 0.0
    """How lumpy it is, in squared radii."""
    wall_mm: float = np.inf
    """Beneath this much of it there is water."""


# A patient of average size; millimetres (z, y, x) from the centre of the grid.
SPINE = Organ((0, 50, 0), (1000, 17, 19), 240, enhances=0.0)
AORTA = Organ((0, 24, 8), (1000, 10, 10), 165)
RIGHT_KIDNEY = Organ((-30, 36, -48), (42, 22, 21), 160)
LEFT_KIDNEY = Organ((-26, 36, 50), (42, 22, 21), 160)
LIVER = Organ((8, -6, -52), (62, 54, 46), 105, warp=0.2)
SPLEEN = Organ((14, 28, 76), (36, 27, 20), 118, warp=0.1)
STOMACH = Organ((0, -22, 34), (58, 32, 40), 72, warp=0.08, wall_mm=6)
ORGANS = (SPINE, AORTA, RIGHT_KIDNEY, LEFT_KIDNEY, LIVER, SPLEEN, STOMACH)
"""In the order in which they are painted."""


class Torso(NamedTuple):
    """A patient's upper abdomen."""

    hu: Field
    body: NDArray[np.bool_]
    size: float
    """Scale of this patient's organs; 1 is average."""


def torso(grid: Grid, *, phase_hu: float, rng: np.random.Generator) -> Torso:
    """Draw a patient's anatomy; `phase_hu` is added to what takes up contrast."""
    size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.06))
    one_slice = (slice(0, 1), slice(None), slice(None))
    rings = grid.distance((0, 0, 0), (np.inf, 86 * size, 118 * size), one_slice)  # a cylinder: all slices are alike
    layers = np.select([rings > 1, rings > 0.84, rings > 0.70], [AIR_HU, FAT_HU, MUSCLE_HU], FAT_HU + 10)
    hu = np.broadcast_to(layers.astype(np.float32), grid.shape).copy()
    for organ in ORGANS:
        _paint(hu, grid, organ, size, rings < 0.70, phase_hu=phase_hu, rng=rng)
    body = np.broadcast_to(rings < 1, grid.shape)
    hu += body * (7.0 * grid.texture("organ", rng))
    return Torso(hu=hu, body=body, size=size)


def _paint(
    hu: Field,
    grid: Grid,
    organ: Organ,
    size: float,
    cavity: NDArray[np.bool_],
    *,
    phase_hu: float,
    rng: np.random.Generator,
) -> None:
    """Fill an organ into `hu`, within the abdominal cavity."""
    z, y, x = stretched(organ.centre, size) + rng.normal(0, 1.5, 3)
    radii = stretched(organ.radii, size)
    box = grid.box((z, y, x), stretched(radii, 1 + organ.warp))
    lumps = organ.warp * grid.texture("organ", rng)[box] if organ.warp else 0.0
    inside = (grid.distance((z, y, x), radii, box) + lumps < 1) & cavity[:, box[1], box[2]]
    hu[box][inside] = organ.hu + organ.enhances * phase_hu + rng.normal(0, 6)
    if np.isfinite(organ.wall_mm):
        deep, back, left = radii
        lumen = (deep - organ.wall_mm, back - organ.wall_mm, left - organ.wall_mm)
        hu[box][inside & (grid.distance((z, y, x), lumen, box) + lumps < 1)] = WATER_HU
