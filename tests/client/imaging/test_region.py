import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from cohortium.client.imaging.region import bounding_box, check_extent, ring
from cohortium.common.errors import CaseError
from tests.client.imaging.volumes import SPACING_MM, ball, make


def test_a_ring_lies_between_two_distances():
    inside = ball(radius_mm=6.0)
    found = sitk.GetArrayFromImage(ring(make(inside.astype(np.uint8)), 1.0, 4.0)) == 1
    # scipy's exact distance to the nearest voxel of the region, another implementation of the same transform
    distance_mm = ndimage.distance_transform_edt(~inside, sampling=SPACING_MM[::-1])
    assert np.array_equal(found, (distance_mm > 1.0 + 1e-6) & (distance_mm <= 4.0 + 1e-6))
    assert not (found & inside).any()


def test_a_bounding_box_holds_everything_and_no_more():
    inside = np.zeros((5, 6, 7), dtype=bool)
    inside[1, 2, 3] = inside[3, 2, 6] = True
    assert bounding_box(inside) == (slice(1, 4), slice(2, 3), slice(3, 7))


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0, 0, 0), "region vanishes at the study's spacing"),
        ((1, 1, 1), "region is smaller than a plane of voxels"),
        ((1, 1, 4), "region is smaller than a plane of voxels"),
    ],
)
def test_a_region_too_small_for_texture(box, reason):
    inside = np.zeros((5, 5, 5), dtype=np.uint8)
    inside[: box[0], : box[1], : box[2]] = 1
    with pytest.raises(CaseError) as error:
        check_extent(make(inside))
    assert error.value.reason == reason


def test_a_flat_region_is_enough():
    inside = np.zeros((5, 5, 5), dtype=np.uint8)
    inside[2, 1:3, 1:4] = 1
    check_extent(make(inside))
