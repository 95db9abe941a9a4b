import errno
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging.read import fingerprint, read_image, read_mask
from cohortium.common.errors import CaseError, SiteError
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.volumes import ball, make, pair, textured, write_case

REFERENCE = Path(os.environ.get("COHORTIUM_REFERENCE_DATA", Path(__file__).parents[4] / "shared" / "reference"))


def reason(error):
    assert type(error.value) is CaseError
    return error.value.reason


def write(image, path):
    sitk.WriteImage(image, path)
    return path


def test_a_good_case_is_read_as_stored(tmp_path):
    image_file, mask_file = write_case(tmp_path)
    image = read_image(image_file)
    region = read_mask(mask_file, image)
    assert np.allclose(sitk.GetArrayFromImage(image), textured(0), atol=1e-5)  # stored in single precision
    assert np.array_equal(sitk.GetArrayFromImage(region) == 1, ball())
    assert region.GetSpacing() == image.GetSpacing()


def test_any_value_but_zero_is_inside(tmp_path):
    image, mask = pair()
    path = write(mask * 255, tmp_path / "mask.nrrd")
    assert set(np.unique(sitk.GetArrayFromImage(read_mask(path, image)))) == {0, 1}


def test_a_missing_file_excludes_the_case(tmp_path):
    with pytest.raises(CaseError) as error:
        fingerprint(tmp_path / "nobody" / "image.nii.gz", "image")
    assert reason(error) == "image file is missing"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaseError) as error:
        fingerprint(tmp_path / "empty", "mask")
    assert reason(error) == "mask file is missing"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "right to read"),
        (OSError(errno.EIO, "Input/output error"), "mounted"),
        (OSError(errno.ESTALE, "Stale file handle"), "mounted"),
    ],
)
def test_a_disk_or_right_that_fails_stops_the_site(tmp_path, monkeypatch, broken, says):
    image, _ = write_case(tmp_path)

    def refuse(*_args, **_kwargs):
        raise broken

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SiteError, match=says) as error:
        fingerprint(image, "image")
    assert not isinstance(error.value, CaseError)


def test_a_fingerprint_is_of_the_bytes(tmp_path):
    image, mask = write_case(tmp_path)
    assert fingerprint(image, "image") != fingerprint(mask, "mask")
    copy = tmp_path / "other name.nii.gz"
    copy.write_bytes(image.read_bytes())
    assert fingerprint(copy, "image") == fingerprint(image, "image")


@pytest.mark.parametrize("kind", ["nii.gz", "nii", "nrrd", "mha"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.98])
def test_a_cut_or_foreign_file_is_unreadable(tmp_path, kept, kind):
    path = write(pair()[0], tmp_path / f"image.{kind}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))] or b"not an image at all")
    with pytest.raises(CaseError) as error:
        read_image(path)
    assert reason(error) == "image is unreadable"


@pytest.mark.parametrize("kind", ["nii.gz", "nii", "nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pixel", [sitk.sitkFloat32, sitk.sitkFloat64])
def test_nan_and_infinity_are_found(tmp_path, value, kind, pixel):
    array = textured(1)
    array[-1, -1, -1] = value
    with pytest.raises(CaseError) as error:
        read_image(write(sitk.Cast(make(array), pixel), tmp_path / f"image.{kind}"))
    assert reason(error) == "image has NaN or infinite values"


def test_images_must_be_volumes_of_one_channel(tmp_path):
    flat = write(sitk.GetImageFromArray(np.ones((8, 8), dtype=np.float32)), tmp_path / "flat.nrrd")
    with pytest.raises(CaseError) as error:
        read_image(flat)
    assert reason(error) == "image is not three-dimensional"
    colours = sitk.GetImageFromArray(np.ones((4, 8, 8, 3), dtype=np.float32), isVector=True)
    with pytest.raises(CaseError) as error:
        read_image(write(colours, tmp_path / "colours.nrrd"))
    assert reason(error) == "image has several channels"


def test_an_empty_mask(tmp_path):
    image, mask = pair()
    with pytest.raises(CaseError) as error:
        read_mask(write(mask * 0, tmp_path / "mask.nii.gz"), image)
    assert reason(error) == "mask is empty"


@pytest.mark.parametrize(
    "change",
    [
        {"spacing": (1.0, 1.5, 2.02)},
        {"origin": (10.5, -20.0, 5.0)},
        {"shape": (14, 20, 23), "centre": (6.5, 9.5, 11.5)},
    ],
)
def test_another_geometry(tmp_path, change):
    image, _ = pair()
    inside = ball(change.get("shape", (14, 20, 24)), radius_mm=5.0, centre=change.get("centre"))
    place = {key: value for key, value in change.items() if key in ("spacing", "origin")}
    with pytest.raises(CaseError) as error:
        read_mask(write(make(inside.astype(np.uint8), **place), tmp_path / "mask.nii.gz"), image)
    assert reason(error) == "mask and image differ in geometry"
    assert "voxels" in error.value.detail


def test_a_rotated_grid_is_another_geometry(tmp_path):
    image, mask = pair()
    mask.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
    mask.SetOrigin((10.0, -20.0 + 19 * 1.5, 5.0 + 13 * 2.0))  # the same box, counted from the other side
    with pytest.raises(CaseError) as error:
        read_mask(write(mask, tmp_path / "mask.nii.gz"), image)
    assert reason(error) == "mask and image differ in geometry"


def test_a_mask_outside_the_image(tmp_path):
    image, mask = pair()
    mask.SetOrigin((200.0, -20.0, 5.0))
    with pytest.raises(CaseError) as error:
        read_mask(write(mask, tmp_path / "mask.nii.gz"), image)
    assert reason(error) == "mask lies outside the image"


def test_positions_rounded_by_a_header_are_one_geometry(tmp_path):
    image, mask = pair()
    mask.SetOrigin((10.0 + 1e-4, -20.0, 5.0))
    region = read_mask(write(mask, tmp_path / "mask.nii.gz"), image)
    assert region.GetOrigin() == image.GetOrigin()


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference data is absent; set COHORTIUM_REFERENCE_DATA")
def test_a_dicom_folder_and_one_with_a_slice_missing(tmp_path):
    folder = REFERENCE / "dicom_rtstruct" / "PET"
    series = [d for d in (folder, *folder.rglob("*")) if d.is_dir() and len(list(d.glob("*.dcm"))) > 5]
    if not series:
        pytest.skip("the reference holds no DICOM series")
    image = read_image(series[0])
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series[0]))
    assert image.GetSize()[2] == len(files)
    assert len(fingerprint(series[0], "image")) == 64
    for number, file in enumerate(files):
        if number != len(files) // 2:
            (tmp_path / Path(file).name).write_bytes(Path(file).read_bytes())
    with pytest.raises(CaseError) as error:
        read_image(tmp_path)
    assert reason(error) == "image has missing slices"


def test_an_image_given_as_a_mask_is_no_region(tmp_path):
    image, _ = pair()
    for number, measured in enumerate((textured(0), textured(0) - 60, np.arange(14 * 20 * 24).reshape(14, 20, 24))):
        path = write(make(measured.astype(np.int16 if number else np.float32)), tmp_path / f"{number}.nii.gz")
        with pytest.raises(CaseError, match="give the mask") as wrong:
            read_mask(path, image)
        assert reason(wrong) == "mask holds measurements"
    assert read_mask(path, image, MaskFile(path="{patient_id}", label=7)).GetSize() == image.GetSize()
    share = write(make(ball() * np.float32(0.5)), tmp_path / "share.nii.gz")  # one value, whatever it is, is a mask
    assert np.array_equal(sitk.GetArrayFromImage(read_mask(share, image)) == 1, ball())


@pytest.mark.parametrize("kind", ["nrrd", "nii.gz"])
def test_a_mask_with_nan_has_no_voxel_of_it_inside(tmp_path, kind):
    image, _ = pair()
    drawn = ball().astype(np.float32)
    drawn[0, 0, 0] = np.nan
    with pytest.raises(CaseError) as wrong:
        read_mask(write(make(drawn), tmp_path / f"mask.{kind}"), image)
    assert reason(wrong) == "mask has NaN or infinite values"


def test_a_volume_that_lies_nowhere(tmp_path):
    path = write(pair()[0], tmp_path / "image.nii")
    content = bytearray(path.read_bytes())
    content[292:296] = np.float32(np.nan).tobytes()  # the x of the origin, of NIfTI's srow_x
    path.write_bytes(content)
    with pytest.raises(CaseError) as wrong:
        read_image(path)
    assert reason(wrong) == "image has positions that are no numbers"


def test_an_empty_file_is_called_so(tmp_path):
    for name in ("image.nii.gz", "image.nrrd"):
        (tmp_path / name).touch()
        with pytest.raises(CaseError, match="the file is empty"):
            read_image(tmp_path / name)


def test_axes_that_are_not_at_right_angles(tmp_path):
    path = write(pair()[0], tmp_path / "image.nrrd")
    straight, sheared = b"space directions: (1,0,0)", b"space directions: (1,0.3,0)"
    path.write_bytes(path.read_bytes().replace(straight, sheared))
    with pytest.raises(CaseError) as wrong:
        read_image(path)
    assert reason(wrong) == "image has axes that are not at right angles"


@pytest.mark.parametrize("kind", ["mhd", "nhdr"])
def test_a_fingerprint_is_of_data_beside_their_header_too(tmp_path, kind):
    first, second = textured(0), textured(1)
    path = write(make(first), tmp_path / f"image.{kind}")
    header, before = path.read_bytes(), fingerprint(path, "image")
    write(make(second), path)
    assert path.read_bytes() == header
    assert fingerprint(path, "image") != before


def test_a_header_and_voxels_in_two_files(tmp_path):
    path = write(pair()[0], tmp_path / "image.img")
    with pytest.raises(CaseError, match=r"save them as one, \.nii\.gz"):
        read_image(path)
