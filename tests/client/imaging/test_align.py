import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging.align import align, covered, rigid
from cohortium.client.imaging.bias import correct_bias
from cohortium.client.imaging.dicom_series import FRAME
from cohortium.common.errors import CaseError
from tests.client.imaging.volumes import make


def head(shape=(24, 40, 44), seed=0):
    """A smooth body with organs, so that there is something to register."""
    z, y, x = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    rng = np.random.default_rng(seed)
    body = 100.0 * ((x / 18) ** 2 + (y / 16) ** 2 + (z / 10) ** 2 < 1)
    organs = 80 * np.exp(-((x - 6) ** 2 + (y + 5) ** 2 + z**2) / 30) - 60 * np.exp(-((x + 8) ** 2 + (y - 3) ** 2) / 20)
    return body + organs * (body > 0) + rng.normal(0, 1, shape)


def test_one_frame_needs_no_registration():
    target = make(np.zeros((10, 12, 14)), spacing=(2.0, 2.0, 2.0), origin=(0, 0, 0))
    z, y, x = np.indices((20, 24, 28))
    image = make(1.0 * x + 10 * y + 100 * z, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0))
    aligned = sitk.GetArrayFromImage(align(image, target, interpolation="linear", registration="none"))
    z, y, x = np.indices((10, 12, 14))
    np.testing.assert_allclose(aligned, 2.0 * x + 20 * y + 200 * z, atol=1e-9)  # a linear ramp is interpolated exactly


def test_two_frames_do():
    one, other = make(head()), make(head())
    one.SetMetaData(FRAME, "1.2")
    other.SetMetaData(FRAME, "1.3")
    with pytest.raises(CaseError) as error:
        align(one, other, interpolation="linear", registration="none")
    assert error.value.reason == "images have different frames of reference"


def test_what_is_not_covered_is_refused_only_in_the_region():
    target = make(np.zeros((10, 12, 14)), spacing=(1, 1, 1), origin=(0, 0, 0))
    image = make(np.full((5, 12, 14), 7.0), spacing=(1, 1, 1), origin=(0, 0, 0))
    aligned = align(image, target, interpolation="linear", registration="none")
    inside = np.zeros((10, 12, 14), np.uint8)
    inside[2, 3:5, 3:5] = 1
    assert (sitk.GetArrayFromImage(covered(aligned, make(inside))) == 7).all()
    inside[7, 3, 3] = 1
    with pytest.raises(CaseError) as error:
        covered(aligned, make(inside))
    assert error.value.reason == "image does not cover the region"


def test_a_known_movement_is_found():
    spacing = (2.0, 2.0, 3.0)
    target = make(head(), spacing=spacing)
    centre = target.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in target.GetSize()])
    moved = sitk.Euler3DTransform(centre, 0.03, -0.04, 0.08, (5.0, -4.0, 3.0))
    image = sitk.Resample(target, target, moved.GetInverse(), sitk.sitkLinear, 0.0)
    found = rigid(image, target)
    inside = np.argwhere(head(seed=1) > 40)[::200, ::-1].tolist()
    points = [target.TransformIndexToPhysicalPoint(index) for index in inside]
    apart = [np.linalg.norm(np.subtract(found.TransformPoint(p), moved.TransformPoint(p))) for p in points]
    assert np.mean(apart) < 1.0  # millimetre, of voxels of 2 x 2 x 3
    again = rigid(image, target)
    assert again.GetParameters() == found.GetParameters()


def test_n4_takes_out_a_known_field():
    shape = (24, 40, 44)
    z, y, x = ((axis - (n - 1) / 2) / n for axis, n in zip(np.indices(shape), shape, strict=True))
    far = np.sqrt(x**2 + y**2 + z**2)
    body = np.select([far < 0.15, far < 0.3, far < 0.45], [100.0, 160.0, 100.0])
    body += np.abs(np.random.default_rng(0).normal(0, 2, shape))
    image = make(body * np.exp(0.5 * x - 0.4 * y), spacing=(2.0, 2.0, 3.0))
    fixed = sitk.GetArrayFromImage(correct_bias(image))
    ratio = fixed[far < 0.45] / body[far < 0.45]
    assert ratio.std() / ratio.mean() < 0.01  # 0.13 before
    assert np.array_equal(fixed, sitk.GetArrayFromImage(correct_bias(image)))


def test_an_empty_image_has_no_field():
    with pytest.raises(CaseError) as error:
        correct_bias(make(np.zeros((12, 16, 16))))
    assert error.value.reason == "image has no tissue to fit a bias field to"
