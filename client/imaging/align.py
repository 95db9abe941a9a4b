"""Align: one image of a patient on the grid of another, so that a region contoured there is measured here.

Without registration both must lie in one frame of reference, as the PET and CT of one session do. ``rigid`` moves the
image by a rotation and a shift that maximise mutual information (Mattes et al., IEEE TMI 22:120, 2003).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from cohortium.client.imaging.dicom_series import FRAME
from cohortium.client.imaging.region import bounding_box
from cohortium.client.imaging.resample import INTERPOLATORS
from cohortium.common.errors import CaseError

BINS = 50
SAMPLED, SEED = 0.2, 20030201
"""Share of voxels that are compared, drawn from a fixed seed so that a case gives the same numbers everywhere."""
COARSE_TO_FINE = (4, 2, 1)
FARTHEST_MM, FARTHEST_RADIANS = 80.0, 0.6
"""A patient was not moved by more between two images; a registration that says so has failed."""


def align(image: sitk.Image, target: sitk.Image, *, interpolation: str, registration: str) -> sitk.Image:
    """The image's values at the voxels of `target`, float64; NaN where the image does not reach.

    Raises
    ------
    CaseError
        ``images have different frames of reference``, ``registration failed``.
    """
    if registration == "none":
        frames = {i.GetMetaData(FRAME) for i in (image, target) if i.HasMetaDataKey(FRAME)} - {""}
        if len(frames) > 1:
            raise CaseError("images have different frames of reference", "registration = 'rigid' does not need one")
        move: sitk.Transform = sitk.Transform()
    else:
        move = rigid(image, target)
    values = sitk.Cast(image, sitk.sitkFloat64)
    return sitk.Resample(values, target, move, INTERPOLATORS[interpolation], float("nan"), sitk.sitkFloat64)


def covered(aligned: sitk.Image, mask: sitk.Image) -> sitk.Image:
    """The aligned image without NaN: what lies beyond it takes its lowest value, outside the region only.

    Raises
    ------
    CaseError
        ``image does not cover the region``.
    """
    values = sitk.GetArrayFromImage(aligned)
    gap = np.isnan(values)
    if gap[bounding_box(sitk.GetArrayViewFromImage(mask) != 0)].any():
        raise CaseError("image does not cover the region")
    values[gap] = values[~gap].min()
    whole = sitk.GetImageFromArray(values)
    whole.CopyInformation(aligned)
    return whole


def rigid(image: sitk.Image, target: sitk.Image) -> sitk.Transform:
    """The rotation and shift that bring points of `target` to those of `image`.

    Raises
    ------
    CaseError
        ``registration failed``: the images do not overlap, or the best place is impossibly far.
    """
    fixed, moving = (sitk.Cast(i, sitk.sitkFloat32) for i in (target, image))
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    if _shares_frame(image, target):
        # Already in one frame: begin there, turning about the target's middle
        start = sitk.Euler3DTransform(start)
        start.SetTranslation((0.0, 0.0, 0.0))
    try:
        with _one_thread():
            found = sitk.Euler3DTransform(_method(start).Execute(fixed, moving).GetNthTransform(0))
    except RuntimeError as failed:
        raise CaseError("registration failed", str(failed).strip().splitlines()[-1]) from failed
    moved = np.linalg.norm(np.subtract(found.GetTranslation(), sitk.Euler3DTransform(start).GetTranslation()))
    turned = max(abs(found.GetAngleX()), abs(found.GetAngleY()), abs(found.GetAngleZ()))
    if moved > FARTHEST_MM or turned > FARTHEST_RADIANS:
        raise CaseError("registration failed", f"it moved the image by {moved:.0f} mm and {turned:.1f} radians")
    return found


def _method(start: sitk.Transform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(COARSE_TO_FINE)
    method.SetSmoothingSigmasPerLevel([factor / 2 for factor in COARSE_TO_FINE])
    method.SetInitialTransform(start, inPlace=False)
    return method


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread while the block runs: sums in another order are other numbers, and the metric asks nobody else."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _shares_frame(image: sitk.Image, target: sitk.Image) -> bool:
    """Whether the files say that both lie in one frame, or, without such a word, whether their middles are near."""
    frames = [i.GetMetaData(FRAME) for i in (image, target) if i.HasMetaDataKey(FRAME)]
    if len(frames) == 2 and all(frames):
        return frames[0] == frames[1]
    middles = [i.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in i.GetSize()]) for i in (image, target)]
    return bool(np.linalg.norm(np.subtract(*middles)) < FARTHEST_MM)
