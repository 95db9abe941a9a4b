"""One image: radiomics of an image and its mask outside any study, with the settings that a study would have.

The keys of the settings file are those of [image.NAME] and [features.NAME] in study.toml, without image names; see
docs/features.md.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cohortium.client.imaging.radiomics import margin, radiomics
from cohortium.client.imaging.read import part_named, read_image, read_mask
from cohortium.client.imaging.region import check_extent
from cohortium.client.imaging.resample import resample
from cohortium.client.imaging.scale import on_scale
from cohortium.client.imaging.workers import FAILURES
from cohortium.common.declared_files import read_toml, validate
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.study_data import Keys, Positive
from cohortium.common.study_images import (
    IBSI_FAMILIES,
    RADIOMICS_CLASSES,
    Bounds,
    Image,
    ImageType,
    RadiomicsClass,
    RadiomicsFeatures,
)
from cohortium.sites.site_file import MaskFile

NAME = "image"
KEPT_SPACING = 0.0
"""A spacing of 0 keeps the image's own along that axis."""

Bins = Annotated[int, Field(ge=2, le=65536)]
Spacing = Annotated[float, Field(ge=0)]


class Settings(Keys):
    """Settings file of `cohortium features`."""

    modality: Literal["CT", "MR", "PET", "US", "OTHER"] = "OTHER"
    spacing_mm: Annotated[tuple[Spacing, ...], Field(min_length=2, max_length=3)] | None = None
    interpolation: Literal["linear", "cubic", "nearest"] = "linear"
    intensity_rounding: Positive | None = None
    units: Literal["suv_bw"] | None = None
    window_hu: Bounds | None = None
    normalise: Literal["none", "zscore", "histogram"] = "none"
    label: Annotated[int, Field(ge=1)] | None = None
    roi: str | None = None
    segment: str | Annotated[int, Field(ge=1)] | None = None
    mode: Literal["pyradiomics", "ibsi"] = "pyradiomics"
    dimension: Literal["2D", "3D"] | None = None
    resegment_range: Bounds | None = None
    outlier_sigma: Positive | None = None
    bin_width: Positive | None = None
    bin_count: Bins | None = None
    ivh_bin_width: Positive | None = None
    ivh_bin_count: Bins | None = None
    image_types: Annotated[tuple[ImageType, ...], Field(min_length=1)] = ("Original",)
    log_sigma_mm: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 3.0, 4.0, 5.0)
    classes: Annotated[tuple[RadiomicsClass, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _as_in_a_study(self) -> "Settings":
        if (self.bin_count is None) == (self.bin_width is None):
            raise ValueError("give bin_count or bin_width, one of the two")
        # Each raises what the table of a study would
        self.image()
        self.features()
        self.part()
        return self

    def part(self) -> MaskFile:
        """Which part of the mask's file the region is."""
        roi = (self.roi,) if self.roi else ()
        segment = (self.segment,) if self.segment else ()
        return MaskFile(path="{patient_id}", label=self.label, roi=roi, segment=segment)

    def image(self, spacing_mm: tuple[float, ...] | None = None) -> Image:
        """The table of the image in a study; `spacing_mm` of the image itself, where the settings keep it."""
        wanted: tuple[float, float, float] | None = None
        if self.spacing_mm is not None:
            own = spacing_mm or (1.0, 1.0, 1.0)
            x, y, z = (new or kept for new, kept in zip((*self.spacing_mm, KEPT_SPACING)[:3], own, strict=True))
            wanted = (x, y, z)
        return Image(
            modality=self.modality,
            spacing_mm=wanted,
            interpolation=self.interpolation,
            intensity_rounding=self.intensity_rounding,
            units=self.units,
            window_hu=self.window_hu,
            normalise=self.normalise,
        )

    def features(self) -> RadiomicsFeatures:
        """The table of the feature set in a study. Without `classes` all that the mode has."""
        every = (*RADIOMICS_CLASSES, *IBSI_FAMILIES) if self.mode == "ibsi" else RADIOMICS_CLASSES
        return RadiomicsFeatures(
            kind="radiomics",
            images=(NAME,),
            regions=("region",),
            image_types=self.image_types,
            log_sigma_mm=self.log_sigma_mm,
            classes=self.classes or every,
            bin_count=self.bin_count,
            bin_width={NAME: self.bin_width} if self.bin_width else None,
            mode=self.mode,
            dimension=self.dimension,
            resegment_range={NAME: self.resegment_range} if self.resegment_range else None,
            outlier_sigma=self.outlier_sigma,
            ivh_bin_width={NAME: self.ivh_bin_width} if self.ivh_bin_width else None,
            ivh_bin_count=self.ivh_bin_count,
        )


def read_settings(path: Path) -> Settings:
    """The settings of a TOML file.

    Raises
    ------
    SiteError
        The file is missing or no TOML, or has unknown keys or values; all mistakes at once, with remedies.
    """
    return validate(Settings, read_toml(path, role="settings", error=SiteError), source=path.name, error=SiteError)


def features_of(image_path: Path, mask_path: Path, settings: Settings) -> dict[str, float]:
    """All features of one region of one image; NaN where a feature cannot be computed.

    Raises
    ------
    CaseError
        The image or the mask cannot be used: missing, unreadable, of another geometry, empty, without the label.
    SiteError
        A file is there and cannot be read.
    """
    for path, role in ((image_path, "image"), (mask_path, "mask")):
        if not path.exists():
            raise CaseError(f"{role} file is missing", str(path))
    volume = read_image(image_path, settings.modality, settings.units)
    part = part_named(mask_path, settings.roi) if settings.roi else settings.part()
    region = read_mask(mask_path, volume, part)
    image, features = settings.image(volume.GetSpacing()), settings.features()
    try:
        crop = resample(
            volume,
            region,
            spacing_mm=image.spacing_mm,
            interpolation=image.interpolation,
            margin=margin(features, image.spacing_mm or volume.GetSpacing()),
        )
        check_extent(crop.region)
        return radiomics(on_scale(crop, image, features), features, image, name=NAME)
    except FAILURES as failed:
        raise CaseError("features cannot be computed", f"{image_path}: {type(failed).__name__}: {failed}") from failed
