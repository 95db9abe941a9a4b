"""Bias: the slow change of brightness that an MR coil leaves, taken out (N4: Tustison, IEEE TMI 29:1310, 2010)."""

import SimpleITK as sitk

from cohortium.common.errors import CaseError

COARSEST = 4
"""The field is smooth: it is fitted to every fourth voxel and applied to all."""
LEAST_SIDE = 32
"""Voxels along each axis that the coarse image keeps at least."""
ITERATIONS = (50, 50, 50, 50)


def correct_bias(image: sitk.Image) -> sitk.Image:
    """The image divided by its bias field, which is fitted where Otsu's threshold sees tissue; float64.

    Raises
    ------
    CaseError
        Everything is of one brightness, or no voxel is positive.
    """
    values = sitk.Cast(image, sitk.sitkFloat32)
    factors = [max(min(COARSEST, n // LEAST_SIDE), 1) for n in image.GetSize()]
    coarse = sitk.Shrink(values, factors)
    tissue = sitk.And(sitk.OtsuThreshold(coarse, 0, 1, 200), sitk.Cast(coarse > 0, sitk.sitkUInt8))
    if not sitk.GetArrayViewFromImage(tissue).any():
        raise CaseError("image has no tissue to fit a bias field to")
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(ITERATIONS)
    corrector.SetNumberOfThreads(1)  # sums in another order are other numbers
    corrector.Execute(coarse, tissue)
    field = sitk.Exp(sitk.Cast(corrector.GetLogBiasFieldAsImage(values), sitk.sitkFloat64))
    return sitk.Cast(image, sitk.sitkFloat64) / field
