import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging.region import bounding_box
from cohortium.client.imaging.resample import resample, window
from tests.client.imaging.volumes import SPACING_MM, ball, make, pair, textured


def array(image):
    return sitk.GetArrayFromImage(image)


def ramp(shape=(14, 20, 24)):
    """Values that are a linear function of the place in millimetres, which linear interpolation reproduces."""
    z, y, x = np.indices(shape)
    return 3.0 * x * SPACING_MM[0] - 2.0 * y * SPACING_MM[1] + 0.5 * z * SPACING_MM[2]


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_linear_function_of_place_stays_itself(interpolation):
    image, region = make(ramp()), make(ball(radius_mm=6.0).astype(np.uint8))
    crop = resample(image, region, spacing_mm=(1.3, 1.3, 1.3), interpolation=interpolation)
    size = crop.image.GetSize()
    for index in [(0, 0, 0), (size[0] // 2, 1, 2), tuple(n - 1 for n in size)]:
        x, y, z = np.subtract(crop.image.TransformIndexToPhysicalPoint(index), image.GetOrigin())
        # the B-spline is exact away from the mirrored border; 1e-2 of values up to 80
        tolerance = 1e-9 if interpolation == "linear" else 1e-2
        assert crop.image.GetPixel(*index) == pytest.approx(3.0 * x - 2.0 * y + 0.5 * z, abs=tolerance)


def test_grids_share_their_centre():
    image, region = make(textured(0)), make(np.ones((14, 20, 24), dtype=np.uint8))
    crop = resample(image, region, spacing_mm=(2.0, 2.0, 2.0))
    assert crop.image.GetSize() == (12, 15, 14)  # ceil of 24, 30 and 28 mm by 2 mm (IBSI 2.4)

    def centre(volume):
        return volume.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in volume.GetSize()])

    assert centre(crop.image) == pytest.approx(centre(image), abs=1e-12)


def test_the_images_own_spacing_changes_nothing():
    image, region = pair()
    for spacing in (None, SPACING_MM):
        crop = resample(image, region, spacing_mm=spacing, margin=50)
        assert np.array_equal(array(crop.image), array(image))
        assert np.array_equal(array(crop.region), array(region))


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("margin", [0, 3])
def test_a_window_has_the_values_of_the_whole(interpolation, margin):
    # 1.37 mm: no voxel falls half-way between two, where nearest has no answer
    shape = (40, 44, 60)
    image = make(textured(2, shape))
    region = make(ball(shape, radius_mm=7.0, centre=(20, 22, 33)).astype(np.uint8))
    everything = resample(
        image, make(np.ones(shape, dtype=np.uint8)), spacing_mm=(1.37, 1.37, 1.37), interpolation=interpolation
    )
    crop = resample(image, region, spacing_mm=(1.37, 1.37, 1.37), interpolation=interpolation, margin=margin)
    assert all(a < b for a, b in zip(crop.image.GetSize(), everything.image.GetSize(), strict=True))
    start = everything.image.TransformPhysicalPointToIndex(crop.image.GetOrigin())
    box = tuple(slice(s, s + n) for s, n in zip(start, crop.image.GetSize(), strict=True))[::-1]
    # 25 voxels of support leave 1e-14 of the B-spline's tail
    assert np.allclose(array(crop.image), array(everything.image)[box], rtol=1e-10, atol=1e-10)
    inside = bounding_box(array(crop.region) == 1)
    assert all(
        side.start >= margin and n - side.stop >= margin
        for side, n in zip(inside, crop.region.GetSize()[::-1], strict=True)
    )


def test_a_voxel_is_inside_where_half_of_it_is():
    inside = np.zeros((4, 4, 8), dtype=np.uint8)
    inside[:, :, 2:5] = 1  # three voxels of 1 mm: 1.5 of 2 mm
    crop = resample(make(textured(0, (4, 4, 8)), (1, 1, 1)), make(inside, (1, 1, 1)), spacing_mm=(2, 1, 1))
    x = [crop.region.TransformIndexToPhysicalPoint((i, 0, 0))[0] - 10 for i in range(crop.region.GetSize()[0])]
    kept = [place for i, place in enumerate(x) if crop.region.GetPixel(i, 2, 2)]
    assert kept == [2.5, 4.5]  # at 4.5 mm the mask is exactly half


def test_an_axis_whose_margin_leaves_the_image_is_taken_whole():
    lower, upper = window(np.array([2, 8, 5]), np.array([4, 12, 9]), 3, np.array([20, 20, 20]))
    assert lower.tolist() == [0, 5, 2]
    assert upper.tolist() == [20, 15, 12]
    lower, upper = window(np.array([-1, 8, 5]), np.array([4, 21, 9]), 0, np.array([20, 20, 20]))
    assert (lower.tolist(), upper.tolist()) == ([0, 8, 5], [4, 20, 9])
