"""Classes: pyradiomics' feature classes, given their texture matrices instead of an image to make them from.

The formulas are pyradiomics' own methods; only what feeds them is another: matrices.py for textures, shape.py for the
surface. First-order features are written out, since its methods sort the voxels anew for every percentile.
"""

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from radiomics import getFeatureClasses

from cohortium.client.imaging.matrices import Matrices
from cohortium.client.imaging.shape import FastShape

_VOXEL = sitk.Image(1, 1, 1, sitk.sitkUInt8)
"""Stands for image and region where the matrices say everything."""


class _OfMatrices:
    """A texture class with ``settings["matrices"]``."""

    settings: dict[str, Any]
    coefficients: dict[str, Any]

    @property
    def _given(self) -> Matrices:
        return self.settings["matrices"]

    def _applyBinning(self, image: NDArray) -> NDArray:  # noqa: N802 -- pyradiomics' name
        self.coefficients["grayLevels"] = self._given.levels
        self.coefficients["Ng"] = int(self._given.levels[-1])
        return image


class _Glcm(_OfMatrices):
    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802
        pairs = self._given.glcm
        pairs = (pairs + pairs.transpose(1, 0, 2))[None].astype(float)
        pairs = pairs[..., pairs.any(axis=(0, 1, 2))] if pairs.shape[3] > 1 else pairs
        total = pairs.sum(axis=(1, 2))
        total[total == 0] = np.nan
        return pairs / total[:, None, None, :]


class _Glrlm(_OfMatrices):
    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802
        runs = self._given.glrlm[None].astype(float)
        runs = runs[..., runs.any(axis=(0, 1, 2))] if runs.shape[3] > 1 else runs
        total = runs.sum(axis=(1, 2))
        total[total == 0] = np.nan
        self.coefficients["Nr"] = total
        return runs


class _Glszm(_OfMatrices):
    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802
        return self._given.glszm[None].astype(float)


class _Gldm(_OfMatrices):
    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802
        counts = self._given.gldm[None].astype(float)
        occurs = counts.any(axis=(0, 1))
        counts = counts[..., occurs]
        self.coefficients |= {
            "Nz": counts.sum(axis=(1, 2)),
            "pd": counts.sum(axis=1),
            "pg": counts.sum(axis=2),
            "ivector": self._given.levels.astype(float),
            "jvector": np.flatnonzero(occurs) + 1.0,
        }
        return counts


class _Ngtdm(_OfMatrices):
    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802
        return np.stack([self._given.voxels, self._given.ngtdm, self._given.levels], axis=1)[None]


def _quick(base: type, mixin: type | None) -> type:
    """A feature class of pyradiomics that does not look up its own features every time."""
    names = base.getFeatureNames()
    members = {"__module__": base.__module__, "getFeatureNames": staticmethod(lambda: names)}
    return type(base.__name__, (mixin, base) if mixin else (base,), members)


_MIXINS = {"glcm": _Glcm, "glrlm": _Glrlm, "glszm": _Glszm, "gldm": _Gldm, "ngtdm": _Ngtdm}
_CLASSES = {
    kind: _quick(base, _MIXINS.get(kind))
    for kind, base in (getFeatureClasses() | {"shape": FastShape}).items()
    if kind in (*_MIXINS, "firstorder", "shape")
}
TEXTURES = tuple(_MIXINS)


def names_of(kind: str) -> list[str]:
    """A class's features in alphabetical order, without those that pyradiomics has deprecated."""
    return sorted(name for name, deprecated in _CLASSES[kind].getFeatureNames().items() if not deprecated)


def texture(kind: str, matrices: Matrices) -> dict[str, float]:
    """Features of one texture class."""
    found = _CLASSES[kind](_VOXEL, _VOXEL, label=1, matrices=matrices).execute()
    return {name: float(np.real(value)) for name, value in found.items()}


def shape(region: sitk.Image) -> dict[str, float]:
    """Shape features of a region (1 inside), cut to its bounding box or not."""
    found = _CLASSES["shape"](region, region, label=1).execute()
    return {name: float(value) for name, value in found.items()}


def first_order(values: NDArray[np.float64], level_voxels: NDArray[np.int64], voxel_mm3: float) -> dict[str, float]:
    """First-order features of a region.

    Parameters
    ----------
    values : (n,)
        Intensities.
    level_voxels : (levels,)
        Voxels of each grey level that is present.
    voxel_mm3 : float
    """
    # Sorted once: every percentile, minimum and maximum is then at hand, and sums lose less
    values = np.sort(values)
    p10, p25, median, p75, p90 = (_percentile(values, q) for q in (10, 25, 50, 75, 90))
    mean = values.mean()
    centred = values - mean
    squares = centred * centred
    second, third, fourth = squares.mean(), np.mean(squares * centred), np.mean(squares * squares)
    energy = float(values @ values)
    robust = values[np.searchsorted(values, p10) : np.searchsorted(values, p90, side="right")]
    p = level_voxels / level_voxels.sum()
    return {
        "10Percentile": p10,
        "90Percentile": p90,
        "Energy": energy,
        "Entropy": float(-np.sum(p * np.log2(p + np.spacing(1)))),
        "InterquartileRange": p75 - p25,
        "Kurtosis": float(fourth / second**2) if second else 0.0,
        "Maximum": float(values[-1]),
        "Mean": float(mean),
        "MeanAbsoluteDeviation": float(np.abs(centred).mean()),
        "Median": median,
        "Minimum": float(values[0]),
        "Range": float(values[-1] - values[0]),
        "RobustMeanAbsoluteDeviation": float(np.abs(robust - robust.mean()).mean()),
        "RootMeanSquared": float(np.sqrt(energy / len(values))),
        "Skewness": float(third / second**1.5) if second else 0.0,
        "TotalEnergy": energy * voxel_mm3,
        "Uniformity": float(p @ p),
        "Variance": float(second),
    }


def _percentile(ordered: NDArray[np.float64], q: float) -> float:
    """Percentile of sorted values, linear between neighbours, as numpy's."""
    at = q / 100 * (len(ordered) - 1)
    below = int(at)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    part = at - below
    # numpy's own order of operations: from the nearer end
    return float(high - (high - low) * (1 - part)) if part >= 0.5 else float(low + (high - low) * part)
