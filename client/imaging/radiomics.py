"""Radiomics: pyradiomics' features of one region in one image (van Griethuysen et al., Cancer Res 77:e104, 2017).

pyradiomics 3.0.1 computes every feature; around it this file owns three things: each filter sees a crop that is just
large enough not to change its result in the region, grey levels are binned once an image instead of once a class, and
shape is computed without the search over all pairs of surface points (see shape.py). Values are pyradiomics' own.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from radiomics import imageoperations

from cohortium.client.imaging import classes, lbp3d
from cohortium.client.imaging.classes import names_of
from cohortium.client.imaging.discretise import Discretisation
from cohortium.client.imaging.ibsi import features as ibsi
from cohortium.client.imaging.ibsi.intensity import PEAK_RADIUS_MM
from cohortium.client.imaging.matrices import matrices
from cohortium.client.imaging.region import bounding_box, check_extent
from cohortium.client.imaging.resample import Crop, cut, window
from cohortium.common.errors import CaseError
from cohortium.common.study_images import RADIOMICS_CLASSES, Image, RadiomicsFeatures

# pyradiomics writes about symmetric matrices and features it could not compute for every region on standard error; such
# a feature is NaN here, and the lines would carry values of patients into a site's logs.
logging.getLogger("radiomics").setLevel(logging.CRITICAL)

WAVELETS = ("LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH", "LLL")
WAVELET_MARGIN = 6  # length of the coif1 filter
GRADIENT_MARGIN = 2
LBP_MARGIN = 2  # a circle of radius 1, interpolated

Pass = tuple[str, float]
"""A filter with a crop of its own: (image type or `SHAPE`, sigma in mm or 0)."""
SHAPE = "Shape"


def feature_names(settings: RadiomicsFeatures) -> tuple[str, ...]:
    """Names of all features, the same for every case: ``original_shape_Sphericity``, ``wavelet-LLH_glcm_Contrast``."""
    names = [f"original_shape_{name}" for name in names_of("shape") if "shape" in settings.classes]
    for image_type in settings.image_types:
        for filtered in _filtered_names(image_type, settings):
            for kind in _intensity_classes(settings):
                names += [f"{filtered}_{kind}_{name}" for name in names_of(kind)]
            names += [
                _ibsi_name(tag, filtered) for tag in ibsi.names(_families(settings, filtered), _dimensions(settings))
            ]
    return tuple(names)


def margin(settings: RadiomicsFeatures, spacing_mm: tuple[float, ...]) -> int:
    """Voxels around the region's bounding box that the filters look at."""
    return max(_reach(image_type, sigma, settings, spacing_mm) for image_type, sigma in passes(settings))


def passes(settings: RadiomicsFeatures) -> list[Pass]:
    """What can be measured apart: the shape, and every filter, LoG once a width."""
    found = [(SHAPE, 0.0)] if "shape" in settings.classes else []
    for image_type in settings.image_types:
        sigmas = settings.log_sigma_mm if image_type == "LoG" else (0.0,)
        found += [(image_type, sigma) for sigma in sigmas]
    return found


class _Contour(NamedTuple):
    """A region of an image: its voxels, those of them that intensity features look at, and its bounding box."""

    region: sitk.Image
    kept: sitk.Image
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]


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

    Raises
    ------
    CaseError
        The region cannot be measured.
    """
    found = radiomics_of_contours(crop, [], settings, image, name=name)[0]
    return dict.fromkeys(feature_names(settings), np.nan) | found


def radiomics_of_contours(
    crop: Crop,
    others: Sequence[sitk.Image],
    settings: RadiomicsFeatures,
    image: Image,
    *,
    name: str,
    only: Sequence[Pass] | None = None,
) -> list[dict[str, float]]:
    """Features of a crop's region, and of other contours in the same image, that can be computed; see `radiomics`.

    A filter runs once for all `others`, and once for the region, whose values therefore hang on no other contour. A
    contour that cannot be measured has no values. With `only` some of the `passes` are measured, to the same values.
    """
    values: list[dict[str, float]] = [{} for _ in (crop.region, *others)]
    discretisation = Discretisation.of(settings, image, name)
    # What divides by zero is NaN below; a strict interpreter must not make other numbers of it.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contours = {0: _contour(crop, discretisation)}
        for number, other in enumerate(others, start=1):
            with suppress(CaseError):
                contours[number] = _contour(crop._replace(region=other), discretisation)
        rest = {number: at for number, at in contours.items() if number}
        for image_type, sigma in passes(settings) if only is None else only:
            if image_type == SHAPE:
                for number, at in contours.items():
                    values[number] |= _named("shape", "original", classes.shape, cut(at.region, at.lower, at.upper))
                continue
            # What scales by the box, or looks at the contour's voxels only, is another image for each contour
            alone = image_type == "LBP3D" or _margin(image_type, sigma, crop.image.GetSpacing()) == 0
            groups = [{0: contours[0]}, *([{n: at} for n, at in rest.items()] if alone else [rest] if rest else [])]
            for group in groups:
                for number, found in _of_group(group, crop.image, image_type, sigma, settings, discretisation, name):
                    values[number] |= found
    return values


def _contour(crop: Crop, discretisation: Discretisation) -> _Contour:
    check_extent(crop.region)
    return _Contour(crop.region, discretisation.intensity_mask(crop), *_box(crop.region))


def _of_group(
    group: dict[int, _Contour],
    image: sitk.Image,
    image_type: str,
    sigma: float,
    settings: RadiomicsFeatures,
    discretisation: Discretisation,
    name: str,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Features of contours, by their number, in an image that is filtered once around all of them."""
    lower = np.min([at.lower for at in group.values()], axis=0)
    upper = np.max([at.upper for at in group.values()], axis=0)
    box = window(lower, upper, _reach(image_type, sigma, settings, image.GetSpacing()), np.array(image.GetSize()))
    near = Crop(cut(image, *box), cut(next(iter(group.values())).region, *box))
    for filtered, of_filter in _filter(image_type, sigma, near, settings):
        for number, at in group.items():
            # A sphere around a peak looks beyond the region; of all other images its box is enough
            seen = box if image_type == "Original" else (at.lower, at.upper)
            of_box = Crop(cut(filtered, seen[0] - box[0], seen[1] - box[0]), cut(at.region, *seen))
            yield number, _features_of(of_box, cut(at.kept, *seen), of_filter, settings, discretisation, name)


def _features_of(
    crop: Crop, kept: sitk.Image, filtered: str, settings: RadiomicsFeatures, discretisation: Discretisation, name: str
) -> dict[str, float]:
    """Features of all intensity and texture classes of one filtered image; `kept` is the intensity mask."""
    inside = sitk.GetArrayViewFromImage(kept) == 1
    values = sitk.GetArrayViewFromImage(crop.image)
    levels = discretisation.grey_levels(values, inside, filtered=filtered != "original")
    found = _of_classes(values, levels, inside, crop.image.GetSpacing(), settings, filtered)
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


def _of_classes(
    values: NDArray,
    levels: NDArray[np.int64],
    inside: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    settings: RadiomicsFeatures,
    filtered: str,
) -> dict[str, float]:
    """Features of pyradiomics' intensity and texture classes."""
    found: dict[str, float] = {}
    if "firstorder" in settings.classes:
        counts = np.bincount(levels[inside])
        found |= _named("firstorder", filtered, classes.first_order, values[inside].astype(float), counts[counts > 0],
                        float(np.prod(spacing_mm)))  # fmt: skip
    wanted = [kind for kind in classes.TEXTURES if kind in settings.classes]
    if not wanted:
        return found
    try:
        of_region = matrices(levels[bounding_box(inside)], flat=settings.dimension == "2D")
    except ValueError:  # a single voxel
        return found
    for kind in wanted:
        found |= _named(kind, filtered, classes.texture, kind, of_region)
    return found


def _named(kind: str, filtered: str, measure: Callable[..., dict[str, float]], *given: object) -> dict[str, float]:
    """Features of one class by their full names; those it cannot compute in this region are left out."""
    try:
        found = measure(*given)
    except (ArithmeticError, ValueError, IndexError):
        return {}
    return {f"{filtered}_{kind}_{name}": value for name, value in found.items() if np.isfinite(value)}


# --- filters --------------------------------------------------------------------------------------------------


def _margin(image_type: str, sigma: float, spacing_mm: tuple[float, ...]) -> int:
    """Voxels that a filter looks at around a voxel.

    Square, square root, logarithm and exponential scale by the largest value of what they are given, so they are given
    the region's bounding box: how much of the body a scan shows makes no difference.
    """
    if image_type == "LoG":
        # The recursive Gaussian has no end: at 5 sigma it is off by 1e-3, at 10 sigma by nothing that a double holds
        return int(np.ceil(10 * sigma / min(spacing_mm)))
    margins = {"Wavelet": WAVELET_MARGIN, "Gradient": GRADIENT_MARGIN, "LBP2D": LBP_MARGIN, "LBP3D": lbp3d.MARGIN}
    return margins.get(image_type, 0)


def _reach(image_type: str, sigma: float, settings: RadiomicsFeatures, spacing_mm: tuple[float, ...]) -> int:
    """Voxels that a filter, or a feature of the image itself, looks at around a voxel."""
    sphere = int(np.ceil(PEAK_RADIUS_MM / min(spacing_mm))) if "loc" in settings.classes else 0
    return sphere if image_type == "Original" else _margin(image_type, sigma, spacing_mm)


def _filter(image_type: str, sigma: float, crop: Crop, settings: RadiomicsFeatures) -> Iterator[tuple[sitk.Image, str]]:
    """Filtered images with pyradiomics' names for them."""
    if image_type == "LBP3D":
        yield from lbp3d.filtered(crop.image, crop.region)
        return
    filters = getattr(imageoperations, f"get{image_type}Image")
    for image, name, _ in filters(crop.image, crop.region, sigma=[sigma], force2D=settings.dimension == "2D"):
        yield image, name


def image_count(settings: RadiomicsFeatures) -> int:
    """How many images the filters make of one."""
    return sum(len(_filtered_names(image_type, settings)) for image_type in settings.image_types)


def _filtered_names(image_type: str, settings: RadiomicsFeatures) -> list[str]:
    if image_type == "Wavelet":
        bands = dict.fromkeys(name[1:] for name in WAVELETS) if settings.dimension == "2D" else WAVELETS
        return [f"wavelet-{name}" for name in bands]
    if image_type == "LoG":
        return [f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D" for sigma in settings.log_sigma_mm]
    if image_type == "LBP3D":
        return list(lbp3d.NAMES)
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


def _box(region: sitk.Image) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bounding box [lower, upper) in voxels, x, y, z."""
    box = bounding_box(sitk.GetArrayViewFromImage(region) != 0)[::-1]
    return np.array([side.start for side in box]), np.array([side.stop for side in box])
