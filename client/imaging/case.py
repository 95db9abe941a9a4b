"""Case: all images of one patient to all features that a study asks for.

read -> resample -> region -> normalise -> radiomics, and the picture that a network will embed (deep.py, in one process
for all patients, so that the processes of this file need no torch).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from cohortium.client.imaging.region import check_extent, ring
from cohortium.client.imaging.resample import Crop, resample
from cohortium.client.imaging.scale import on_scale
from cohortium.client.imaging.slices import picture
from cohortium.client.imaging.store import content_key
from cohortium.common import cohort, table
from cohortium.common.errors import CaseError
from cohortium.common.study import Study
from cohortium.common.study_images import FeatureSet, Image, RadiomicsFeatures, Region, RingRegion
from cohortium.common.study_networks import ModelRegion
from cohortium.sites.site_file import MaskFile

REVISION = 2
"""Raise it with every change of this package that changes a number: finished cases are then computed anew."""

LIBRARIES = (
    "SimpleITK",
    "pyradiomics",
    "numpy",
    "scipy",
    "PyWavelets",
    "connected-components-3d",
    "pydicom",
    "highdicom",
)


@dataclass(frozen=True)
class Recipe:
    """What is measured in every case: the tables of a study that concern images."""

    image: dict[str, Image]
    region: dict[str, Region]
    features: dict[str, FeatureSet]
    seed: int = 0  # of perturbed contours

    @classmethod
    def of(cls, study: Study) -> "Recipe":
        """The recipe of a study."""
        return cls(study.image, study.region, study.features, study.study.seed)

    def base(self, region: str) -> str:
        """The region whose mask a region is derived from: itself, or what a ring is around."""
        while isinstance(found := self.region[region], RingRegion):
            region = found.of
        return region

    def grid(self, image: str) -> str:
        """The image on whose grid an image's regions are contoured: itself, or what it is aligned to."""
        return self.image[image].grid or image

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (image, region) that a feature set looks at, each once, in the order of the study."""
        return list(dict.fromkeys((i, r) for s in self.features.values() for i in s.images for r in s.regions))

    @property
    def drawn(self) -> dict[tuple[str, str], ModelRegion]:
        """Every (image, region) that a network draws."""
        bases = {(self.grid(image), base): self.region[base] for image, r in self.pairs for base in [self.base(r)]}
        return {place: region for place, region in bases.items() if isinstance(region, ModelRegion)}

    def sets_on(self, image: str, region: str) -> Iterator[tuple[str, FeatureSet]]:
        """Feature sets that look at a region of an image: (name, settings)."""
        for name, settings in self.features.items():
            if image in settings.images and region in settings.regions:
                yield name, settings

    def plain(self) -> dict[str, Any]:
        """As JSON, with defaults: part of what finished cases are known by."""
        tables = {"image": self.image, "region": self.region, "features": self.features}
        return {table: {k: v.model_dump(mode="json") for k, v in given.items()} for table, given in tables.items()}

    def perturbations(self, image: str, region: str) -> int:
        """How many contours beside the site's own some feature set wants of a region of an image."""
        sets = (settings for _, settings in self.sets_on(image, region))
        return max((s.perturbations for s in sets if isinstance(s, RadiomicsFeatures)), default=0)

    def radiomics_columns(self) -> list[str]:
        """Names of the radiomics columns, in the order of `Measured.values`; those of perturbed contours come last."""
        own = {
            column(name, image, region, feature): settings.perturbations
            for image, region in self.pairs
            for name, settings in self.sets_on(image, region)
            if isinstance(settings, RadiomicsFeatures)
            for feature in radiomics.feature_names(settings)
        }
        most = max(own.values(), default=0)
        return [*own, *(table.perturbed(f, n) for n in range(1, most + 1) for f, times in own.items() if n <= times)]


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


def column(name: str, image: str, region: str, feature: str) -> str:
    """Name of a feature's column in the prepared table."""
    return f"features.{name}/{image}/{region}/{feature}"


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


def measure(files: CaseFiles, recipe: Recipe) -> Measured:
    """All features of one case.

    Raises
    ------
    CaseError
        The case cannot be used.
    """
    values: dict[str, float] = {}
    pictures: dict[str, NDArray[np.float32]] = {}
    findings: list[list[Any]] = []
    volumes: dict[str, sitk.Image] = {}
    for image, region in recipe.pairs:
        try:
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
            for name, settings in recipe.sets_on(image, region):
                scaled = on_scale(crop, recipe.image[image], settings)
                if isinstance(settings, RadiomicsFeatures):
                    some = others[: settings.perturbations]
                    for number, found in enumerate(
                        _radiomics(crop, scaled, some, settings, recipe.image[image], image)
                    ):
                        names = {feature: column(name, image, region, feature) for feature in found}
                        if number:
                            names = {feature: table.perturbed(own, number) for feature, own in names.items()}
                            if not np.isfinite(list(found.values())).any():
                                where = f"image {image}, region {region}: contour {number}"
                                findings.append(["perturbed contour cannot be measured", where, False])
                        values |= {names[feature]: value for feature, value in found.items()}
                else:
                    pictures[f"{name}/{image}/{region}"] = picture(
                        sitk.GetArrayViewFromImage(scaled.image),
                        sitk.GetArrayViewFromImage(scaled.region) == 1,
                        recipe.image[image],
                        settings,
                    )
        except CaseError as unusable:
            # The phrase is counted as it is; which image and region it was is for the site
            raise CaseError(unusable.reason, f"image {image}, region {region}: {unusable.detail}") from unusable
    return Measured(np.array([values[name] for name in recipe.radiomics_columns()]), pictures, findings)


def _radiomics(
    crop: Crop, scaled: Crop, others: list[sitk.Image], settings: RadiomicsFeatures, image: Image, name: str
) -> list[dict[str, float]]:
    """Features of a region and of other contours of it, each on the scale that its contour gives the image."""
    if image.normalise == "none":
        return radiomics.radiomics_of_contours(scaled, others, settings, image, name=name)
    found = [radiomics.radiomics(scaled, settings, image, name=name)]
    for other in others:
        try:
            check_extent(other)
            again = on_scale(crop._replace(region=other), image, settings)
            found.append(radiomics.radiomics(again, settings, image, name=name))
        except CaseError:
            found.append(dict.fromkeys(found[0], np.nan))
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
    margins = [
        radiomics.margin(features, spacing)
        for _, features in recipe.sets_on(image, region)
        if isinstance(features, RadiomicsFeatures)
    ]
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
