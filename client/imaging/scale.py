"""Scale: a crop's values as a feature set looks at them: rounded, and normalised or as they are."""

import numpy as np
import SimpleITK as sitk

from cohortium.client.imaging.normalise import normalise
from cohortium.client.imaging.resample import Crop
from cohortium.common.study_images import FeatureSet, Image, RadiomicsFeatures


def on_scale(crop: Crop, image: Image, settings: FeatureSet) -> Crop:
    """The crop on the study's scale of values.

    In mode ``ibsi`` a CT keeps whole Hounsfield units (IBSI manual, 2.4) and its window bounds the region's voxels
    instead of clipping them.
    """
    values = sitk.GetArrayFromImage(crop.image).astype(float)
    standard = isinstance(settings, RadiomicsFeatures) and settings.mode == "ibsi"
    if step := image.intensity_rounding or (1.0 if standard and image.modality == "CT" else None):
        values = np.round(values / step) * step
    if not (standard and image.window_hu):
        values = normalise(values, sitk.GetArrayViewFromImage(crop.region) == 1, image)
    scaled = sitk.GetImageFromArray(values)
    scaled.CopyInformation(crop.image)
    return crop._replace(image=scaled)
