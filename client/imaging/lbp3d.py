"""LBP3D: local binary patterns on a sphere around each voxel of a region, as pyradiomics 3.0.1 defines its filter.

Source: Banerjee et al., 3D LBP-Based Rotationally Invariant Region Description, ACCV Workshops 2012. pyradiomics' own
needs modules that current SciPy no longer has, and gives nothing without them. Its definition is kept to the letter,
also where it leaves the paper (azimuth and polar angle are exchanged, harmonics are not conjugated), so that values are
those of published studies.
"""

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage, special

Array = NDArray[np.float64]

NAMES = ("lbp-3D-m1", "lbp-3D-m2", "lbp-3D-k")
MARGIN = 32
"""Voxels that the filter looks at around a voxel: a cubic spline's coefficients fade by .268 a voxel."""
AT_ONCE = 50_000  # voxels, so that memory does not grow with the region


def filtered(image: sitk.Image, region: sitk.Image) -> Iterator[tuple[sitk.Image, str]]:
    """Images of the two levels of the pattern and of the neighbours' kurtosis, with their names; 0 outside the region.

    Parameters
    ----------
    image, region : Image
        Of one grid, three-dimensional; the region is where `region` is 1. Distances are in voxels.
    """
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    inside = np.argwhere(sitk.GetArrayViewFromImage(region) == 1)
    spline = ndimage.spline_filter(values, order=3, mode="constant")
    parts = [_of_voxels(values, spline, at) for at in np.array_split(inside, max(1, len(inside) // AT_ONCE))]
    for name, found in zip(NAMES, np.vstack(parts).T, strict=True):
        painted = np.zeros(values.shape)
        painted[tuple(inside.T)] = found
        made = sitk.GetImageFromArray(painted)
        made.CopyInformation(image)
        yield made, name


def _of_voxels(values: Array, spline: Array, at: NDArray[np.int64]) -> Array:
    """The three values of each voxel (n, 3)."""
    sphere = _icosphere()
    places = (at[:, None] + sphere).reshape(-1, 3).T
    around = ndimage.map_coordinates(spline, places, order=3, prefilter=False).reshape(len(at), len(sphere))
    centre = values[tuple(at.T)][:, None]
    # Six of the neighbours are voxels: interpolation gives them but for rounding, which must not decide between equals
    slack = 1e-9 * np.maximum(1, np.abs(centre))
    pattern = (around >= centre - slack).astype(np.float64)
    norms = [np.sqrt(((pattern @ kernel) ** 2).sum(axis=1)) for kernel in _kernels(sphere)]
    return np.column_stack([*norms, _kurtosis(around, slack)])


def _kurtosis(around: Array, slack: Array) -> Array:
    """Excess kurtosis of each row; -3 where all is alike, as SciPy had it when the filter was written."""
    off = around - around.mean(axis=1, keepdims=True)
    square = (off**2).mean(axis=1)
    alike = (np.abs(off) <= slack).all(axis=1)
    return np.where(alike, 0.0, (off**4).mean(axis=1) / np.where(alike, 1.0, square) ** 2) - 3


def _kernels(sphere: Array) -> list[Array]:
    """Sum over m of Y_nm(v) Y_nm(w) for n = 0, 1, (points, points) each: Legendre polynomials (addition theorem)."""
    azimuth, polar = np.arccos(sphere[:, 2]), np.arctan2(sphere[:, 1], sphere[:, 0])
    x, y, z = np.abs(np.sin(polar)) * np.cos(azimuth), np.abs(np.sin(polar)) * np.sin(azimuth), np.cos(polar)
    product = np.outer(x, x) - np.outer(y, y) + np.outer(z, z)  # not conjugated: the angles add
    return [(2 * n + 1) / (4 * np.pi) * special.eval_legendre(n, product) for n in range(2)]


def _icosphere() -> Array:
    """Corners of an icosahedron and the middles of its edges on the unit sphere, (42, 3)."""
    golden = (1 + np.sqrt(5)) / 2
    signs = np.array([(a, b) for a in (-1, 1) for b in (-1, 1)])
    flat = np.column_stack([signs[:, 0], golden * signs[:, 1], np.zeros(4)])
    corners = np.vstack([np.roll(flat, turn, axis=1) for turn in range(3)])
    apart = np.linalg.norm(corners[:, None] - corners, axis=2)
    one, other = np.nonzero(np.triu(np.isclose(apart, 2)))
    points = np.vstack([corners, corners[one] + corners[other]])
    return points / np.linalg.norm(points, axis=1, keepdims=True)
