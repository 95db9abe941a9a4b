"""Region: where in an image the features of a study are measured; a site's mask, or a ring around another region."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cohortium.common.errors import CaseError


def bounding_box(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds all true voxels.

    >>> bounding_box(np.array([[0, 1, 1], [0, 0, 1]]) == 1)
    (slice(0, 2, None), slice(1, 3, None))
    """
    box = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        along = np.flatnonzero(inside.any(axis=others))
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return tuple(box)


def ring(region: sitk.Image, inner_mm: float, outer_mm: float) -> sitk.Image:
    """Voxels outside `region` whose distance to it is above `inner_mm` and at most `outer_mm` (Maurer 2003)."""
    distance_mm = sitk.SignedMaurerDistanceMap(region, squaredDistance=False, useImageSpacing=True)
    return sitk.Cast(sitk.And(sitk.And(distance_mm > inner_mm, distance_mm <= outer_mm), region == 0), sitk.sitkUInt8)


def check_extent(region: sitk.Image) -> None:
    """Refuse what is too small for a texture: a region must span two voxels along two axes at least.

    Raises
    ------
    CaseError
        ``region vanishes at the study's spacing`` or ``region is smaller than a plane of voxels``.
    """
    inside = sitk.GetArrayViewFromImage(region) != 0
    if not inside.any():
        raise CaseError("region vanishes at the study's spacing", "no voxel of the image's is left of it")
    extent = [side.stop - side.start for side in bounding_box(inside)]
    if sum(n > 1 for n in extent) < 2:
        raise CaseError("region is smaller than a plane of voxels", f"{' x '.join(map(str, extent))} voxels")
