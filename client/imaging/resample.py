"""Resample: image and region on the study's grid, only where features need them.

The grid is the one of the Image Biomarker Standardisation Initiative (IBSI reference manual, section 2.4): its centre
is the image's centre, so it does not depend on which corner a scanner counts from. The region is interpolated linearly
and kept where at least half of a voxel belongs to it.

Only a window around the region is computed. It is neutral: every voxel in it has the value it would have if the whole
image were resampled. Where the margin would leave the image, the window takes the whole axis, so that filters meet the
image's own border and not the window's.
"""

import math
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cohortium.client.imaging.region import bounding_box
from cohortium.common.errors import CaseError

INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline}
# Input voxels that an output voxel may depend on; the B-spline prefilter decays by 0.268 a voxel, 0.268**25 < 1e-14.
SUPPORT = {"linear": 2, "nearest": 2, "cubic": 25}
LARGEST = 2**29
"""Voxels of a window: 4 GB."""


class Crop(NamedTuple):
    """A window of an image on the study's grid: values (float64) and region (uint8, 0 or 1) of equal geometry."""

    image: sitk.Image
    region: sitk.Image


class _Axes(NamedTuple):
    """The study's grid over an image, axis by axis (x, y, z), in millimetres from the centre they share."""

    size: NDArray[np.int64]  # voxels of the image
    spacing: NDArray[np.float64]
    new_size: NDArray[np.int64]
    new_spacing: NDArray[np.float64]

    def old_index(self, new_index: NDArray) -> NDArray[np.float64]:
        """Continuous index in the image of an index of the study's grid."""
        return (new_index - (self.new_size - 1) / 2) * self.new_spacing / self.spacing + (self.size - 1) / 2

    def new_index(self, old_index: NDArray) -> NDArray[np.float64]:
        """Continuous index in the study's grid of an index of the image."""
        return (old_index - (self.size - 1) / 2) * self.spacing / self.new_spacing + (self.new_size - 1) / 2


def resample(
    image: sitk.Image,
    region: sitk.Image,
    *,
    spacing_mm: tuple[float, float, float] | None,
    interpolation: str = "linear",
    margin: int = 0,
) -> Crop:
    """Bring the surroundings of a region to the study's grid.

    Parameters
    ----------
    image, region : sitk.Image
        On one grid; the region is 0 or 1 and not empty.
    spacing_mm : (x, y, z) or None
        None keeps the image's own grid.
    interpolation : str
        ``linear``, ``cubic`` (B-spline of order 3) or ``nearest``, of the image's values.
    margin : int
        Voxels of the study's grid around the region's bounding box that filters will look at.

    Raises
    ------
    CaseError
        ``region has too many voxels at the study's spacing``.
    """
    axes = _axes(image, spacing_mm)
    # bounding_box counts z, y, x; a region can grow by less than one voxel of the image when interpolated
    box = bounding_box(sitk.GetArrayViewFromImage(region) != 0)[::-1]
    first = axes.new_index(np.array([side.start for side in box]) - 1.0)
    last = axes.new_index(np.array([side.stop for side in box], dtype=float))
    lower, upper = window(np.floor(first), np.ceil(last) + 1, margin, axes.new_size)
    if (voxels := math.prod((upper - lower).tolist())) > LARGEST:
        raise CaseError("region has too many voxels at the study's spacing", f"{voxels} with the margins of filters")
    if np.allclose(axes.spacing, axes.new_spacing, rtol=1e-6, atol=0):
        return Crop(sitk.Cast(cut(image, lower, upper), sitk.sitkFloat64), cut(region, lower, upper))
    values = _interpolate(image, axes, lower, upper, interpolation)
    share = _interpolate(region, axes, lower, upper, "linear")
    # Exactly half a voxel counts as inside, however the interpolation rounded it.
    return Crop(values, sitk.Cast(share >= 0.5 - 1e-9, sitk.sitkUInt8))


def regrid(image: sitk.Image, spacing_mm: tuple[float, float, float] | None) -> sitk.Image:
    """The whole image on the study's grid, linearly interpolated; itself where the spacing is its own."""
    axes = _axes(image, spacing_mm)
    if np.allclose(axes.spacing, axes.new_spacing, rtol=1e-6, atol=0):
        return image
    return _interpolate(image, axes, np.zeros(3, dtype=np.int64), axes.new_size, "linear")


def window(lower: NDArray, upper: NDArray, margin: int, size: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Half-open box [lower, upper) with its margin; an axis along which the margin leaves the image is taken whole."""
    wide_lower, wide_upper = lower - margin, upper + margin
    whole = (wide_lower < 0) | (wide_upper > size) if margin else np.zeros(len(size), dtype=bool)
    wide_lower = np.where(whole, 0, np.maximum(wide_lower, 0))
    wide_upper = np.where(whole, size, np.minimum(wide_upper, size))
    return wide_lower.astype(np.int64), wide_upper.astype(np.int64)


def cut(image: sitk.Image, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> sitk.Image:
    """The box [lower, upper) of an image (x, y, z), at its place in space."""
    return sitk.RegionOfInterest(image, (upper - lower).tolist(), lower.tolist())


def _axes(image: sitk.Image, spacing_mm: tuple[float, float, float] | None) -> _Axes:
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    new_spacing = spacing if spacing_mm is None else np.array(spacing_mm, dtype=float)
    # Rounding before ceil: 100 voxels of 0.98 mm are 49 of 2 mm, not 50 because of the 17th digit.
    new_size = np.ceil(np.round(size * spacing / new_spacing, 6)).astype(np.int64)
    return _Axes(size, spacing, np.maximum(new_size, 1), new_spacing)


def _interpolate(
    image: sitk.Image, axes: _Axes, lower: NDArray[np.int64], upper: NDArray[np.int64], interpolation: str
) -> sitk.Image:
    """Values at voxels [lower, upper) of the study's grid, float64."""
    support = SUPPORT[interpolation]
    needed_lower = np.maximum(np.floor(axes.old_index(lower)) - support, 0).astype(np.int64)
    needed_upper = np.minimum(np.ceil(axes.old_index(upper - 1)) + support + 1, axes.size).astype(np.int64)
    origin = image.TransformContinuousIndexToPhysicalPoint(axes.old_index(lower).tolist())
    return sitk.Resample(
        sitk.Cast(cut(image, needed_lower, needed_upper), sitk.sitkFloat64),
        (upper - lower).tolist(),
        sitk.Transform(),
        INTERPOLATORS[interpolation],
        origin,
        axes.new_spacing.tolist(),
        image.GetDirection(),
        0.0,  # never met: a centred grid of ceil(extent / spacing) voxels has all its centres inside the image
        sitk.sitkFloat64,
    )
