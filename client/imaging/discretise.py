"""Discretise: which voxels of a region intensity features look at, and the grey level of each.

Mode ``ibsi`` follows the reference manual (2.6, 2.7): bins of a fixed width start at the lower bound of
re-segmentation, or at the region's least value; mode ``pyradiomics`` starts them at a multiple of the width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from radiomics import imageoperations

from cohortium.client.imaging.resample import Crop
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image, RadiomicsFeatures

HIGHEST_LEVEL = 2**16
"""As many bins as `bin_count` may ask for; the arrays that count levels have room for every one."""


@dataclass(frozen=True, kw_only=True)
class Discretisation:
    """How the values of one image become grey levels.

    Attributes
    ----------
    bounds : (low, high) or None
        Re-segmentation range: voxels beyond it are no part of the intensity mask.
    outlier_sigma : float or None
        Nor are those so many standard deviations from the mean of the region.
    width, count : float or None, int or None
        Of the bins; one of the two.
    standard : bool
        As IBSI has it, or as pyradiomics does.
    """

    bounds: tuple[float, float] | None = None
    outlier_sigma: float | None = None
    width: float | None = None
    count: int | None = None
    standard: bool = False

    @classmethod
    def of(cls, settings: RadiomicsFeatures, image: Image, name: str) -> "Discretisation":
        """What a feature set asks for in the image `name`; in mode ``ibsi`` a window is a range for re-segmentation."""
        standard = settings.mode == "ibsi"
        bounds = (settings.resegment_range or {}).get(name)
        return cls(
            bounds=image.window_hu if bounds is None and standard else bounds,
            outlier_sigma=settings.outlier_sigma,
            width=settings.bin_width[name] if settings.bin_width else None,
            count=settings.bin_count,
            standard=standard,
        )

    def intensity_mask(self, crop: Crop) -> sitk.Image:
        """The region without what re-segmentation removes; range and outliers are both those of the whole region.

        Raises
        ------
        CaseError
            ``region has no voxel inside the window``.
        """
        if self.bounds is None and self.outlier_sigma is None:
            return crop.region
        values = sitk.GetArrayViewFromImage(crop.image)
        inside = sitk.GetArrayViewFromImage(crop.region) == 1
        low, high = self.bounds or (-np.inf, np.inf)
        if self.outlier_sigma is not None:
            mean, reach = values[inside].mean(), self.outlier_sigma * values[inside].std()
            low, high = max(low, mean - reach), min(high, mean + reach)
        kept = inside & (values >= low) & (values <= high)
        if not kept.any():
            raise CaseError("region has no voxel inside the window")
        mask = sitk.GetImageFromArray(kept.astype(np.uint8))
        mask.CopyInformation(crop.region)
        return mask

    def grey_levels(self, values: NDArray, inside: NDArray[np.bool_], *, filtered: bool) -> NDArray[np.int64]:
        """Grey level (1, 2, ...) of each voxel of the intensity mask, 0 elsewhere.

        Parameters
        ----------
        values, inside : (z, y, x)
        filtered : bool
            Whether a filter made the values; the range of re-segmentation says nothing about them.

        Raises
        ------
        CaseError
            ``bins are too narrow for the image's values``.
        """
        levels = np.zeros(values.shape, dtype=np.int64)
        levels[inside] = self._levels(values[inside], None if filtered else self.bounds)
        return levels

    def _levels(self, values: NDArray, bounds: tuple[float, float] | None) -> NDArray[np.int64]:
        start = bounds[0] if self.standard and bounds else values.min()
        if self.width and (float(values.max()) - float(start)) / self.width >= HIGHEST_LEVEL:
            raise CaseError(
                "bins are too narrow for the image's values",
                f"width {self.width:g} makes more than {HIGHEST_LEVEL} grey levels; widen them, or set bin_count",
            )
        if not self.standard:
            binning: dict[str, Any] = {"binWidth": self.width} if self.width else {"binCount": self.count}
            # The edges depend on the extremes alone, which pyradiomics would look for with Python's own min and max
            extremes = np.array([values.min(), values.max()])
            return np.digitize(values, imageoperations.getBinEdges(extremes, **binning))
        if self.width:
            return np.floor((values - start) / self.width).astype(np.int64) + 1
        least = values.min()
        count, span = self.count or 1, values.max() - least
        levels = np.floor(count * (values - least) / (span or 1.0)).astype(np.int64) + 1
        return np.minimum(levels, count)  # the largest value belongs to the last bin
