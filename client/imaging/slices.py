"""Slices: what a network sees of a region: a slice, three or the whole, cropped, padded, from -1 to 1 (numpy only)."""

import numpy as np
from numpy.typing import NDArray

from cohortium.client.imaging.region import bounding_box
from cohortium.common.study_images import DeepFeatures, Image

Z_SCORES = 3.0
"""A z-scored image is cut at three standard deviations before it is brought to -1..1."""


def largest_slice(values: NDArray[np.float64], inside: NDArray[np.bool_], image: Image) -> NDArray[np.float32]:
    """The region's largest axial slice as a network takes it.

    Cropped to the region, the short side padded to a square with the scale's lowest value, as in published work on
    gastric cancer (study-format: ResNet50 on portal-phase CT).

    Parameters
    ----------
    values, inside : (z, y, x)
        Normalised as the study says.
    image : Image

    Returns
    -------
    (n, n) float32 in -1..1
    """
    at = int(inside.sum(axis=(1, 2)).argmax())
    box = bounding_box(inside[at])
    cropped = unit_scale(values, inside, image)[at][box]
    return square(cropped).astype(np.float32)


def neighbouring_slices(values: NDArray[np.float64], inside: NDArray[np.bool_], image: Image) -> NDArray[np.float32]:
    """The region's largest axial slice and the one on each side of it as three channels, (3, n, n) in -1..1.

    All three are cropped to the largest slice's region (2.5D); at the image's end the last slice is repeated.
    """
    at = int(inside.sum(axis=(1, 2)).argmax())
    box = bounding_box(inside[at])
    scaled = unit_scale(values, inside, image)
    around = np.clip([at - 1, at, at + 1], 0, len(values) - 1)
    return np.stack([square(scaled[z][box]) for z in around]).astype(np.float32)


def volume(
    values: NDArray[np.float64], inside: NDArray[np.bool_], image: Image, size: tuple[int, ...]
) -> NDArray[np.float32]:
    """The whole region as a network takes it, `size` (d, h, w) in -1..1.

    Cropped to the region, padded to a cube of voxels with the scale's lowest value, then resized: of its `size` and
    not larger, since it is kept for every case.
    """
    cube = square(unit_scale(values, inside, image)[bounding_box(inside)])
    for axis, n in enumerate(size):
        cube = np.moveaxis(np.tensordot(_triangles(cube.shape[axis], n), cube, axes=(1, axis)), 0, axis)
    return cube.astype(np.float32)


def _triangles(given: int, wanted: int) -> NDArray[np.float64]:
    """Weights (wanted, given) of linear interpolation along an axis, over wider triangles where it gets shorter.

    Those of Pillow and of torch's `interpolate` with antialiasing.
    """
    step = given / wanted
    centre = (np.arange(wanted)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(given) - centre) / max(step, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def picture(
    values: NDArray[np.float64], inside: NDArray[np.bool_], image: Image, settings: DeepFeatures
) -> NDArray[np.float32]:
    """What the network of a feature set sees of a region."""
    if settings.slices == "volume":
        return volume(values, inside, image, settings.size)
    return (neighbouring_slices if settings.slices == "2.5d" else largest_slice)(values, inside, image)


def unit_scale(values: NDArray[np.float64], inside: NDArray[np.bool_], image: Image) -> NDArray[np.float64]:
    """Values from -1 to 1: over the window of a CT, three standard deviations, or the range around the region."""
    if image.window_hu is not None:
        low, high = image.window_hu
    elif image.normalise != "none":
        low, high = -Z_SCORES, Z_SCORES
    else:
        around = values[bounding_box(inside)]
        low, high = around.min(), around.max()
    if low == high:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1) * 2 - 1


def square(picture: NDArray, lowest: float = -1.0) -> NDArray:
    """Pad the short side evenly on both ends; the odd pixel goes to the far end.

    >>> square(np.zeros((1, 3))).tolist()
    [[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]]
    """
    side = max(picture.shape)
    pad = [((side - n) // 2, side - n - (side - n) // 2) for n in picture.shape]
    return np.pad(picture, pad, constant_values=lowest)
