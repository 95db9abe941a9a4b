"""Study networks: weight files, and the segmentation networks that draw a [region.NAME] where a site has no contour.

The attribute names are the keys of the file; see docs/study-file.md.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortium.common.study_data import Bounds, Keys, Positive, Sha256

Odd = Annotated[int, Field(ge=1, le=7)]
Stride = Annotated[int, Field(ge=1, le=8)]
Channels = Annotated[int, Field(ge=1, le=2048)]
Kernel = Odd | tuple[Odd, Odd, Odd]
Step = Stride | tuple[Stride, Stride, Stride]
Blocks = Annotated[int, Field(ge=1, le=16)]
Side = Annotated[int, Field(ge=4, le=512)]


class NetworkFile(Keys):
    """Network weights in a file beside the study; every site checks the sha256 before it loads them."""

    file: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    licence: str = ""


class WeightFile(NetworkFile):
    """Weights of a residual network that embeds pictures."""

    format: Literal["torchvision", "monai", "radimagenet", "medicalnet", "cohortium"] = "torchvision"


class SegmentationFile(NetworkFile):
    """Weights of a segmentation network."""

    format: Literal["monai", "cohortium"] = "monai"


class ModelRegion(Keys):
    """[region.NAME] drawn by a segmentation network on one image; `patch` and `spacing_mm` are x, y, z.

    Each kind of network has a class with its own keys.
    """

    source: Literal["model"]
    image: str
    weights: SegmentationFile
    classes: Annotated[int, Field(ge=2, le=256)] = 2
    label: Annotated[int, Field(ge=1)] = 1
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    window_hu: Bounds | None = None
    window_to: Bounds = (0.0, 1.0)
    normalise: Literal["none", "zscore"] = "none"
    patch: tuple[Side, Side, Side]
    keep: Literal["largest", "all"] = "largest"

    @property
    def reduction(self) -> tuple[int, ...]:
        """By how much the network makes an image smaller along x, y, z at its deepest level."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.label >= self.classes:
            raise ValueError(f"label = {self.label}: a network of {self.classes} classes has 1 to {self.classes - 1}")
        if self.window_hu is not None and self.normalise != "none":
            raise ValueError("window_hu and normalise exclude each other; keep one")
        whole = self.reduction
        if any(n % step for n, step in zip(self.patch, whole, strict=True)) or self.patch == whole:
            raise ValueError(
                f"patch = {list(self.patch)}: the deepest level has patch / {list(whole)} voxels, which must be whole "
                "numbers and more than one voxel in all; take multiples"
            )
        return self


class UNetRegion(ModelRegion):
    """MONAI's UNet (with `residual_units`, Kerfoot et al. 2019)."""

    network: Literal["unet"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=2, max_length=8)]
    strides: Annotated[tuple[Step, ...], Field(min_length=1)]
    residual_units: Annotated[int, Field(ge=0, le=8)] = 0
    norm: Literal["instance", "batch"] = "instance"

    @property
    def reduction(self) -> tuple[int, ...]:
        """Product of the strides."""
        return _product(self.strides)

    @model_validator(mode="after")
    def _one_stride_between_levels(self) -> Self:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} channels need {len(self.channels) - 1} strides, one less")
        return self


class DynUNetRegion(ModelRegion):
    """MONAI's DynUNet: nnU-Net's network (Isensee et al., Nature Methods 18:203, 2021)."""

    network: Literal["dynunet"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=3, max_length=8)]
    strides: Annotated[tuple[Step, ...], Field(min_length=1)]
    kernels: tuple[Kernel, ...]
    residual: bool = False

    @property
    def reduction(self) -> tuple[int, ...]:
        """Product of the strides."""
        return _product(self.strides)

    @model_validator(mode="after")
    def _one_of_each_a_level(self) -> Self:
        if not len(self.channels) == len(self.strides) == len(self.kernels):
            raise ValueError("channels, strides and kernels need one entry a level each")
        if triple(self.strides[0]) != (1, 1, 1):
            raise ValueError(f"strides[1] = {self.strides[0]}: the first level keeps the image's voxels; use 1")
        if any(n % 2 == 0 for kernel in self.kernels for n in triple(kernel)):
            raise ValueError("kernels are odd numbers; use 1, 3, 5 or 7")
        return self


class SegResNetRegion(ModelRegion):
    """MONAI's SegResNet (Myronenko, arXiv:1810.11654); `channels` are those of the first level, doubled at each."""

    network: Literal["segresnet"]
    channels: Annotated[int, Field(ge=8, le=256, multiple_of=8)]
    blocks_down: Annotated[tuple[Blocks, ...], Field(min_length=2, max_length=7)] = (1, 2, 2, 4)
    blocks_up: tuple[Blocks, ...] = (1, 1, 1)

    @property
    def reduction(self) -> tuple[int, ...]:
        """Two at every level."""
        return (2 ** (len(self.blocks_down) - 1),) * 3

    @model_validator(mode="after")
    def _one_way_up_less(self) -> Self:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"{len(self.blocks_down)} blocks_down need {len(self.blocks_down) - 1} blocks_up, one less"
            )
        return self


NetworkRegion = Annotated[UNetRegion | DynUNetRegion | SegResNetRegion, Field(discriminator="network")]


def triple(step: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """A number for each axis, from one for all or one each.

    >>> triple(2), triple((1, 2, 2))
    ((2, 2, 2), (1, 2, 2))
    """
    return (step, step, step) if isinstance(step, int) else step


def _product(strides: tuple[Step, ...]) -> tuple[int, ...]:
    return tuple(math.prod(along) for along in zip(*map(triple, strides), strict=True))
