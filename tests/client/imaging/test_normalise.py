import numpy as np
import pytest
from scipy import stats

from cohortium.client.imaging.normalise import LANDMARKS, normalise
from cohortium.client.imaging.region import bounding_box
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image
from tests.client.imaging.volumes import ball, textured


def test_a_window_clips():
    values = np.array([[[-1000.0, 0.0, 3000.0]]])
    image = Image(modality="CT", window_hu=(-115.0, 235.0))
    assert normalise(values, values > -2000, image).tolist() == [[[-115.0, 0.0, 235.0]]]


def test_none_keeps_every_value():
    values = textured(0)
    assert normalise(values, ball(), Image(modality="PET")) is values


@pytest.mark.parametrize("method", ["zscore", "histogram"])
def test_scales_are_of_the_regions_bounding_box_alone(method):
    inside, image = ball(radius_mm=6.0), Image(modality="MR", normalise=method)
    box = bounding_box(inside)
    values = textured(3)
    far = values.copy()
    far[0] = 1e6  # a slice outside the box
    scaled = normalise(far, inside, image)[box]
    assert np.array_equal(scaled, normalise(values, inside, image)[box])
    if method == "zscore":
        assert np.allclose(scaled, stats.zscore(values[box], axis=None), rtol=1e-12)
    else:
        expected = stats.norm.ppf(LANDMARKS / 100)
        assert np.allclose(np.percentile(scaled, LANDMARKS), expected, atol=0.01)  # between two voxels of 1,000


@pytest.mark.parametrize("method", ["zscore", "histogram"])
def test_another_gain_and_offset_of_a_scanner_make_no_difference(method):
    inside, image = ball(), Image(modality="MR", normalise=method)
    values = textured(4)
    assert np.allclose(
        normalise(values, inside, image), normalise(7 * values - 300, inside, image), rtol=1e-9, atol=1e-9
    )


def test_a_flat_image_has_no_scale():
    with pytest.raises(CaseError, match="one value only"):
        normalise(np.ones((14, 20, 24)), ball(), Image(modality="MR", normalise="zscore"))


def test_an_image_of_few_values_has_a_histogram():
    values = (textured(5) > 90).astype(float)
    scaled = normalise(values, ball(), Image(modality="MR", normalise="histogram"))
    assert np.isfinite(scaled).all()
    assert len(np.unique(scaled)) == 2
