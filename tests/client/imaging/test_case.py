"""A case with several images: aligned to one grid, corrected, refused where the study says so."""

import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from cohortium.client.imaging.case import CaseFiles, Recipe, case_key, measure
from cohortium.client.imaging.contact_sheet import HEADING, SIDE
from cohortium.client.imaging.examine import examine
from cohortium.client.imaging.slices import neighbouring_slices
from cohortium.common.errors import CaseError, StudyError
from cohortium.common.study import parse_study
from cohortium.common.study_images import DeepFeatures, Image, MaskRegion, RadiomicsFeatures
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.volumes import ball, make, textured

RADIOMICS = RadiomicsFeatures(
    kind="radiomics", images=("ct", "pet"), regions=("tumour",), classes=("firstorder",), bin_count=8
)


@pytest.fixture
def files(tmp_path):
    """CT with a contour, and a PET of other voxels in the same place that holds twice the CT's smooth part."""
    z, y, x = np.indices((14, 20, 24))
    smooth = 50 + 2.0 * x + y + 3.0 * z
    ct = make(smooth)
    wide = make(np.zeros((12, 16, 17)), spacing=(2.0, 2.0, 3.0), origin=(6.0, -24.0, 1.0))
    places = np.stack(np.meshgrid(*map(np.arange, (12, 16, 17)), indexing="ij"), axis=-1)
    mm = places[..., ::-1] * (2.0, 2.0, 3.0) + (6.0, -24.0, 1.0)
    at = (mm - (10.0, -20.0, 5.0)) / (1.0, 1.5, 2.0)
    pet = sitk.GetImageFromArray(2 * (50 + 2.0 * at[..., 0] + at[..., 1] + 3.0 * at[..., 2]))
    pet.CopyInformation(wide)
    for name, image in (("ct", ct), ("pet", pet), ("mask", make(ball().astype(np.uint8)))):
        sitk.WriteImage(image, tmp_path / f"{name}.nrrd")
    place = ("ct", "tumour")
    return CaseFiles(
        "p",
        {"ct": tmp_path / "ct.nrrd", "pet": tmp_path / "pet.nrrd"},
        {place: tmp_path / "mask.nrrd"},
        {place: MaskFile(path="{patient_id}")},
    )


def recipe(**pet):
    images = {"ct": Image(modality="CT"), "pet": Image(modality="PET", grid="ct", **pet)}
    return Recipe(images, {"tumour": MaskRegion()}, {"radiomics": RADIOMICS})


def test_a_region_of_one_image_is_measured_on_another(files):
    values = dict(zip(recipe().radiomics_columns(), measure(files, recipe()).values, strict=True))
    for feature in ("Mean", "Median", "Maximum", "10Percentile"):
        one, other = (values[f"features.radiomics/{i}/tumour/original_firstorder_{feature}"] for i in ("ct", "pet"))
        assert other == pytest.approx(2 * one, rel=1e-9)  # a linear field is interpolated exactly


def test_an_aligned_image_is_shown_where_it_will_be_measured(files):
    seen = examine(files, recipe())
    assert not seen.findings
    assert seen.volumes_ml == {"ct/tumour": pytest.approx(ball().sum() * 3 / 1000)}  # voxels of 3 cubic millimetres
    with Picture.open(io.BytesIO(seen.sheet)) as sheet:
        assert sheet.size == (3 * SIDE, 2 * (SIDE + HEADING))


def test_too_long_voxels_are_refused(files):
    with pytest.raises(CaseError) as error:
        measure(files, recipe(max_anisotropy=1.2))
    assert error.value.reason == "image has voxels longer than the study allows"
    assert len(measure(files, recipe(max_anisotropy=1.5)).values) == 2 * 18


def test_a_part_of_a_mask_file_is_part_of_a_cases_name(files):
    other = files._replace(parts={("ct", "tumour"): MaskFile(path="{patient_id}", label=1)})
    assert case_key(files, recipe()) != case_key(other, recipe())


def test_three_slices_as_channels():
    values, inside = textured(0), ball()
    picture = neighbouring_slices(values, inside, Image(modality="OTHER"))
    assert picture.shape[0] == 3
    assert picture.shape[1] == picture.shape[2]
    assert picture.dtype == np.float32
    assert np.abs(picture).max() <= 1
    last = np.zeros_like(inside)
    last[-1, 3:6, 3:8] = True
    edge = neighbouring_slices(values, last, Image(modality="OTHER"))
    assert np.array_equal(edge[1], edge[2])
    assert not np.array_equal(edge[0], edge[1])


def test_a_network_takes_three_slices():
    from cohortium.client.imaging.deep import load_backbone

    settings = DeepFeatures(
        kind="deep", images=("ct",), regions=("tumour",), network="resnet10", size=(32, 32), slices="2.5d"
    )
    backbone = load_backbone(settings, seed=1, resolve=lambda name: name)
    same = np.repeat(np.linspace(-1, 1, 400, dtype=np.float32).reshape(1, 20, 20), 3, axis=0)
    assert np.array_equal(backbone.embed(same, (32, 32)), backbone.embed(same[0], (32, 32)))
    other = same.copy()
    other[0] *= -1
    assert not np.array_equal(backbone.embed(other, (32, 32)), backbone.embed(same, (32, 32)))


def test_keys_that_are_not_used_change_no_hash():
    assert Image(modality="MR").model_dump(mode="json").keys().isdisjoint({"n4", "grid", "registration"})
    assert "grid" in Image(modality="MR", grid="ct").model_dump(mode="json")


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"ct": {"modality": "CT", "n4": True}}, "n4 corrects MR coils"),
        ({"ct": {"modality": "CT", "registration": "rigid"}}, "registration needs grid"),
        ({"ct": {"modality": "CT", "grid": "mr"}}, "no such image with a grid of its own"),
        ({"ct": {"modality": "CT", "grid": "ct"}}, "no such image with a grid of its own"),
    ],
)
def test_what_does_not_fit_is_refused(tables, says):
    study = {
        "study": {"name": "s", "primary": "e"},
        "endpoint": {"e": {"kind": "binary", "column": "e"}},
        "variable": [{"name": "age", "kind": "continuous"}],
        "split": {"train": ["a", "b", "c"]},
        "model": {"m": {"kind": "logistic", "predictors": ["age"]}},
        "image": tables,
    }
    with pytest.raises(StudyError, match=says):
        parse_study(study)
