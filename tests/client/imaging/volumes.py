"""Small volumes for the imaging tests: a textured ball in a box, written as a site would have it."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING_MM = (1.0, 1.5, 2.0)


def make(array, spacing=SPACING_MM, origin=(10.0, -20.0, 5.0)):
    """An image of a (z, y, x) array."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def ball(shape=(14, 20, 24), radius_mm=9.0, spacing=SPACING_MM, centre=None):
    """(z, y, x) booleans inside a ball around the middle voxel."""
    middle = np.array(centre if centre is not None else [(n - 1) / 2 for n in shape])
    index = np.moveaxis(np.indices(shape), 0, -1) - middle
    return ((index * spacing[::-1]) ** 2).sum(axis=-1) <= radius_mm**2


def textured(seed, shape=(14, 20, 24), offset=0.0):
    """Smooth texture around 50 with noise, float64."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    return 50 + offset + 30 * np.sin(x / 3) * np.cos(y / 4) + 3 * z + rng.normal(0, 8, shape)


def pair(seed=0, shape=(14, 20, 24)):
    """An image and a region on its grid."""
    return make(textured(seed, shape)), make(ball(shape).astype(np.uint8))


def write_case(folder: Path, seed=0, shape=(14, 20, 24)) -> tuple[Path, Path]:
    """A case's image.nii.gz and mask.nii.gz."""
    folder.mkdir(parents=True, exist_ok=True)
    image, mask = pair(seed, shape)
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), folder / "image.nii.gz")
    sitk.WriteImage(mask, folder / "mask.nii.gz")
    return folder / "image.nii.gz", folder / "mask.nii.gz"
