import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from cohortium.client.imaging.dicom_pixels import check_segments, codestream_shape
from cohortium.client.imaging.dicom_series import read_slices, series_findings, slice_files
from cohortium.client.imaging.read import mask_findings, part_named, read_image, read_mask
from cohortium.client.imaging.rtstruct import fill
from cohortium.common.errors import CaseError
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.dicom_phantom import (
    AXIAL,
    FRAME,
    ORIGIN_MM,
    SPACING_MM,
    STUDY,
    box_outline,
    compressed,
    enhanced,
    jpeg2000,
    oblique,
    place,
    segmentation,
    slices,
    structure_set,
    write,
    write_series,
)

REFERENCE = Path(os.environ.get("COHORTIUM_REFERENCE_DATA", Path(__file__).parents[4] / "shared" / "reference"))
SHAPE = (6, 11, 9)
VALUES = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="reference data is absent; set COHORTIUM_REFERENCE_DATA"
)


def roi(*names):
    return MaskFile(path="{patient_id}.dcm", roi=names)


def segment(*names):
    return MaskFile(path="{patient_id}.dcm", segment=names)


def refusal(read, *args):
    with pytest.raises(CaseError) as error:
        read(*args)
    return error.value.reason


def voxels(image):
    return sitk.GetArrayFromImage(image)


@pytest.mark.parametrize("axes", [AXIAL, oblique()])
def test_a_series_is_read_at_its_place(tmp_path, axes):
    image = read_image(write_series(tmp_path / "ct", slices(VALUES, axes)), "CT")
    assert np.array_equal(voxels(image), VALUES)
    assert np.allclose(image.GetSpacing(), SPACING_MM, atol=1e-5)
    assert np.allclose(image.GetOrigin(), ORIGIN_MM, atol=1e-5)
    assert np.allclose(image.TransformIndexToPhysicalPoint((3, 2, 4)), place((3, 2, 4), axes), atol=1e-4)


def test_compressed_slices_are_those_that_were_stored(tmp_path):
    values = np.abs(VALUES)
    values[0, 0, 0] = 32767
    packed = jpeg2000(slices(values))
    for data in packed:
        data.RescaleIntercept = -1024
    assert np.array_equal(voxels(read_image(write_series(tmp_path, packed), "CT")), values.astype(int) - 1024)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1, RLELossless, JPEGBaseline8Bit])
def test_every_way_to_compress_gives_the_stored_values(tmp_path, syntax):
    values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    lossy = syntax == JPEGBaseline8Bit
    values = np.linspace(0, 32767, values.size).reshape(SHAPE).astype(np.int16) if lossy else values
    series = slices(values)
    packed = compressed(series, syntax)
    read = voxels(read_image(write_series(tmp_path / "slices", packed), "CT"))
    frames = voxels(read_image(write(enhanced(packed), tmp_path / "frames.dcm"), "CT"))
    assert np.array_equal(read, frames)
    # quality 95 of a smooth image
    assert np.abs(read - (values >> 8)).max() <= 3 if lossy else np.array_equal(read, values)


@pytest.mark.parametrize("format_name", ["JPEG", "JPEG2000"])
def test_a_stream_says_its_own_size(format_name):
    stream = io.BytesIO()
    options = {"no_jp2": True} if format_name == "JPEG2000" else {}
    Image.fromarray(np.zeros((11, 9), np.uint8)).save(stream, format_name, **options)
    assert codestream_shape(stream.getvalue()) == (11, 9)
    with pytest.raises(ValueError, match="codestream"):
        codestream_shape(b"not a stream")


def test_samples_of_an_impossible_size_never_reach_the_decoder():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((11, 9), np.uint8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    data[data.index(b"\xff\xc0") + 4] = 144
    with pytest.raises(ValueError, match="bits"):
        codestream_shape(bytes(data))


@pytest.mark.parametrize("segments", [(0, 64), (1, 64), (2, 64, 64), (2, 66, 80), (2, 64, 100), (20, 64, 80)])
def test_segments_that_are_none_never_reach_the_decoder(segments):
    check_segments(struct.pack("<16I", 2, 64, 80, *[0] * 13) + bytes(36), 2)
    with pytest.raises(ValueError, match="segments"):
        check_segments(struct.pack("<16I", *segments, *[0] * (16 - len(segments))) + bytes(36), 2)


def test_a_jpeg_ls_stream_does_too():
    import jpeg_ls

    assert codestream_shape(bytes(jpeg_ls.encode_array(np.zeros((11, 9), np.uint8)))) == (11, 9)


@pytest.mark.parametrize(("signed", "expected"), [(1, [-1, 2047, -2048, 5]), (0, [4095, 2047, 2048, 5])])
def test_bits_above_the_stored_ones_are_no_part_of_a_value(tmp_path, signed, expected):
    series = slices(np.array([0x0FFF, 0x07FF, 0xF800, 0x3005], dtype=np.uint16).astype(np.int16).reshape(1, 2, 2))
    every(BitsStored=12, HighBit=11, PixelRepresentation=signed)(series)
    assert voxels(read_image(write_series(tmp_path, series))).ravel().tolist() == expected


def test_slices_with_rescaling_of_their_own_keep_their_fractions(tmp_path):
    series = slices(VALUES)
    for z, data in enumerate(series):
        data.RescaleSlope = 1 if z == 0 else 0.5
    image = voxels(read_image(write_series(tmp_path, series)))
    assert np.array_equal(image[1:], VALUES[1:] * 0.5)


def change(**elements):
    def apply(series):
        for keyword, value in elements.items():
            setattr(series[2], keyword, value)

    return apply


def drop(series):
    del series[2]


def twice(series):
    series.append(series[2])


def two_times(series):
    series += slices(VALUES)


def tilt(series):
    for z, data in enumerate(series):
        x, y, depth = data.ImagePositionPatient
        data.ImagePositionPatient = [x, float(y) + 0.3 * z, depth]


def every(**elements):
    def apply(series):
        for data in series:
            for keyword, value in elements.items():
                setattr(data, keyword, value)

    return apply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop, "image has missing slices"),
        (twice, "image has a slice twice"),
        (two_times, "image holds several volumes (4-D)"),
        (tilt, "image is sheared (tilted gantry)"),
        (change(ImagePositionPatient=[-12.0, 7.0, 33.3]), "image has unevenly spaced slices"),
        (change(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "image mixes orientations"),
        (change(ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0]), "image has axes that are not at right angles"),
        (change(PixelSpacing=[1.0, 1.6]), "image has slices of several pixel spacings"),
        (change(FrameOfReferenceUID="1.2.3"), "image has several frames of reference"),
        (change(SeriesInstanceUID="1.2.3"), "image folder does not hold one DICOM series"),
        (change(PatientID="somebody else"), "image has slices of several patients"),
        (change(StudyInstanceUID="1.2.3"), "image has slices of several examinations"),
        (change(Modality="MR"), "image has slices of several modalities"),
        (change(NumberOfFrames=2), "image is a multi-frame file; export it as single slices"),
        (change(SamplesPerPixel=3), "image has several channels"),
        (change(Rows=10_000), "image is unreadable"),
        (change(PixelSpacing=None), "image has no position in space"),
        (every(Modality="MR"), "image is of another modality"),
        (change(BurnedInAnnotation="YES"), "image has burned-in annotation"),
        (every(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "image is a secondary capture"),
    ],
)
def test_what_is_no_volume_is_refused_with_file_and_tag_only(tmp_path, spoil, reason):
    series = slices(VALUES)
    spoil(series)
    with pytest.raises(CaseError) as error:
        read_image(write_series(tmp_path / "ct", series), "CT")
    assert error.value.reason == reason
    assert str(tmp_path / "ct") in error.value.detail
    assert "(" in error.value.detail
    assert "somebody" not in str(error.value)


def test_what_is_doubtful_is_told_and_does_not_refuse(tmp_path):
    series = slices(VALUES)
    every(SOPInstanceUID="", PatientName="Doe^Jane", PatientBirthDate="19500101", Modality="PT", Units="BQML")(series)
    series[0].add_new((0x6000, 0x3000), "OW", b"\0\0")
    folder = write_series(tmp_path, series)
    read_image(folder, "PET")
    found = series_findings(
        [found for file in slice_files(folder) for found in read_slices(file, "image")], "image", "PET"
    )
    assert not any(finding.refuses for finding in found)
    tags = {(finding.reason, finding.tag) for finding in found}
    assert tags == {
        ("image has blank instance UIDs", "(0008,0018) SOP Instance UID"),
        ("image is not in SUV", "(0054,1001) Units"),
        ("image has overlays", "(6000,3000) Overlay Data"),
        ("image may identify its patient", "(0010,0010) Patient's Name"),
        ("image may identify its patient", "(0010,0020) Patient ID"),
        ("image may identify its patient", "(0010,0030) Patient's Birth Date"),
    }
    assert not any("Jane" in str(finding) or "1950" in str(finding) for finding in found)


def test_a_pseudonym_is_no_finding(tmp_path):
    folder = write_series(tmp_path, slices(VALUES))
    assert not series_findings(
        [found for file in slice_files(folder) for found in read_slices(file, "image")], "image", "CT"
    )


@pytest.mark.parametrize("axes", [AXIAL, oblique()])
def test_contours_with_holes_on_straight_and_oblique_slices(tmp_path, axes):
    image = read_image(write_series(tmp_path / "ct", slices(VALUES, axes)))
    outer = [box_outline(0.5, 7.5, 1.5, 9.5, z, axes) for z in (1, 2, 3)]
    inner = [box_outline(2.5, 4.5, 3.5, 6.5, z, axes) for z in (2, 3)]
    file = write(structure_set({"GTV": [*outer, *inner], "other": outer[:1]}), tmp_path / "rs.dcm")
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[1:4, 2:10, 1:8] = 1
    expected[2:4, 4:7, 3:5] = 0
    region = read_mask(file, image, roi("GTV-1", "gtv"))
    assert np.array_equal(voxels(region), expected)
    assert region.GetDirection() == image.GetDirection()


def test_a_keyhole_is_a_hole():
    outer = [(0.5, 0.5), (6.5, 0.5), (6.5, 6.5), (0.5, 6.5), (0.5, 3.5)]
    inner = [(2.5, 3.5), (2.5, 4.5), (4.5, 4.5), (4.5, 2.5), (2.5, 2.5), (2.5, 3.5)]
    keyhole = np.array([*outer, *inner, (0.5, 3.5)])
    apart = [np.array(outer), np.array(inner)]
    filled = fill([keyhole], (8, 8))
    assert filled.sum() == 36 - 4
    assert np.array_equal(filled, fill(apart, (8, 8)))


def test_filling_agrees_with_matplotlib_on_random_polygons():
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(30)), axis=-1).reshape(-1, 2)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 25))
        points = np.array([20, 15]) + rng.uniform(3, 14, (25, 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
        inside = Outline(points).contains_points(grid).reshape(30, 40)
        assert np.array_equal(fill([points], (30, 40)), inside)


@pytest.mark.parametrize(
    ("contours", "reason"),
    [
        ([box_outline(0.5, 3.5, 0.5, 3.5, 1.5)], "contours lie between the image's slices"),
        ([place(np.array([(2, 2, 1), (5, 2, 2), (5, 2, 4)]))], "contours lie in other planes than the image's slices"),
        ([box_outline(0.5, 30.5, 0.5, 3.5, 1)], "mask lies outside the image"),
        ([box_outline(0.5, 3.5, 0.5, 3.5, z) for z in (0, 2, 4)], "contours skip slices of the image"),
        ([box_outline(0.5, 0.7, 0.5, 3.5, 1)], "mask is empty"),
    ],
)
def test_contours_that_do_not_fit(tmp_path, contours, reason):
    image = read_image(write_series(tmp_path / "ct", slices(VALUES)))
    file = write(structure_set({"GTV": contours}), tmp_path / "rs.dcm")
    assert refusal(read_mask, file, image) == reason


def test_regions_are_named_and_belong_to_the_image(tmp_path):
    image = read_image(write_series(tmp_path / "ct", slices(VALUES)))
    contours = [box_outline(0.5, 3.5, 0.5, 3.5, z) for z in (1, 2)]
    both = structure_set({"GTV": contours, "liver": contours})
    file = write(both, tmp_path / "rs.dcm")
    assert refusal(read_mask, file, image) == "mask holds several regions; name one"
    assert refusal(read_mask, file, image, roi("spleen")) == "mask has no such region"
    both.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"
    assert refusal(read_mask, write(both, file), image, roi("GTV")) == "mask has contours that are not closed"
    both.PatientID = "p1"
    assert refusal(read_mask, write(both, file), image, roi("liver")) == "mask and image are of different patients"
    both.PatientID = "p0"
    both.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    assert (
        refusal(read_mask, write(both, file), image, roi("liver"))
        == "mask and image have different frames of reference"
    )
    both.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = FRAME
    both.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    reason = "mask and image have different frames of reference"
    assert refusal(read_mask, write(both, file), image, roi("liver")) == reason


def test_contours_of_another_examination_are_told(tmp_path):
    series = slices(VALUES)
    image = read_image(write_series(tmp_path / "ct", series))
    contours = [box_outline(0.5, 3.5, 0.5, 3.5, z) for z in (1, 2)]
    drawn = structure_set({"GTV": contours})
    for data in (drawn, segmentation(series, {"GTV": np.ones(SHAPE, dtype=bool)})):
        assert mask_findings(write(data, tmp_path / "own.dcm"), image) == []
        data.StudyInstanceUID = "1.2.3.4567"
        file = write(data, tmp_path / "another.dcm")
        (told,) = mask_findings(file, image)
        assert (told.reason, told.refuses) == ("mask and image are of different examinations", False)
        assert told.where == f"{file}: (0020,000D) Study Instance UID"
        read_mask(file, image)
        data.FrameOfReferenceUID = "1.2.3.4568"
        if data is drawn:
            data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3.4568"
        reason = "mask and image have different frames of reference"
        with pytest.raises(CaseError, match=reason) as error:
            read_mask(write(data, tmp_path / "elsewhere.dcm"), image)
        assert "4568" not in str(error.value)
    drawn.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = FRAME
    study = Dataset()
    study.ReferencedSOPInstanceUID = STUDY  # drawn on the image's examination, and stored as another
    drawn.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = [study]
    assert mask_findings(write(drawn, tmp_path / "refers.dcm"), image) == []


@pytest.mark.parametrize("axes", [AXIAL, oblique()])
def test_segments_are_placed_by_their_own_geometry(tmp_path, axes):
    series = slices(VALUES, axes)
    image = read_image(write_series(tmp_path / "ct", series))
    tumour, liver = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    tumour[2:4, 3:6, 2:5] = True
    tumour[5, 1, 1] = True  # an empty slice between
    liver[1:3, 6:9, 5:8] = True
    file = write(segmentation(series, {"tumour": tumour, "liver": liver}), tmp_path / "seg.dcm")
    assert np.array_equal(voxels(read_mask(file, image, segment("Tumour"))), tumour)
    assert np.array_equal(voxels(read_mask(file, image, segment(2))), liver)
    assert refusal(read_mask, file, image) == "mask holds several regions; name one"
    assert refusal(read_mask, file, image, segment("spleen")) == "mask has no such region"
    shifted = sitk.Image(image)
    shifted.SetOrigin(np.add(image.GetOrigin(), 0.4).tolist())
    assert refusal(read_mask, file, shifted, segment("liver")) == "mask and image differ in geometry"
    smaller = sitk.Image(image)[:6, :, :]
    assert refusal(read_mask, file, smaller, segment("liver")) == "mask lies outside the image"


def test_a_name_means_what_the_file_has(tmp_path):
    series = slices(VALUES)
    image = read_image(write_series(tmp_path / "ct", series))
    first, second = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    first[1, 2:5, 2:5], second[2, 3:7, 3:7] = True, True
    seg = write(segmentation(series, {"tumour": first, "1": second}), tmp_path / "seg.dcm")
    labels = sitk.GetImageFromArray(first.astype(np.uint8) + 2 * second.astype(np.uint8))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, tmp_path / "labels.nii.gz")
    outline = [box_outline(2.5, 6.5, 2.5, 6.5, 2)]
    contours = {"GTV": outline, "1": [box_outline(0.5, 1.5, 0.5, 1.5, 2)]}
    rs = write(structure_set(contours), tmp_path / "rs.dcm")
    for file, name, expected in (
        (seg, "Tumour", first),
        (seg, "1", second),  # a label goes before a number
        (seg, "2", second),
        (tmp_path / "labels.nii.gz", "2", second),
        (rs, "gtv", second),
    ):
        assert np.array_equal(voxels(read_mask(file, image, part_named(file, name))), expected)
    assert refusal(read_mask, seg, image, part_named(seg, "spleen")) == "mask has no such region"
    assert part_named(tmp_path / "away.dcm", "GTV").roi == ("GTV",)


def test_a_label_of_a_mask(tmp_path):
    image = sitk.GetImageFromArray(VALUES)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:4], labels[4] = 1, 2
    sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "labels.nii.gz")
    part = MaskFile(path="{patient_id}", label=2)
    assert np.array_equal(voxels(read_mask(tmp_path / "labels.nii.gz", image, part)), labels == 2)
    assert refusal(read_mask, tmp_path / "labels.nii.gz", image, roi("GTV")).startswith("mask is no DICOM")


@needs_reference
@pytest.mark.parametrize(("folder", "modality"), [("PET", "PET"), ("MR_T1", "MR")])
def test_the_reference_patient_has_the_contour_of_its_mask(folder, modality):
    here = REFERENCE / "dicom_rtstruct" / folder
    image = read_image(here / "image", modality)
    drawn, truth = (voxels(read_mask(here / name, image)) for name in ("mask", "mask.nii.gz"))
    dice = 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum(dtype=int))
    assert dice >= 0.99


@needs_reference
def test_jpeg2000_with_blank_uids_is_read(tmp_path):
    folder = REFERENCE / "abdomen_ct" / "dicom"
    image = read_image(folder, "CT")
    assert image.GetSize() == (512, 512, 20)
    assert voxels(image).min() == -1024  # air
    found = series_findings(
        [found for file in slice_files(folder) for found in read_slices(file, "image")], "image", "CT"
    )
    assert "image has blank instance UIDs" in {finding.reason for finding in found}
