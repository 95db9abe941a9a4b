"""Grid and textures: where the voxels of a synthetic image lie, and random fields to fill them with.

Arrays are (z, y, x), as NIfTI readers of the SimpleITK family give them; z points to the head, y to the back, x to the
patient's left. Millimetres count from the centre of the grid.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
"""Millimetres (z, y, x)."""

GRAIN_MM = {"noise": 0.0, "fine": 2.2, "coarse": 6.0, "organ": 16.0}
"""Standard deviation of the Gaussian that makes each texture out of white noise."""
FIELDS_PER_GRAIN = 6
BANK_SEED = 20240620


def stretched(point: Point, factor: float) -> Point:
    """A point, or radii, times a factor."""
    z, y, x = point
    return z * factor, y * factor, x * factor


@dataclass(frozen=True)
class Grid:
    """Voxels of an image: shape (z, y, x) and spacing in mm (z, y, x)."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @cached_property
    def axes(self) -> tuple[Field, Field, Field]:
        """Coordinates in mm along each axis, shaped to broadcast."""
        lines = [
            ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(self.shape, self.spacing_mm, strict=True)
        ]
        z, y, x = np.ix_(*lines)
        return z, y, x

    def box(self, centre: Point, reach: Point) -> Box:
        """The part of the grid within `reach` of `centre` along each axis."""
        slices = []
        for middle, extent, n, step in zip(centre, reach, self.shape, self.spacing_mm, strict=True):
            first = int(np.ceil((middle - extent) / step + (n - 1) / 2))
            last = int(np.floor((middle + extent) / step + (n - 1) / 2))
            slices.append(slice(min(max(first, 0), n), min(max(last + 1, 0), n)))
        return slices[0], slices[1], slices[2]

    def distance(self, centre: Point, radii: Point, box: Box) -> Field:
        """Squared distance from `centre` in units of `radii`: below 1 inside the ellipsoid. Shape of `box`."""
        z, y, x = self.axes
        parts = (z[box[0]], y[:, box[1]], x[:, :, box[2]])
        down, back, left = (
            ((axis - np.float32(middle)) / np.float32(radius)) ** 2
            for axis, middle, radius in zip(parts, centre, radii, strict=True)
        )
        return (down + back + left).astype(np.float32, copy=False)

    def texture(self, grain: str, rng: np.random.Generator) -> Field:
        """A random field of unit variance over the whole grid; treat it as read-only."""
        fields = _bank(self)[grain]
        drawn = fields[rng.integers(len(fields))]
        shifts = tuple(rng.integers(0, n) for n in self.shape)
        flips = tuple(slice(None, None, step) for step in rng.choice((-1, 1), 3))
        return np.roll(drawn, shifts, (0, 1, 2))[flips]


@lru_cache(maxsize=2)
def _bank(grid: Grid) -> dict[str, list[Field]]:
    """Filtered noise, periodic at the borders; rolling it is far cheaper than filtering anew for each patient."""
    rng = np.random.default_rng(BANK_SEED)
    bank = {}
    for grain, width_mm in GRAIN_MM.items():
        sigmas = [width_mm / step for step in grid.spacing_mm]
        fields = [
            ndimage.gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), sigmas, mode="wrap")
            for _ in range(FIELDS_PER_GRAIN)
        ]
        bank[grain] = [(field - field.mean()) / field.std() for field in fields]
    return bank
