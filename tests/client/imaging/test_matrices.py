"""Texture matrices against pyradiomics' own compiled ones."""

import numpy as np
import pytest
from radiomics import cMatrices

from cohortium.client.imaging.classes import first_order
from cohortium.client.imaging.matrices import matrices
from cohortium.client.imaging.region import bounding_box
from tests.client.imaging.volumes import ball, textured

DISTANCE = np.array([1])


def by_direction(counts):
    """A matrix of each direction, in an order that does not depend on how directions are numbered."""
    return sorted(counts[..., d].astype(np.int64).tobytes() for d in range(counts.shape[-1]))


def assert_equal(levels, flat):
    inside, n_levels = levels > 0, int(levels.max())
    found = matrices(levels, flat=flat)
    rows = found.levels - 1
    pairs = cMatrices.calculate_glcm(levels, inside, DISTANCE, n_levels, flat, 0)[0][0][rows][:, rows]
    # pyradiomics may count a direction or its opposite; symmetric matrices are the same
    assert by_direction(pairs + pairs.transpose(1, 0, 2)) == by_direction(found.glcm + found.glcm.transpose(1, 0, 2))
    runs = cMatrices.calculate_glrlm(levels, inside, n_levels, max(levels.shape), flat, 0)[0][0][rows]
    ours = np.zeros_like(runs)
    ours[:, : found.glrlm.shape[1]] = found.glrlm
    assert by_direction(runs) == by_direction(ours)
    alike = cMatrices.calculate_gldm(levels, inside, DISTANCE, n_levels, 0, flat, 0)[0][rows]
    width = min(alike.shape[1], found.gldm.shape[1])
    np.testing.assert_array_equal(alike[:, :width], found.gldm[:, :width])
    assert alike.sum() == found.gldm.sum() == inside.sum()
    tones = cMatrices.calculate_ngtdm(levels, inside, DISTANCE, n_levels, flat, 0)[0][rows]
    np.testing.assert_array_equal(tones[:, 0], found.voxels)
    np.testing.assert_allclose(tones[:, 1], found.ngtdm, rtol=1e-12, atol=1e-12)
    zones = cMatrices.calculate_glszm(levels, inside, n_levels, int(inside.sum()), flat, 0)[0][rows]
    np.testing.assert_array_equal(zones[:, : found.glszm.shape[1]], found.glszm)
    assert zones.sum() == found.glszm.sum()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_small_and_scattered_regions(seed, flat):
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 9, 3)
    shape[seed % 3] = rng.integers(1, 3)  # thin ones too
    shape[1:] = np.maximum(shape[1:], 2)
    levels = rng.integers(1, rng.integers(2, 9), shape) * (rng.random(shape) < rng.choice([0.3, 0.7, 1.0]))
    levels.flat[[0, -1]] = 1
    assert_equal(levels, flat)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("width", [0.1, 8.0, 60.0])  # hundreds of levels, twenty, and long runs
def test_a_textured_ball(width, flat):
    inside = ball((20, 26, 30), radius_mm=12.0)
    values = textured(3, (20, 26, 30))
    levels = np.where(inside, np.floor((values - values[inside].min()) / width) + 1, 0).astype(np.int64)
    assert_equal(levels[bounding_box(inside)], flat)


def test_a_single_voxel_has_no_neighbours():
    with pytest.raises(ValueError, match="no neighbours"):
        matrices(np.ones((1, 1, 1), dtype=np.int64))


def test_first_order_percentiles_are_numpys():
    rng = np.random.default_rng(1)
    for n in (1, 3, 7, 1000):
        values = rng.normal(size=n)
        found = first_order(values, np.array([n]), 1.0)
        assert found["10Percentile"] == np.percentile(values, 10)
        assert found["90Percentile"] == np.percentile(values, 90)
        assert found["Median"] == np.percentile(values, 50)
