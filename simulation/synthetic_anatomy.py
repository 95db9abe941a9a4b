"""Anatomy: the upper abdomen of a synthetic patient on contrast-enhanced CT, without disease and without a scanner."""

from typing import NamedTuple

import numpy as np

from cohortium.simulation.synthetic_grid import Field, Grid, Point

AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -95.0, 55.0
WATER_HU = 8.0
STOMACH_WALL_HU = 72.0
STOMACH_WALL_MM = 6.0


class Organ(NamedTuple):
    """An ellipsoid of one density; `enhances` is how much of the contrast phase it shows, `warp` how lumpy it is."""

    centre: Point
    radii: Point
    hu: float
    enhances: float = 1.0
    warp: float = 0.0


# Painted in this order. A patient of average size; millimetres (z, y, x) from the centre of the grid.
SPINE = Organ((0, 50, 0), (1000, 17, 19), 240, enhances=0.0)
AORTA = Organ((0, 24, 8), (1000, 10, 10), 165)
ORGANS = (
    SPINE,
    AORTA,
    Organ((-30, 36, -48), (42, 22, 21), 160),
    Organ((-26, 36, 50), (42, 22, 21), 160),
    Organ((8, -6, -52), (62, 54, 46), 105, warp=0.2),
    Organ((14, 28, 76), (36, 27, 20), 118, warp=0.1),
)
STOMACH = Organ((0, -22, 34), (58, 32, 40), STOMACH_WALL_HU, warp=0.08)


class Torso(NamedTuple):
    """A patient's upper abdomen."""

    hu: Field
    body: np.ndarray  # of bool
    size: float
    """Scale of this patient's organs; 1 is average."""


def torso(grid: Grid, *, phase_hu: float, rng: np.random.Generator) -> Torso:
    """Draw a patient's anatomy; `phase_hu` is added to what takes up contrast."""
    size = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.06))
    one_slice = (slice(0, 1), slice(None), slice(None))
    rings = grid.distance((0, 0, 0), (np.inf, 86 * size, 118 * size), one_slice)  # a cylinder: all slices are alike
    wall = np.select([rings > 1, rings > 0.84, rings > 0.70], [AIR_HU, FAT_HU, MUSCLE_HU], FAT_HU + 10)
    hu = np.broadcast_to(wall.astype(np.float32), grid.shape).copy()
    cavity = rings < 0.70
    for organ in (*ORGANS, STOMACH):
        _paint(hu, grid, organ, size, phase_hu=phase_hu, cavity=cavity, rng=rng)
    lumen = tuple(radius * size - STOMACH_WALL_MM for radius in STOMACH.radii)
    _paint(hu, grid, STOMACH._replace(radii=lumen, hu=WATER_HU, enhances=0.0), 1.0, phase_hu=0, cavity=cavity, rng=rng)
    body = np.broadcast_to(rings < 1, grid.shape)
    hu += body * (7.0 * grid.texture("organ", rng))
    return Torso(hu=hu, body=body, size=size)


def _paint(
    hu: Field,
    grid: Grid,
    organ: Organ,
    size: float,
    *,
    phase_hu: float,
    cavity: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Fill an organ into `hu`, within the abdominal cavity."""
    centre = tuple(position * size + rng.normal(0, 1.5) for position in organ.centre)
    radii = tuple(radius * size for radius in organ.radii)
    box = grid.box(centre, tuple(radius * (1 + organ.warp) for radius in radii))
    distance = grid.distance(centre, radii, box)
    if organ.warp:
        distance = distance + organ.warp * grid.texture("organ", rng)[box]
    inside = (distance < 1) & cavity[:, box[1], box[2]]
    density = organ.hu + organ.enhances * phase_hu + rng.normal(0, 6)
    hu[box][inside] = density
