"""Contours and segments as hospitals have them: outlines twice, names of another kind of file, skipped slices."""

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging.case import CaseFiles, Recipe
from cohortium.client.imaging.dicom_series import slice_files
from cohortium.client.imaging.examine import examine
from cohortium.client.imaging.read import read_image, read_mask
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image, MaskRegion, RadiomicsFeatures
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.dicom_phantom import box_outline, segmentation, slices, structure_set, write, write_series

VALUES = np.random.default_rng(2).integers(0, 90, (6, 12, 12)).astype(np.int16)
DRAWN = np.zeros(VALUES.shape, dtype=bool)
DRAWN[1:5, 3:8, 3:8] = True


def outlines(levels=(1, 2, 3, 4)):
    return [box_outline(2.5, 7.5, 2.5, 7.5, z) for z in levels]


def part(**named):
    return MaskFile(path="{patient_id}", **named)


@pytest.fixture
def image(tmp_path):
    return read_image(write_series(tmp_path / "ct", slices(VALUES)))


def inside(file, image, wanted=None):
    return sitk.GetArrayFromImage(read_mask(file, image, wanted)) == 1


def test_an_outline_that_is_there_twice_counts_once(tmp_path, image):
    file = write(structure_set({"GTV": [*outlines(), *outlines((2, 3))]}), tmp_path / "rs.dcm")
    assert np.array_equal(inside(file, image), DRAWN)


def test_two_regions_of_one_name_are_told_apart_from_several_names(tmp_path, image):
    both = structure_set({"GTV": outlines(), "gtv": outlines(), "liver": outlines()})
    file = write(both, tmp_path / "rs.dcm")
    for wanted, reason in ((part(roi="GTV"), "regions of one name"), (None, "regions; name one")):
        with pytest.raises(CaseError, match=f"mask holds several {reason}"):
            read_mask(file, image, wanted)


def test_a_name_is_found_in_either_kind_of_file_and_a_label_in_none(tmp_path, image):
    contours = write(structure_set({"GTV": outlines(), "liver": outlines((1,))}), tmp_path / "rs.dcm")
    segments = write(segmentation(slices(VALUES), {"GTV": DRAWN, "liver": ~DRAWN}), tmp_path / "seg.dcm")
    for file in (contours, segments):
        for wanted in (part(roi="gtv"), part(segment="GTV")):
            assert np.array_equal(inside(file, image, wanted), DRAWN)
        with pytest.raises(CaseError, match="mask has no such region"):
            read_mask(file, image, part(roi="spleen"))
        with pytest.raises(CaseError, match=r"no voxels to have a label.*name its roi"):
            read_mask(file, image, part(label=1))


@pytest.mark.parametrize(("levels", "told"), [((1, 2, 3, 4), False), ((1, 2, 4), True)])
def test_a_skipped_slice_is_told(tmp_path, levels, told):
    folder = write_series(tmp_path / "ct", slices(VALUES))
    file = write(structure_set({"GTV": outlines(levels)}), tmp_path / "rs.dcm")
    features = RadiomicsFeatures(kind="radiomics", images=("ct",), regions=("tumour",), bin_count=8)
    recipe = Recipe({"ct": Image(modality="CT")}, {"tumour": MaskRegion()}, {"r": features})
    place = ("ct", "tumour")
    seen = examine(CaseFiles("p", {"ct": folder}, {place: file}, {place: part()}), recipe)
    found = [(reason, refuses) for reason, _, refuses in seen.findings if "empty slices" in reason]
    assert found == ([("mask has empty slices between others", False)] if told else [])


def test_what_windows_leaves_in_a_folder_is_no_slice(tmp_path):
    folder = write_series(tmp_path / "ct", slices(VALUES))
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "desktop.ini").write_bytes(b"x")
    assert len(slice_files(folder)) == len(VALUES)
    assert np.array_equal(sitk.GetArrayFromImage(read_image(folder)), VALUES)
