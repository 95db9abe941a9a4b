"""LBP3D: pyradiomics' own filter, given the names that current SciPy has for what it imports."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from radiomics import imageoperations
from radiomics.featureextractor import RadiomicsFeatureExtractor
from scipy import ndimage, special

from cohortium.client.imaging import lbp3d
from cohortium.client.imaging.radiomics import feature_names, margin, radiomics
from cohortium.client.imaging.resample import resample
from cohortium.common.study_images import Image, RadiomicsFeatures
from tests.client.imaging.volumes import ball, make, textured

SHAPE = (22, 30, 34)
SETTINGS = RadiomicsFeatures(kind="radiomics", images=("x",), regions=("t",), image_types=("LBP3D",), bin_count=16)


def icosphere(subdivisions: int, radius: float) -> SimpleNamespace:
    """trimesh.creation.icosphere, subdivided once: the icosahedron's corners as listed there, and middles of edges."""
    assert (subdivisions, radius) == (1, 1)
    t = (1 + 5**0.5) / 2
    listed = [-1, t, 0, 1, t, 0, -1, -t, 0, 1, -t, 0, 0, -1, t, 0, 1, t, 0, -1, -t, 0, 1, -t, t, 0, -1, t, 0, 1, -t]
    corners = np.reshape([*listed, 0, -1, -t, 0, 1], (12, 3))
    middles = [a + b for i, a in enumerate(corners) for b in corners[:i] if abs(np.linalg.norm(a - b) - 2) < 1e-9]
    points = np.vstack([corners, middles])
    return SimpleNamespace(vertices=points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.fixture
def pyradiomics_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "trimesh.creation", SimpleNamespace(icosphere=icosphere))
    monkeypatch.setitem(sys.modules, "scipy.ndimage.interpolation", ndimage)
    old = lambda m, n, azimuth, polar: special.sph_harm_y(n, m, polar, azimuth)  # noqa: E731 - SciPy exchanged them
    monkeypatch.setattr(special, "sph_harm", old, raising=False)


def case(centre):
    return make(textured(6, SHAPE)), make(ball(SHAPE, radius_mm=7.5, centre=centre).astype(np.uint8))


@pytest.mark.filterwarnings("ignore")  # of pyradiomics on a new numpy
@pytest.mark.parametrize("centre", [(11, 15, 17), (2, 15, 31)])
def test_images_equal_pyradiomics_own(pyradiomics_runs, centre):
    image, region = case(centre)
    inside = sitk.GetArrayFromImage(region) == 1
    theirs = {name: sitk.GetArrayFromImage(i)[inside] for i, name, _ in imageoperations.getLBP3DImage(image, region)}
    found = {name: sitk.GetArrayFromImage(i) for i, name in lbp3d.filtered(image, region)}
    assert tuple(found) == tuple(theirs) == lbp3d.NAMES
    for name, expected in theirs.items():
        np.testing.assert_allclose(found[name][inside], expected, rtol=1e-9, atol=1e-9)
        assert not found[name][~inside].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("centre", [(11, 15, 17), (2, 15, 31)])
def test_features_equal_pyradiomics_own_extractor(pyradiomics_runs, centre):
    image, region = case(centre)
    crop = resample(image, region, spacing_mm=None, margin=margin(SETTINGS, image.GetSpacing()))
    found = radiomics(crop, SETTINGS, Image(modality="OTHER"), name="x")
    extractor = RadiomicsFeatureExtractor(additionalInfo=False, label=1, binCount=16)
    extractor.disableAllImageTypes()
    extractor.enableImageTypeByName("LBP3D")
    expected = {name: float(value) for name, value in extractor.execute(image, region).items()}
    of_filter = {name for name in feature_names(SETTINGS) if name.startswith("lbp-3D")}
    assert len(of_filter) == 3 * 93
    for name in of_filter:
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


def test_a_crop_is_neutral_and_equal_values_are_not_told_apart_by_rounding():
    values = np.round(textured(3, (70, 30, 30)) / 20) * 20  # many neighbours are equal
    inside = ball((70, 30, 30), radius_mm=5, centre=(35, 15, 15)).astype(np.uint8)
    whole = {name: sitk.GetArrayFromImage(i) for i, name in lbp3d.filtered(make(values), make(inside))}
    near = slice(35 - 6 - lbp3d.MARGIN + 4, 35 + 6 + lbp3d.MARGIN - 4)
    cropped = lbp3d.filtered(make(values[near]), make(inside[near]))
    for image, name in cropped:
        np.testing.assert_allclose(sitk.GetArrayFromImage(image), whole[name][near], rtol=0, atol=1e-10)


def test_a_region_of_one_intensity_has_full_patterns_and_no_peak():
    found = {name: i for i, name in lbp3d.filtered(make(np.full(SHAPE, 7.0)), case((11, 15, 17))[1])}
    inside = sitk.GetArrayFromImage(case((11, 15, 17))[1]) == 1
    kurtosis = sitk.GetArrayFromImage(found["lbp-3D-k"])[inside]
    assert (kurtosis == -3).all()
    first = sitk.GetArrayFromImage(found["lbp-3D-m1"])[inside]
    np.testing.assert_allclose(first, 42 / (4 * np.pi) * np.sqrt(42), rtol=1e-12)
