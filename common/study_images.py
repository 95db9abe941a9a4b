"""Study images: the tables of study.toml about images: how they are read, which regions, which features of them.

The attribute names are the keys of the file; see docs/study-file.md.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from cohortium.common.study_data import Bounds, Keys, Positive
from cohortium.common.study_networks import NetworkRegion, WeightFile

RADIOMICS_CLASSES = ("shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
IBSI_FAMILIES = ("morph", "loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl")
"""Families of features of the IBSI reference manual, by the prefix of its reference values."""


MOST_VOXELS = 256**3
"""Of a volume that a network sees; it is kept for every case."""


def _unset(value: object) -> bool:
    """Whether a key that came later is not used: it is then no part of what a hospital approved."""
    return value is None


class Image(Keys):
    """[image.NAME]: how one image of a patient is brought to a common grid and scale. Unset spacing: as acquired."""

    modality: Literal["CT", "MR", "PET", "US", "OTHER"]
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["linear", "cubic", "nearest"] = "linear"
    window_hu: tuple[float, float] | None = None
    normalise: Literal["none", "zscore", "histogram"] = "none"
    intensity_rounding: Positive | None = Field(default=None, exclude_if=_unset)
    units: Literal["suv_bw"] | None = Field(default=None, exclude_if=_unset)
    n4: bool = Field(default=False, exclude_if=lambda value: not value)
    grid: str | None = Field(default=None, exclude_if=_unset)
    registration: Literal["none", "rigid"] = Field(default="none", exclude_if=lambda value: value == "none")
    max_anisotropy: Annotated[float, Field(ge=1)] | None = Field(default=None, exclude_if=_unset)

    @model_validator(mode="after")
    def _fits_the_modality(self) -> Self:
        if self.n4 and self.modality != "MR":
            raise ValueError(f"n4 corrects MR coils, this is {self.modality}; leave it out")
        if self.units is not None and self.modality != "PET":
            raise ValueError(f"units = {self.units!r} belongs to PET, this is {self.modality}; leave it out")
        if self.registration != "none" and self.grid is None:
            raise ValueError("registration needs grid, the name of the image to register to")
        return self

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.window_hu is None:
            return self
        if self.modality != "CT":
            raise ValueError(f"window_hu belongs to CT, this is {self.modality}; use normalise")
        if self.normalise != "none":
            raise ValueError("window_hu and normalise exclude each other; keep one")
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"window_hu = {list(self.window_hu)}: the first number must be below the second")
        return self


class MaskRegion(Keys):
    """[region.NAME] contoured by the site, which names a mask file for each image."""

    source: Literal["mask"] = "mask"


class RingRegion(Keys):
    """[region.NAME] between two distances (mm) outside another region."""

    source: Literal["ring"]
    of: str
    inner_mm: Annotated[float, Field(ge=0)] = 0.0
    outer_mm: Positive

    @model_validator(mode="after")
    def _has_width(self) -> Self:
        if not self.inner_mm < self.outer_mm:
            raise ValueError(f"inner_mm = {self.inner_mm:g} must be below outer_mm = {self.outer_mm:g}")
        return self


def _with_source(value: Any) -> Any:
    return {"source": "mask", **value} if isinstance(value, dict) else value


Region = Annotated[
    MaskRegion | NetworkRegion | RingRegion,
    Field(discriminator="source"),
    BeforeValidator(_with_source, json_schema_input_type=MaskRegion | NetworkRegion | RingRegion),
]


class Features(Keys):
    """What both kinds of [features.NAME] share."""

    images: Annotated[tuple[str, ...], Field(min_length=1)]
    regions: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("images", "regions")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a name is given twice; keep one")
        return names


ImageType = Literal[
    "Original", "Wavelet", "LoG", "Square", "SquareRoot", "Logarithm", "Exponential", "Gradient", "LBP2D", "LBP3D"
]  # fmt: skip
RadiomicsClass = Literal[
    "shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm",
    "morph", "loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl",
]  # fmt: skip


class RadiomicsFeatures(Features):
    """[features.NAME] of kind radiomics: features of every image x region, pyradiomics' or IBSI's by their names."""

    kind: Literal["radiomics"]
    image_types: Annotated[tuple[ImageType, ...], Field(min_length=1)] = ("Original",)
    log_sigma_mm: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 3.0, 4.0, 5.0)
    classes: Annotated[tuple[RadiomicsClass, ...], Field(min_length=1)] = RADIOMICS_CLASSES
    bin_count: Annotated[int, Field(ge=2, le=65536)] | None = None
    bin_width: dict[str, Positive] | None = None
    mode: Literal["pyradiomics", "ibsi"] = "pyradiomics"
    dimension: Literal["2D", "3D"] | None = Field(default=None, exclude_if=_unset)
    resegment_range: dict[str, Bounds] | None = Field(default=None, exclude_if=_unset)
    outlier_sigma: Positive | None = Field(default=None, exclude_if=_unset)
    ivh_bin_width: dict[str, Positive] | None = Field(default=None, exclude_if=_unset)
    ivh_bin_count: Annotated[int, Field(ge=2, le=65536)] | None = Field(default=None, exclude_if=_unset)
    perturbations: Annotated[int, Field(ge=0, le=100)] = Field(default=0, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _one_binning(self) -> Self:
        if (self.bin_count is None) == (self.bin_width is None):
            raise ValueError("give bin_count or bin_width = {image = width}, one of the two")
        if self.bin_width is not None and set(self.bin_width) != set(self.images):
            raise ValueError(f"bin_width needs one width for each of the images {', '.join(self.images)}, no others")
        if self.ivh_bin_count is not None and self.ivh_bin_width is not None:
            raise ValueError("ivh_bin_count and ivh_bin_width exclude each other; keep one")
        return self

    @model_validator(mode="after")
    def _of_known_images(self) -> Self:
        for key in ("resegment_range", "ivh_bin_width"):
            if unknown := set(getattr(self, key) or {}) - set(self.images):
                raise ValueError(f"{key} names {', '.join(sorted(unknown))}; its images are {', '.join(self.images)}")
        return self

    @model_validator(mode="after")
    def _families_in_ibsi_mode(self) -> Self:
        if self.mode != "ibsi" and (families := [kind for kind in self.classes if kind in IBSI_FAMILIES]):
            raise ValueError(f'classes {", ".join(families)} are IBSI\'s; set mode = "ibsi"')
        return self


def _weights_tag(value: Any) -> str:
    return "WeightFile" if isinstance(value, dict | WeightFile) else "random"


class DeepFeatures(Features):
    """[features.NAME] of kind deep: embeddings of a frozen network for every image x region."""

    kind: Literal["deep"]
    network: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    size: Annotated[tuple[Annotated[int, Field(ge=16, le=1024)], ...], Field(min_length=2, max_length=3)] = (112, 112)
    slices: Literal["largest", "2.5d", "volume"] = "largest"
    layer: Literal["avgpool"] = "avgpool"
    weights: Annotated[
        Annotated[Literal["random"], Tag("random")] | Annotated[WeightFile, Tag("WeightFile")],
        Discriminator(_weights_tag),
    ] = "random"

    @model_validator(mode="after")
    def _of_two_or_three_dimensions(self) -> Self:
        flat = self.slices != "volume"
        if len(self.size) != (2 if flat else 3):
            raise ValueError(
                f"size = {list(self.size)}: slices = {self.slices!r} needs {'[rows, columns]' if flat else '[d, h, w]'}"
            )
        if math.prod(self.size) > MOST_VOXELS:
            raise ValueError(f"size = {list(self.size)}: more than 256 x 256 x 256 voxels; take fewer")
        if not flat and isinstance(self.weights, WeightFile) and self.weights.format in ("torchvision", "radimagenet"):
            raise ValueError(f"weights.format {self.weights.format!r} is of slices; a volume takes medicalnet or monai")
        return self


FeatureSet = Annotated[RadiomicsFeatures | DeepFeatures, Field(discriminator="kind")]


class Harmonise(Keys):
    """[harmonise]: remove the site effect from feature sets, keeping what `protect` names."""

    method: Literal["combat"] = "combat"
    features: Annotated[tuple[str, ...], Field(min_length=1)]
    protect: tuple[str, ...] = ()
