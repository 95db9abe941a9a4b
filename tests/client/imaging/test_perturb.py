"""Perturbed contours: as much volume as promised, near the original, the same again; features as of any contour."""

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging import case as case_module
from cohortium.client.imaging import radiomics as radiomics_module
from cohortium.client.imaging.case import CaseFiles, Recipe, case_key, measure
from cohortium.client.imaging.perturb import (
    CERTAIN,
    NEVER,
    REACH_MM,
    VOLUME,
    adapted,
    perturbed,
    randomised,
    supervoxels,
)
from cohortium.client.imaging.radiomics import radiomics, radiomics_of_contours
from cohortium.client.imaging.resample import Crop
from cohortium.client.imaging.scale import on_scale
from cohortium.common.study_images import Image, MaskRegion, RadiomicsFeatures, RingRegion
from cohortium.common.table import perturbed as column_of
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.volumes import SPACING_MM, ball, make, textured, write_case

SHAPE = (20, 30, 34)
CT = Image(modality="CT")


def inside_of(region) -> np.ndarray:
    return sitk.GetArrayFromImage(region) == 1


def dice(one, other) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def crop_of(seed=0, shape=SHAPE, spacing=SPACING_MM, **of_ball) -> Crop:
    inside = ball(shape, spacing=spacing, **of_ball)
    values = textured(seed, shape) + 60 * inside
    return Crop(make(values, spacing), make(inside.astype(np.uint8), spacing))


@pytest.fixture(scope="module")
def crop() -> Crop:
    return crop_of(radius_mm=12.0)


def settings(**more) -> RadiomicsFeatures:
    given = {"kind": "radiomics", "images": ("ct",), "regions": ("tumour",), "bin_width": {"ct": 10.0}}
    return RadiomicsFeatures(**{**given, "classes": ("shape", "firstorder", "glcm"), **more})


@pytest.mark.parametrize("share", [-0.15, -0.04, 0.0, 0.07, 0.15])
def test_the_volume_changes_by_the_share_to_the_voxel(crop, share):
    inside = inside_of(crop.region)
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(crop.region, False, False, True))
    found = adapted(inside, distance, share, np.random.default_rng(0))
    assert found.sum() == round(inside.sum() * (1 + share))
    assert not (inside & ~found).any() or not (found & ~inside).any()  # grown or shrunk, not moved


def test_supervoxels_are_in_by_chance_of_their_share():
    inside = ball(SHAPE, radius_mm=12.0)
    cells = supervoxels(textured(0, SHAPE), inside, SPACING_MM)  # no edge where the contour is
    voxels = np.bincount(cells.ravel())
    share = np.bincount(cells[inside], minlength=len(voxels)) / np.maximum(voxels, 1)
    draws = 400
    random = np.random.default_rng(3)
    found = np.zeros(cells.shape)
    for _ in range(draws):
        found += randomised(inside, cells, random)
    rate = np.array([found[cells == cell].mean() if voxels[cell] else np.nan for cell in range(len(voxels))]) / draws
    assert np.nanmin(rate[share >= CERTAIN]) == 1
    between = (share >= NEVER) & (share < CERTAIN) & (share < share.max())
    assert between.sum() > 20
    # closing adds a few voxels; four standard deviations of a share of 400 draws
    assert (rate[between] > share[between] - 4 * 0.5 / draws**0.5).all()
    assert (rate[between] < share[between] + 4 * 0.5 / draws**0.5 + 0.1).all()
    assert np.nanmax(rate[share == 0]) < 0.2  # what closing adds


def test_contours_stay_near_and_are_the_same_again(crop):
    inside = inside_of(crop.region)
    contours = [inside_of(region) for region in perturbed(crop, list(range(30)))]
    overlaps = [dice(inside, other) for other in contours]
    assert min(overlaps) > 0.8
    assert max(overlaps) < 1
    changes = [other.sum() / inside.sum() - 1 for other in contours]
    assert abs(np.mean(changes)) < 0.1  # neither larger nor smaller on the whole
    assert max(np.abs(changes)) < 2 * VOLUME + 0.1
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(crop.region, False, False, True))
    assert max(distance[other].max() for other in contours) <= REACH_MM
    again = [inside_of(region) for region in perturbed(crop, [7, 29])]
    assert np.array_equal(again[0], contours[7])
    assert np.array_equal(again[1], contours[29])
    assert len({other.tobytes() for other in contours}) > 20  # the edge is sharp: few supervoxels cross it


@pytest.mark.parametrize(
    ("shape", "spacing", "of_ball"),
    [
        ((1, 40, 44), (1.0, 1.5, 5.0), {"radius_mm": 11.0}),  # one slice
        ((20, 30, 34), SPACING_MM, {"radius_mm": 12.0, "centre": (2, 3, 4)}),  # at the border of the image
        ((8, 8, 8), (2.0, 2.0, 2.0), {"radius_mm": 4.0}),  # less than a supervoxel
        ((9, 10, 11), (2.0, 2.0, 2.0), {"radius_mm": 50.0}),  # all of the image
    ],
)
def test_thin_cut_off_and_tiny_regions(shape, spacing, of_ball):
    crop = crop_of(shape=shape, spacing=spacing, **of_ball)
    for region in perturbed(crop, [1, 2, 3, 4]):
        assert region.GetSize() == crop.region.GetSize()
        assert region.GetOrigin() == crop.region.GetOrigin()
        assert dice(inside_of(crop.region), inside_of(region)) > 0.6


def test_contours_do_not_depend_on_threads(crop):
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append([inside_of(region) for region in perturbed(crop, [1, 2, 3])])
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert np.array_equal(*found)


def test_a_region_of_one_value_has_contours_too():
    crop = Crop(make(np.full(SHAPE, 7.0)), make(ball(SHAPE).astype(np.uint8)))
    assert dice(ball(SHAPE), inside_of(perturbed(crop, [1])[0])) > 0.6


TYPES = {"image_types": ("Original", "Wavelet", "LoG", "Square", "Gradient"), "log_sigma_mm": (2.0,)}


def test_features_of_a_contour_are_those_it_has_alone(crop, monkeypatch):
    others = perturbed(crop, [1, 2, 3])
    calls = []
    for name in ("Wavelet", "LoG", "Gradient"):
        used = getattr(radiomics_module.imageoperations, f"get{name}Image")
        monkeypatch.setattr(
            radiomics_module.imageoperations,
            f"get{name}Image",
            lambda *given, used=used, name=name, **more: calls.append(name) or used(*given, **more),
        )
    wanted = settings(**TYPES)
    own, *found = radiomics_of_contours(crop, others, wanted, CT, name="ct")
    assert sorted(calls) == ["Gradient"] * 2 + ["LoG"] * 2 + ["Wavelet"] * 2  # the site's own, and all others at once
    assert own == radiomics(crop, wanted, CT, name="ct")  # to the last bit
    for other, values in zip(others, found, strict=True):
        alone = radiomics(crop._replace(region=other), wanted, CT, name="ct")
        assert list(values) == list(alone)
        # ITK computes LoG in single precision, and a crop of other bounds rounds otherwise
        for name, value in values.items():
            assert value == pytest.approx(alone[name], rel=1e-3 if "log-" in name else 1e-8, abs=1e-8), name
        assert values != own


@pytest.fixture
def files(tmp_path):
    image, mask = write_case(tmp_path, seed=2, shape=SHAPE)
    place = ("ct", "tumour")
    return CaseFiles("p1", {"ct": image}, {place: mask}, {place: MaskFile(path="{patient_id}")})


def recipe(times, image=CT, *, seed=3, regions=("tumour",), **more) -> Recipe:
    known = {"tumour": MaskRegion(), "rim": RingRegion(source="ring", of="tumour", outer_mm=4.0)}
    features = settings(classes=("shape", "firstorder"), perturbations=times, regions=regions, **more)
    return Recipe({"ct": image}, known, {"r": features}, seed)


def values_of(files, recipe) -> dict:
    return dict(zip(recipe.radiomics_columns(), measure(files, recipe).values, strict=True))


def test_a_case_with_contours_has_its_own_values_first_and_unchanged(files):
    plain = values_of(files, recipe(0, regions=("tumour", "rim")))
    found = values_of(files, recipe(2, regions=("tumour", "rim")))
    assert list(found)[: len(plain)] == list(plain)
    assert {name: found[name] for name in plain} == plain
    assert len(found) == 3 * len(plain)
    for region in ("tumour", "rim"):  # a ring lies around the perturbed contour
        name = f"features.r/ct/{region}/original_shape_VoxelVolume"
        assert len({found[name], found[column_of(name, 1)], found[column_of(name, 2)]}) == 3


def test_a_scale_taken_from_the_region_is_taken_from_each_contour(files):
    scaled = Image(modality="MR", normalise="zscore")
    asked = recipe(1, scaled)
    found = values_of(files, asked)
    crop = case_module._on_study_grid(
        sitk.ReadImage(files.images["ct"]), sitk.ReadImage(files.masks["ct", "tumour"]), "ct", "tumour", asked
    )
    (other,) = case_module._contours(files, "ct", "tumour", crop, asked)
    of_other = on_scale(crop._replace(region=other), scaled, asked.features["r"])
    expected = radiomics(of_other, asked.features["r"], scaled, name="ct")
    name = "original_firstorder_Mean"
    assert found[column_of(f"features.r/ct/tumour/{name}", 1)] == pytest.approx(expected[name], rel=1e-9)


@pytest.mark.parametrize("image", [CT, Image(modality="MR", normalise="zscore")])
def test_a_contour_that_cannot_be_measured_is_a_finding_and_costs_no_patient(files, monkeypatch, image):
    one_voxel = np.zeros(SHAPE, dtype=np.uint8)
    one_voxel[10, 15, 17] = 1

    def second_fails(crop, seeds):
        regions = perturbed(crop, seeds)
        regions[1] = sitk.GetImageFromArray(one_voxel)
        regions[1].CopyInformation(crop.region)
        return regions

    monkeypatch.setattr(case_module, "perturbed", second_fails)
    # the crop is the whole image: its margin reaches every border
    monkeypatch.setattr(case_module, "REACH_MM", 100.0)
    measured = measure(files, recipe(2, image))
    columns = measured.values.reshape(3, -1)
    assert np.isfinite(columns[[0, 1]]).all()
    assert np.isnan(columns[2]).all()
    where = "image ct, region tumour: contour 2"
    assert measured.findings == [["perturbed contour cannot be measured", where, False]]


def test_what_a_finished_case_is_known_by(files):
    other = files._replace(patient_id="p2")
    assert case_key(files, recipe(0)) == case_key(other, recipe(0)) == case_key(files, recipe(0, seed=4))
    keys = {case_key(files, recipe(2)), case_key(other, recipe(2)), case_key(files, recipe(2, seed=4))}
    assert len(keys | {case_key(files, recipe(0)), case_key(files, recipe(3))}) == 5


def test_patients_and_seeds_draw_other_contours(files):
    name = column_of("features.r/ct/tumour/original_shape_VoxelVolume", 1)
    first = values_of(files, recipe(1))[name]
    assert values_of(files, recipe(1))[name] == first
    assert values_of(files._replace(patient_id="p2"), recipe(1))[name] != first
    assert values_of(files, recipe(1, seed=4))[name] != first
