"""Enhanced DICOM: frames of one file are the volume that slices in files of their own are."""

import copy
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedPETImage

from cohortium.client.imaging.dicom_series import read_slices, series_findings
from cohortium.client.imaging.one_image import Settings, features_of
from cohortium.client.imaging.read import read_image, read_mask
from cohortium.common.errors import CaseError
from tests.client.imaging.dicom_phantom import (
    AXIAL,
    SERIES,
    box_outline,
    enhanced,
    jpeg2000,
    oblique,
    pet,
    segmentation,
    slices,
    structure_set,
    write,
    write_series,
)

SHAPE = (6, 11, 9)
VALUES = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


def same(one, other):
    assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        # decimals of a header
        assert np.allclose(getattr(one, geometry)(), getattr(other, geometry)(), rtol=0, atol=1e-6)
    assert {k: one.GetMetaData(k) for k in one.GetMetaDataKeys()} == {
        k: other.GetMetaData(k) for k in other.GetMetaDataKeys()
    }


@pytest.mark.parametrize("axes", [AXIAL, oblique()])
def test_frames_are_the_volume_of_the_slices(tmp_path, axes):
    series = slices(VALUES, axes)
    for data in series:
        data.RescaleIntercept = -1024
    classic = read_image(write_series(tmp_path / "ct", series), "CT")
    same(read_image(write(enhanced(series), tmp_path / "ct.dcm"), "CT"), classic)
    folder = write(enhanced(series), tmp_path / "alone" / "ct.dcm").parent
    same(read_image(folder, "CT"), classic)


@pytest.mark.parametrize("axes", [AXIAL, oblique()])
def test_a_converted_series_is_the_one_it_was_made_of(tmp_path, axes, caplog):
    """highdicom 0.28 converts (DICOM PS3.17 annex WWW) and reads the geometry of what it made."""
    series = slices(VALUES, axes)
    for data in series:
        data.RescaleIntercept, data.RescaleType, data.Manufacturer = -1024, "HU", "maker"
    converted = LegacyConvertedEnhancedCTImage(series, SERIES, 7, f"{SERIES}.70", 1)
    file = write(converted, tmp_path / "ct.dcm")
    image = read_image(file, "CT")
    same(image, read_image(write_series(tmp_path / "ct", series), "CT"))
    theirs = hd.imread(file).get_volume_geometry()
    sorted_axes = {tuple(np.round(theirs.direction[:, i], 5)) for i in range(3)}
    ours = np.reshape(image.GetDirection(), (3, 3))
    assert all(tuple(np.round(ours[:, i], 5)) in sorted_axes for i in range(2))
    assert sorted(theirs.spacing) == pytest.approx(sorted(image.GetSpacing()), abs=1e-6)


def test_frames_have_slopes_of_their_own(tmp_path):
    series = slices(VALUES)
    for z, data in enumerate(series):
        data.RescaleSlope = 0.5 * (z + 1)
    same(read_image(write(enhanced(series), tmp_path / "ct.dcm")), read_image(write_series(tmp_path / "ct", series)))


def test_compressed_frames(tmp_path):
    packed = jpeg2000(slices(np.abs(VALUES)))
    same(read_image(write(enhanced(packed), tmp_path / "ct.dcm")), read_image(write_series(tmp_path / "ct", packed)))


def test_a_series_may_be_cut_into_several_enhanced_files(tmp_path):
    series = slices(VALUES)
    for number, part in enumerate((series[:2], series[2:])):
        data = enhanced(part)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{SERIES}.9{number}"
        write(data, tmp_path / "cut" / f"{number}.dcm")
    same(read_image(tmp_path / "cut", "CT"), read_image(write_series(tmp_path / "ct", series), "CT"))


def test_a_segmentation_lies_on_the_frames(tmp_path):
    series = slices(VALUES)
    image = read_image(write(enhanced(series), tmp_path / "ct.dcm"), "CT")
    inside = np.zeros(SHAPE, dtype=bool)
    inside[1:4, 3:9, 2:7] = True
    seg = write(segmentation(series, {"GTV": inside}), tmp_path / "seg.dcm")
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(seg, image)), inside)


def test_features_of_an_enhanced_file_and_a_segment_are_those_of_a_series_and_a_contour(tmp_path):
    series = slices(VALUES)
    folder, frames = write_series(tmp_path / "ct", series), write(enhanced(series), tmp_path / "ct.dcm")
    inside, other = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    inside[1:4, 2:9, 2:8], other[5] = True, True
    outlines = [box_outline(1.5, 7.5, 1.5, 8.5, z) for z in (1, 2, 3)]
    rs = write(structure_set({"GTV": outlines, "organ": outlines[:1]}), tmp_path / "rs.dcm")
    seg = write(segmentation(series, {"GTV": inside, "organ": other}), tmp_path / "seg.dcm")
    wanted = {"bin_count": 8, "classes": ("shape", "firstorder")}
    contour = features_of(folder, rs, Settings(roi="GTV", **wanted))
    assert features_of(frames, seg, Settings(segment="gtv", **wanted)) == contour
    assert features_of(frames, seg, Settings(roi="gtv", **wanted)) == contour
    with pytest.raises(CaseError, match="no such region"):
        features_of(frames, seg, Settings(roi="spleen", **wanted))


def moved(z, **elements):
    def apply(series):
        for keyword, value in elements.items():
            setattr(series[z], keyword, value)
        return enhanced(series)

    return apply


def tilted(series):
    for z, data in enumerate(series):
        x, y, depth = data.ImagePositionPatient
        data.ImagePositionPatient = [x, float(y) + 0.3 * z, depth]
    return enhanced(series)


def two_orientations(series):
    data = enhanced(series)
    turned = copy.deepcopy(data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence)
    turned[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.PerFrameFunctionalGroupsSequence[3].PlaneOrientationSequence = turned
    return data


def several_times(series):
    return enhanced([*series, *series], TemporalPositionIndex=[1] * 6 + [2] * 6)


def a_time_cut_short(series):
    return enhanced([*series, *series[:4]], TemporalPositionIndex=[1] * 6 + [2] * 4)


def two_stacks(series):
    return enhanced(series, StackID=["1"] * 3 + ["2"] * 3)


def fewer_frames(series):
    data = enhanced(series)
    data.NumberOfFrames = 5
    return data


def cut(series):
    data = enhanced(series)
    data.PixelData = data.PixelData[:-1000]
    return data


def no_position(series):
    data = enhanced(series)
    del data.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    return data


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda series: enhanced(series[:2] + series[3:]), "image has missing slices"),
        (lambda series: enhanced([*series, series[2]]), "image has a slice twice"),
        (moved(2, ImagePositionPatient=[-12.0, 7.0, 34.4]), "image has unevenly spaced slices"),
        (tilted, "image is sheared (tilted gantry)"),
        (two_orientations, "image mixes orientations"),
        (several_times, "image holds several volumes (4-D)"),
        (a_time_cut_short, "image holds several volumes (4-D)"),
        (two_stacks, "image holds several volumes (4-D)"),
        (fewer_frames, "image is unreadable"),
        (cut, "image is unreadable"),
        (no_position, "image has no position in space"),
        (moved(0, Modality="MR"), "image is of another modality"),
        (moved(0, BurnedInAnnotation="YES"), "image has burned-in annotation"),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, make, reason):
    file = write(make(slices(VALUES)), tmp_path / "ct.dcm")
    with pytest.raises(CaseError) as error:
        read_image(file, "CT")
    assert error.value.reason == reason
    assert str(file) in error.value.detail


def test_what_names_a_patient_is_told_once(tmp_path):
    series = slices(VALUES)
    series[0].PatientName, series[0].PatientBirthDate = "Doe^Jane", "19500101"
    file = write(enhanced(series), tmp_path / "ct.dcm")
    told = [found for found in series_findings(read_slices(file, "image"), "image", "CT") if not found.refuses]
    assert {found.tag[:11] for found in told} == {"(0010,0010)", "(0010,0020)", "(0010,0030)"}
    assert len(told) == 3


def test_a_converted_pet_has_the_suv_of_its_slices(tmp_path: Path, caplog):
    series = pet(np.abs(VALUES))
    for data in series:
        data.Manufacturer = "maker"
    file = write(LegacyConvertedEnhancedPETImage(series, SERIES, 7, f"{SERIES}.70", 1), tmp_path / "pet.dcm")
    classic = read_image(write_series(tmp_path / "pet", series), "PET", "suv_bw")
    same(read_image(file, "PET", "suv_bw"), classic)
