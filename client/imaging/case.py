"""Case: all images of one patient to all features that a study asks for.

read -> resample -> region -> normalise -> radiomics, and the picture that a network will embed (deep.py, in one process
for all patients, so that the processes of this file need no torch).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cohortium.client.imaging import radiomics
from cohortium.client.imaging.align import align, covered
from cohortium.client.imaging.bias import correct_bias
from cohortium.client.imaging.perturb import REACH_MM, perturbed
from cohortium.client.imaging.read import fingerprint, read_image, read_mask
from cohortium.client.imaging.recipe import Recipe, column
from cohortium.client.imaging.region import check_extent, ring
from cohortium.client.imaging.resample import Crop, resample
from cohortium.client.imaging.scale import on_scale
from cohortium.client.imaging.slices import picture
from cohortium.client.imaging.store import content_key
from cohortium.common import cohort, table
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image, RadiomicsFeatures, RingRegion
from cohortium.sites.site_file import MaskFile

REVISION = 2
"""Raise it with every change of this package that changes a number: finished cases are then computed anew."""

LIBRARIES = (
    "SimpleITK",
    "pyradiomics",
    "numpy",
    "scipy",
    "PyWavelets",
    "scikit-image",
    "connected-components-3d",
    "pydicom",
    "highdicom",
)


class CaseFiles(NamedTuple):
    """A patient's files: image by name, mask by (image, region) and which part of its file it is."""

    patient_id: str
    images: dict[str, Path]
    masks: dict[tuple[str, str], Path]
    parts: dict[tuple[str, str], MaskFile]


class Measured(NamedTuple):
    """What was measured in a case."""

    values: NDArray[np.float64]  # one for each of Recipe.radiomics_columns
    pictures: dict[str, NDArray[np.float32]]  # "SET/IMAGE/REGION" -> what a network will see
    findings: list[list[Any]]  # reason, where, whether it refuses; as `Examined.findings`


def case_key(files: CaseFiles, recipe: Recipe) -> str:
    """Name of a case among finished ones: all its bytes, all settings, all versions.

    Raises
    ------
    CaseError
        A file is missing.
    SiteError
        A file cannot be read.
    """
    images = {name: fingerprint(path, "image") for name, path in files.images.items()}
    masks = {f"{image}/{region}": fingerprint(path, "mask") for (image, region), path in files.masks.items()}
    parts = {f"{i}/{r}": part.model_dump(exclude={"path"}) for (i, r), part in files.parts.items()}
    what = {"revision": REVISION, "recipe": recipe.plain(), "images": images, "masks": masks, "parts": parts}
    if any(recipe.perturbations(*pair) for pair in recipe.pairs):
        what["perturbed"] = [recipe.seed, files.patient_id]
    return content_key(what, LIBRARIES)


class Look(NamedTuple):
    """An image around a region, as every feature set sees it: on the study's grid, not yet on a set's scale."""

    image: str
    region: str
    crop: Crop
    others: list[sitk.Image]  # contours that others might have drawn


def measure(files: CaseFiles, recipe: Recipe) -> Measured:
    """All features of one case.

    Raises
    ------
    CaseError
        The case cannot be used.
    """
    values: dict[str, float] = {}
    pictures: dict[str, NDArray[np.float32]] = {}
    for look in looks(files, recipe):
        pictures |= pictures_of(look, recipe)
        for name in recipe.radiomics_on(look.image, look.region):
            values |= values_of(look, recipe, name)
    return measured(values, pictures, recipe)


def looks(files: CaseFiles, recipe: Recipe) -> Iterator[Look]:
    """All that is looked at in a case, one after the other.

    Raises
    ------
    CaseError
        The case cannot be used.
    """
    volumes: dict[str, sitk.Image] = {}
    for image, region in recipe.pairs:
        with _naming(image, region):
            grid, base = recipe.grid(image), recipe.base(region)
            for name in (grid, image):
                if name not in volumes:
                    volumes[name] = volume_of(name, files, recipe, volumes)
            mask = read_mask(files.masks[grid, base], volumes[grid], files.parts[grid, base])
            volume = volumes[image] if grid == image else covered(volumes[image], mask)
            crop = _on_study_grid(volume, mask, image, region, recipe)
            others = [_derived(region, contour, recipe) for contour in _contours(files, image, region, crop, recipe)]
            crop = crop._replace(region=_derived(region, crop.region, recipe))
            check_extent(crop.region)
        yield Look(image, region, crop, others)


def pictures_of(look: Look, recipe: Recipe) -> dict[str, NDArray[np.float32]]:
    """What networks will see of a look: "SET/IMAGE/REGION" -> picture.

    Raises
    ------
    CaseError
        The image has no scale.
    """
    pictures = {}
    image = recipe.image[look.image]
    for name, settings in recipe.sets_on(look.image, look.region):
        if not isinstance(settings, RadiomicsFeatures):
            with _naming(look.image, look.region):
                scaled = on_scale(look.crop, image, settings)
                inside = sitk.GetArrayViewFromImage(scaled.region) == 1
                pictures[f"{name}/{look.image}/{look.region}"] = picture(
                    sitk.GetArrayViewFromImage(scaled.image), inside, image, settings
                )
    return pictures


def values_of(
    look: Look, recipe: Recipe, name: str, *, only: Sequence[radiomics.Pass] | None = None
) -> dict[str, float]:
    """The features of a radiomics set that can be computed in a look, by their columns.

    Parameters
    ----------
    only : sequence, optional
        Some of `radiomics.passes`; without it all.

    Raises
    ------
    CaseError
        The region cannot be measured.
    """
    settings = recipe.features[name]
    assert isinstance(settings, RadiomicsFeatures)
    with _naming(look.image, look.region):
        found = _radiomics(look, settings, recipe.image[look.image], only)
    values = {}
    for number, of_contour in enumerate(found):
        for feature, value in of_contour.items():
            own = column(name, look.image, look.region, feature)
            values[table.perturbed(own, number) if number else own] = value
    return values


def measured(values: dict[str, float], pictures: dict[str, NDArray[np.float32]], recipe: Recipe) -> Measured:
    """What was measured in a case, from the values of all its looks."""
    findings = [
        ["perturbed contour cannot be measured", f"image {image}, region {region}: contour {number}", False]
        for image, region in recipe.pairs
        for name, settings in recipe.radiomics_on(image, region).items()
        for number in range(1, settings.perturbations + 1)
        if not any(
            table.perturbed(column(name, image, region, feature), number) in values
            for feature in radiomics.feature_names(settings)
        )
    ]
    columns = recipe.radiomics_columns()
    return Measured(np.array([values.get(name, np.nan) for name in columns]), pictures, findings)


@contextmanager
def _naming(image: str, region: str) -> Iterator[None]:
    """The phrase of an error is counted as it is; which image and region it was is for the site."""
    try:
        yield
    except CaseError as unusable:
        raise CaseError(unusable.reason, f"image {image}, region {region}: {unusable.detail}") from unusable


def _radiomics(
    look: Look, settings: RadiomicsFeatures, image: Image, only: Sequence[radiomics.Pass] | None
) -> list[dict[str, float]]:
    """Features of a region and of other contours of it, each on the scale that its contour gives the image."""

    def scaled(region: sitk.Image) -> Crop:
        return on_scale(look.crop._replace(region=region), image, settings)

    def measured_in(crop: Crop, others: Sequence[sitk.Image]) -> list[dict[str, float]]:
        return radiomics.radiomics_of_contours(crop, others, settings, image, name=look.image, only=only)

    own, others = scaled(look.crop.region), look.others[: settings.perturbations]
    if image.normalise == "none":
        return measured_in(own, others)
    found = measured_in(own, [])
    for other in others:
        try:
            check_extent(other)
            found += measured_in(scaled(other), [])
        except CaseError:
            found.append({})
    return found


def _contours(files: CaseFiles, image: str, region: str, crop: Crop, recipe: Recipe) -> list[sitk.Image]:
    """The contour that a region is derived from, as others might have drawn it; images of one contour draw alike."""
    times = recipe.perturbations(image, region)
    if not times or not sitk.GetArrayViewFromImage(crop.region).any():
        return []
    place = f"{recipe.grid(image)}/{recipe.base(region)}"
    return perturbed(
        crop,
        [cohort.keyed_hash(f"perturb/{n}", recipe.seed, place, files.patient_id) for n in range(1, times + 1)],
    )


def volume_of(image: str, files: CaseFiles, recipe: Recipe, volumes: Mapping[str, sitk.Image]) -> sitk.Image:
    """An image corrected and aligned as the study says; it remembers whose it is.

    Parameters
    ----------
    volumes : mapping
        Holds the image that this one is aligned to, if there is one.

    Raises
    ------
    CaseError
        The image cannot be used.
    """
    settings = recipe.image[image]
    stored = read_image(files.images[image], settings.modality, settings.units)
    spacing = stored.GetSpacing()
    if settings.max_anisotropy is not None and max(spacing) > settings.max_anisotropy * min(spacing):
        raise CaseError("image has voxels longer than the study allows", str(files.images[image]))
    volume = correct_bias(stored) if settings.n4 else stored
    for key in stored.GetMetaDataKeys():
        volume.SetMetaData(key, stored.GetMetaData(key))
    if settings.grid is None:
        return volume
    return align(
        volume, volumes[settings.grid], interpolation=settings.interpolation, registration=settings.registration
    )


def _on_study_grid(volume: sitk.Image, mask: sitk.Image, image: str, region: str, recipe: Recipe) -> Crop:
    """Image and the contour of a region on the study's grid, with the margins that filters, rings and others need."""
    settings = recipe.image[image]
    spacing = settings.spacing_mm or volume.GetSpacing()
    margins = [radiomics.margin(features, spacing) for features in recipe.radiomics_on(image, region).values()]
    beyond_mm = _reach_mm(region, recipe) + (REACH_MM if recipe.perturbations(image, region) else 0.0)
    reach = int(np.ceil(beyond_mm / min(spacing)))
    return resample(
        volume,
        mask,
        spacing_mm=settings.spacing_mm,
        interpolation=settings.interpolation,
        margin=max(margins, default=0) + reach,
    )


def _reach_mm(region: str, recipe: Recipe) -> float:
    """How far a region goes beyond the mask it is derived from."""
    found = recipe.region[region]
    return found.outer_mm + _reach_mm(found.of, recipe) if isinstance(found, RingRegion) else 0.0


def _derived(region: str, mask: sitk.Image, recipe: Recipe) -> sitk.Image:
    """The region itself, from the mask of its base."""
    found = recipe.region[region]
    if not isinstance(found, RingRegion) or not sitk.GetArrayViewFromImage(mask).any():
        return mask
    return ring(_derived(found.of, mask, recipe), found.inner_mm, found.outer_mm)
