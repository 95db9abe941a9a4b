"""Perturb: contours that another reader might have drawn, by which a study sees which features hinge on the contour.

Volume adaptation and contour randomisation, V and C of Zwanenburg et al. (Sci Rep 9:614, 2019): the contour grows or
shrinks by a share of its volume; the image around it is divided into supervoxels (Achanta et al., IEEE TPAMI 34:2274,
2012), and each of them belongs to the new contour whole or not at all, with the share of it that lay inside as its
chance. The image stays as it is, so that it is filtered once for all contours; what their paper also perturbs, position
(rotation, translation) and noise, is left out.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from cohortium.client.imaging.region import bounding_box
from cohortium.client.imaging.resample import Crop, cut

VOLUME = 0.15
"""Share of its volume by which a contour grows or shrinks at most."""
CERTAIN, NEVER = 0.9, 0.2
"""Shares of a supervoxel inside the contour: from the one on it is in the new one, below the other it is not."""
SUPERVOXEL_MM3, SUPERVOXEL_SHARE, SUPERVOXEL_VOXELS = 500.0, 1 / 50, 20
"""Size of supervoxels: cubic millimetres, or a share of a small region's volume; so many voxels at least."""
COMPACTNESS = 0.05
"""Weight of the place of a voxel beside its value between 0 and 1."""
REACH_MM = 10.0
"""No voxel farther than this from a contour becomes part of it."""

Mask = NDArray[np.bool_]


def perturbed(crop: Crop, seeds: list[int]) -> list[sitk.Image]:
    """Other contours of a crop's region, one for each seed.

    Parameters
    ----------
    crop : Crop
        With `REACH_MM` around the region, or less at the border of the image.
    seeds : list of int
        The same seed and image give the same contour.
    """
    reach = np.ceil(REACH_MM / np.array(crop.image.GetSpacing()))[::-1].astype(int)
    box = tuple(
        slice(max(side.start - r, 0), side.stop + r)
        for side, r in zip(bounding_box(sitk.GetArrayViewFromImage(crop.region) != 0), reach, strict=True)
    )
    lower = np.array([side.start for side in box])[::-1]
    upper = np.minimum([side.stop for side in box], sitk.GetArrayViewFromImage(crop.region).shape)[::-1]
    region = cut(crop.region, lower, upper)
    inside = sitk.GetArrayFromImage(region) == 1
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(region, squaredDistance=False, useImageSpacing=True))
    cells = supervoxels(sitk.GetArrayFromImage(cut(crop.image, lower, upper)), inside, crop.image.GetSpacing())
    found = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        grown = adapted(inside, distance, random.uniform(-VOLUME, VOLUME), random)
        whole = np.zeros(sitk.GetArrayViewFromImage(crop.region).shape, dtype=np.uint8)
        whole[box] = randomised(grown, cells, random) & (distance <= REACH_MM)
        contour = sitk.GetImageFromArray(whole)
        contour.CopyInformation(crop.region)
        found.append(contour)
    return found


def adapted(inside: Mask, distance: NDArray[np.float64], share: float, random: np.random.Generator) -> Mask:
    """A contour whose volume is 1 + share of the old one, to the voxel: nearest voxels first, of equal ones any.

    Parameters
    ----------
    inside, distance : (z, y, x)
        The contour, and how far from it a voxel lies, negative inside.
    """
    voxels = min(max(round(int(inside.sum()) * (1 + share)), 1), inside.size)  # no farther than the image
    edge = np.partition(distance, voxels - 1, axis=None)[voxels - 1]
    found = distance < edge
    equal = random.permutation(np.flatnonzero(distance == edge))
    found.ravel()[equal[: voxels - int(found.sum())]] = True
    return found


def supervoxels(values: NDArray[np.float64], inside: Mask, spacing_mm: tuple[float, ...]) -> NDArray[np.int64]:
    """Number of the supervoxel of each voxel, (z, y, x); values are scaled by the region's, a tenth more each way."""
    low, high = values[inside].min(), values[inside].max()
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    scaled = (np.clip(values, low, high) - low) / ((high - low) or 1.0)
    spacing = np.array(spacing_mm)
    smooth = ndimage.gaussian_filter(scaled, spacing.min() / spacing[::-1])
    voxels = min(SUPERVOXEL_MM3 / float(np.prod(spacing)), SUPERVOXEL_SHARE * int(inside.sum()))
    edge = (max(voxels, SUPERVOXEL_VOXELS) * np.prod(spacing)) ** (1 / 3)
    cells = sitk.SLIC(
        sitk.GetImageFromArray(smooth),
        superGridSize=np.clip(np.round(edge / spacing), 1, values.shape[::-1]).astype(int).tolist(),
        spatialProximityWeight=COMPACTNESS,
        maximumNumberOfIterations=10,
    )
    return sitk.GetArrayFromImage(cells).astype(np.int64)


def randomised(inside: Mask, cells: NDArray[np.int64], random: np.random.Generator) -> Mask:
    """A contour of whole supervoxels, its small gaps closed."""
    voxels = np.bincount(cells.ravel())
    chance = np.bincount(cells[inside], minlength=len(voxels)) / np.maximum(voxels, 1)
    chance[np.argmax(chance)] = 1.0  # so that it is never empty
    chance[chance >= CERTAIN] = 1.0
    chance[chance < NEVER] = 0.0
    chosen: Mask = random.random(len(chance)) < chance
    found = chosen[cells]
    # Closing takes what touches the border of the array, which this gives back
    return found | np.asarray(ndimage.binary_closing(found), dtype=bool)
