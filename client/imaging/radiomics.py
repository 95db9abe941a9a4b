"""Radiomics: pyradiomics' features of one region in one image (van Griethuysen et al., Cancer Res 77:e104, 2017).

pyradiomics 3.0.1 computes every feature; around it this file owns three things: each filter sees a crop that is just
large enough not to change its result in the region, grey levels are binned once an image instead of once a class, and
shape is computed without the search over all pairs of surface points (see shape.py). Values are pyradiomics' own.
"""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from radiomics import (
    cMatrices,  # pyright: ignore[reportAttributeAccessIssue]  (compiled)
    getFeatureClasses,
    imageoperations,
)

from cohortium.client.imaging.discretise import Discretisation
from cohortium.client.imaging.ibsi import features as ibsi
from cohortium.client.imaging.ibsi.intensity import PEAK_RADIUS_MM
from cohortium.client.imaging.region import bounding_box
from cohortium.client.imaging.resample import Crop, cut, window
from cohortium.client.imaging.shape import FastShape
from cohortium.common.study_images import RADIOMICS_CLASSES, Image, RadiomicsFeatures

# pyradiomics writes about symmetric matrices and features it could not compute for every region on standard error; such
# a feature is NaN here, and the lines would carry values of patients into a site's logs.
logging.getLogger("radiomics").setLevel(logging.CRITICAL)

WAVELETS = ("LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH", "LLL")
WAVELET_MARGIN = 6  # length of the coif1 filter
GRADIENT_MARGIN = 2
LBP_MARGIN = 2  # a circle of radius 1, interpolated


class _BinnedOnce:
    """A feature class that is given its grey levels instead of binning the image anew."""

    settings: dict[str, Any]
    coefficients: dict[str, Any]
    imageArray: NDArray[np.int64]  # noqa: N815 -- pyradiomics' names
    maskArray: NDArray[np.bool_]  # noqa: N815

    def _applyBinning(self, _: NDArray) -> NDArray[np.int64]:  # noqa: N802 -- pyradiomics' name
        self.coefficients["grayLevels"] = self.settings["present"]
        self.coefficients["Ng"] = int(self.settings["present"][-1])
        return self.settings["levels"].copy()


class _ShortMoments(_BinnedOnce):
    """First-order features whose powers are products: the same moments, without a call of pow a voxel."""

    @staticmethod
    def _moment(values: NDArray, moment: int = 1) -> NDArray:
        centred = values - values.mean(axis=1, keepdims=True)
        return np.prod([centred] * moment, axis=0).mean(axis=1)


class _ShortZones(_BinnedOnce):
    """Size zones up to the largest there is; pyradiomics' matrix has a column for every voxel of the region."""

    def _calculateMatrix(self, _: object = None) -> NDArray:  # noqa: N802 -- pyradiomics' name
        levels, present = self.imageArray, self.coefficients["grayLevels"]
        voxels = int(self.maskArray.sum())
        flat = bool(self.settings.get("force2D", False))
        zones = cMatrices.calculate_glszm(levels, self.maskArray, self.coefficients["Ng"], voxels, flat, 0)
        largest = np.flatnonzero(zones.any(axis=(0, 1)))[-1] + 1
        return zones[:, present - 1, :largest]


def _quick(base: type, mixin: type) -> type:
    """A feature class of pyradiomics that is given grey levels and does not look up its own features every time."""
    names = base.getFeatureNames()
    members = {"__module__": base.__module__, "getFeatureNames": staticmethod(lambda: names)}
    return type(base.__name__, (mixin, base), members)


MIXINS = {"firstorder": _ShortMoments, "glszm": _ShortZones}
CLASSES = {
    kind: _quick(base, MIXINS.get(kind, _BinnedOnce))
    for kind, base in (getFeatureClasses() | {"shape": FastShape}).items()
    if kind in RADIOMICS_CLASSES
}


def feature_names(settings: RadiomicsFeatures) -> tuple[str, ...]:
    """Names of all features, the same for every case: ``original_shape_Sphericity``, ``wavelet-LLH_glcm_Contrast``."""
    names = [f"original_shape_{name}" for name in _names_of("shape") if "shape" in settings.classes]
    for image_type in settings.image_types:
        for filtered in _filtered_names(image_type, settings):
            for kind in _intensity_classes(settings):
                names += [f"{filtered}_{kind}_{name}" for name in _names_of(kind)]
            names += [
                _ibsi_name(tag, filtered) for tag in ibsi.names(_families(settings, filtered), _dimensions(settings))
            ]
    return tuple(names)


def margin(settings: RadiomicsFeatures, spacing_mm: tuple[float, ...]) -> int:
    """Voxels around the region's bounding box that the filters look at."""
    return max(_reach(image_type, sigma, settings, spacing_mm) for image_type, sigma in _passes(settings))


def radiomics(crop: Crop, settings: RadiomicsFeatures, image: Image, *, name: str) -> dict[str, float]:
    """All features of one region.

    Parameters
    ----------
    crop : Crop
        Normalised image and region on the study's grid, with at least `margin` voxels around the region or whole axes.
    settings : RadiomicsFeatures
    image : Image
        In mode ``ibsi`` its `window_hu` bounds the region's voxels and starts the bins.
    name : str
        What the study calls the image.

    Returns
    -------
    dict
        A value for each of `feature_names`; NaN where it cannot be computed in this region.
    """
    values = dict.fromkeys(feature_names(settings), np.nan)
    discretisation = Discretisation.of(settings, image, name)
    # What divides by zero is NaN below; a strict interpreter must not make other numbers of it.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = discretisation.intensity_mask(crop)
        if "shape" in settings.classes:
            values |= _compute("shape", "original", *_boxed(crop, crop.region), {})
        for image_type, sigma in _passes(settings):
            box = window(*_box(crop.region), _reach(image_type, sigma, settings, crop.image.GetSpacing()), _size(crop))
            near, near_kept = Crop(cut(crop.image, *box), cut(crop.region, *box)), cut(kept, *box)
            for filtered, of_filter in _filter(image_type, sigma, near, settings):
                seen = Crop(filtered, near.region)
                values |= _features_of(seen, near_kept, of_filter, settings, discretisation, name)
    return values


def _features_of(
    crop: Crop, kept: sitk.Image, filtered: str, settings: RadiomicsFeatures, discretisation: Discretisation, name: str
) -> dict[str, float]:
    """Features of all intensity and texture classes of one filtered image; `kept` is the intensity mask."""
    inside = sitk.GetArrayViewFromImage(kept) == 1
    values = sitk.GetArrayViewFromImage(crop.image)
    levels = discretisation.grey_levels(values, inside, filtered=filtered != "original")
    found: dict[str, float] = {}
    if _intensity_classes(settings):
        box = bounding_box(inside)
        present = np.flatnonzero(np.bincount(levels[inside]))
        given = {"levels": levels[box], "present": present, "force2D": settings.dimension == "2D"}
        boxed = _boxed(crop, kept)
        for kind in _intensity_classes(settings):
            found |= _compute(kind, filtered, *boxed, given)
    if families := _families(settings, filtered):
        original = filtered == "original"
        tags = ibsi.measure(
            values.astype(float),
            sitk.GetArrayViewFromImage(crop.region) == 1,
            inside,
            levels,
            np.array(crop.image.GetSpacing()[::-1]),
            families=families,
            dimensions=_dimensions(settings),
            volume_bins=ibsi.VolumeBins(
                discretisation.bounds if original else None,
                (settings.ivh_bin_width or {}).get(name) if original else None,
                # A filter's values have no unit: 1,000 bins, as the manual has it for arbitrary units
                settings.ivh_bin_count if original else settings.ivh_bin_count or 1000,
            ),
        )
        found |= {_ibsi_name(tag, filtered): value for tag, value in tags.items() if np.isfinite(value)}
    return found


def _compute(kind: str, filtered: str, image: sitk.Image, region: sitk.Image, settings: dict) -> dict[str, float]:
    """Features of one class; those it cannot compute in this region are left out."""
    try:
        found = CLASSES[kind](image, region, label=1, **settings).execute()
    except (ArithmeticError, ValueError, IndexError):
        return {}
    values = {f"{filtered}_{kind}_{name}": float(np.real(value)) for name, value in found.items()}
    return {name: value for name, value in values.items() if np.isfinite(value)}


# --- filters --------------------------------------------------------------------------------------------------


def _passes(settings: RadiomicsFeatures) -> list[tuple[str, float]]:
    """Filters with a crop of their own: (image type, sigma in mm or 0)."""
    passes = []
    for image_type in settings.image_types:
        sigmas = settings.log_sigma_mm if image_type == "LoG" else (0.0,)
        passes += [(image_type, sigma) for sigma in sigmas]
    return passes


def _margin(image_type: str, sigma: float, spacing_mm: tuple[float, ...]) -> int:
    """Voxels that a filter looks at around a voxel.

    Square, square root, logarithm and exponential scale by the largest value of what they are given, so they are given
    the region's bounding box: how much of the body a scan shows makes no difference.
    """
    if image_type == "LoG":
        # The recursive Gaussian has no end: at 5 sigma it is off by 1e-3, at 10 sigma by nothing that a double holds
        return int(np.ceil(10 * sigma / min(spacing_mm)))
    return {"Wavelet": WAVELET_MARGIN, "Gradient": GRADIENT_MARGIN, "LBP2D": LBP_MARGIN}.get(image_type, 0)


def _reach(image_type: str, sigma: float, settings: RadiomicsFeatures, spacing_mm: tuple[float, ...]) -> int:
    """Voxels that a filter, or a feature of the image itself, looks at around a voxel."""
    sphere = int(np.ceil(PEAK_RADIUS_MM / min(spacing_mm))) if "loc" in settings.classes else 0
    return sphere if image_type == "Original" else _margin(image_type, sigma, spacing_mm)


def _filter(image_type: str, sigma: float, crop: Crop, settings: RadiomicsFeatures) -> Iterator[tuple[sitk.Image, str]]:
    """Filtered images with pyradiomics' names for them."""
    filters = getattr(imageoperations, f"get{image_type}Image")
    for image, name, _ in filters(crop.image, crop.region, sigma=[sigma], force2D=settings.dimension == "2D"):
        yield image, name


def _filtered_names(image_type: str, settings: RadiomicsFeatures) -> list[str]:
    if image_type == "Wavelet":
        bands = dict.fromkeys(name[1:] for name in WAVELETS) if settings.dimension == "2D" else WAVELETS
        return [f"wavelet-{name}" for name in bands]
    if image_type == "LoG":
        return [f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D" for sigma in settings.log_sigma_mm]
    return ["lbp-2D" if image_type == "LBP2D" else image_type.lower()]


# --- what a class is given ------------------------------------------------------------------------------------


def _intensity_classes(settings: RadiomicsFeatures) -> tuple[str, ...]:
    return tuple(kind for kind in settings.classes if kind in RADIOMICS_CLASSES and kind != "shape")


def _families(settings: RadiomicsFeatures, filtered: str) -> tuple[str, ...]:
    """IBSI families that are measured in an image."""
    here = ibsi.FAMILIES if filtered == "original" else tuple(f for f in ibsi.FAMILIES if f not in ibsi.ONCE)
    return tuple(kind for kind in settings.classes if kind in here)


def _dimensions(settings: RadiomicsFeatures) -> tuple[str, ...]:
    return (settings.dimension,) if settings.dimension else ("2D", "3D")


def _ibsi_name(tag: str, filtered: str) -> str:
    """A feature of the image itself has the manual's own tag."""
    return tag if filtered == "original" else f"{filtered}_{tag}"


def _names_of(kind: str) -> list[str]:
    """A class's features in alphabetical order, without those that pyradiomics has deprecated."""
    return sorted(name for name, deprecated in CLASSES[kind].getFeatureNames().items() if not deprecated)


def _size(crop: Crop) -> NDArray[np.int64]:
    return np.array(crop.image.GetSize())


def _box(region: sitk.Image) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bounding box [lower, upper) in voxels, x, y, z."""
    box = bounding_box(sitk.GetArrayViewFromImage(region) != 0)[::-1]
    return np.array([side.start for side in box]), np.array([side.stop for side in box])


def _boxed(crop: Crop, region: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Image and region cut to the region's bounding box."""
    box = _box(region)
    return cut(crop.image, *box), cut(region, *box)
