import csv

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.cli.main import main
from cohortium.client.imaging.one_image import Settings, features_of, read_settings
from cohortium.client.imaging.read import read_image
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.study_images import RadiomicsFeatures
from tests.client.imaging.dicom_phantom import slices, write_series
from tests.client.imaging.volumes import SPACING_MM, ball, make, write_case


def run(tmp_path, settings, mask=None):
    """The command on a small case: exit code and rows."""
    image, own_mask = write_case(tmp_path)
    return run_on(tmp_path, image, mask or own_mask, settings)


def run_on(tmp_path, image, mask, settings):
    """The command on a case's files."""
    file, out = tmp_path / "settings.toml", tmp_path / "features.csv"
    file.write_text(settings)
    code = main(["features", str(image), str(mask), "--settings", str(file), "--out", str(out)])
    if code:
        return code, {}
    with out.open(newline="") as stream:
        return code, {row["name"]: row["value"] for row in csv.DictReader(stream)}


def test_features_of_a_file_are_those_of_a_study(tmp_path, capsys):
    code, rows = run(
        tmp_path, "bin_count = 16\nimage_types = ['Original', 'Wavelet']\nclasses = ['firstorder', 'glcm']\n"
    )
    assert code == 0
    assert len(rows) == 9 * (18 + 24)
    assert f"{len(rows)} features" in capsys.readouterr().out
    values = features_of(tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", read_settings(tmp_path / "settings.toml"))
    assert {name: float(value) for name, value in rows.items()} == values


def test_ibsi_mode_has_both_kinds_of_names_unless_classes_say_otherwise(tmp_path):
    _, every = run(tmp_path, "mode = 'ibsi'\nbin_width = 10\n")
    assert {"stat_mean", "cm_joint_max_2D_avg", "original_firstorder_Mean"} <= every.keys()
    assert len(every) == 107 + 482
    _, flat = run(tmp_path, "mode = 'ibsi'\nbin_width = 10\nclasses = ['rlm']\ndimension = '2D'\nspacing_mm = [2, 2]\n")
    assert len(flat) == 16 * 4
    _, filtered = run(tmp_path, "mode = 'ibsi'\nbin_count = 9\nclasses = ['loc', 'ngt']\nimage_types = ['Gradient']\n")
    assert set(filtered) == {f"gradient_ngt_{n}_{d}" for d in ("2D", "2_5D", "3D") for n in
                             ("coarseness", "contrast", "busyness", "complexity", "strength")}  # fmt: skip


def test_two_spacings_keep_the_slices(tmp_path):
    image, mask = write_case(tmp_path)
    flat = Settings(bin_count=8, spacing_mm=(2.0, 2.0), classes=("shape",))
    full = Settings(bin_count=8, spacing_mm=(2.0, 2.0, SPACING_MM[2]), classes=("shape",))
    assert features_of(image, mask, flat) == features_of(image, mask, full)


def test_resegmentation_leaves_shape_and_moves_intensities(tmp_path):
    image, mask = write_case(tmp_path)
    values = sitk.GetArrayFromImage(sitk.ReadImage(image)).astype(float)[ball()]
    inside = values[(values >= 40) & (np.abs(values - values.mean()) <= 1.5 * values.std())]
    for mode in ("ibsi", "pyradiomics"):
        wanted = Settings(mode=mode, bin_width=5.0, resegment_range=(40.0, 500.0), outlier_sigma=1.5,
                          classes=("shape", "firstorder"))  # fmt: skip
        found = features_of(image, mask, wanted)
        assert found["original_firstorder_Mean"] == pytest.approx(inside.mean(), rel=1e-9)
        assert found["original_firstorder_Minimum"] == pytest.approx(inside.min())
        assert found["original_shape_VoxelVolume"] == pytest.approx(ball().sum() * np.prod(SPACING_MM))


def test_rounding_is_to_multiples(tmp_path):
    image, mask = write_case(tmp_path)
    found = features_of(image, mask, Settings(bin_width=5.0, intensity_rounding=4.0, classes=("firstorder",)))
    assert found["original_firstorder_Minimum"] % 4 == 0
    assert found["original_firstorder_Median"] % 4 == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("bin_wdith = 25\n", "did you mean 'bin_width'"),
        ("", "give bin_count or bin_width"),
        ("bin_count = 8\nclasses = ['cm']\n", "set mode"),
        ("bin_count = 8\nresegment_range = [4, 1]\n", "first number must be below"),
        ("bin_count = 8\nmode = 'isbi'\n", "did you mean 'ibsi'"),
        ("bin_count = 8\nivh_bin_count = 8\nivh_bin_width = 2\n", "exclude each other"),
    ],
)
def test_mistakes_in_settings_are_told_with_a_remedy(settings, message, tmp_path, capsys):
    code, _ = run(tmp_path, settings)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "features.csv").exists()


def test_what_cannot_be_used_is_told(tmp_path):
    image, mask = write_case(tmp_path)
    wanted = Settings(bin_count=8)
    with pytest.raises(CaseError, match="image file is missing"):
        features_of(tmp_path / "none.nii.gz", mask, wanted)
    with pytest.raises(CaseError, match="mask file is missing"):
        features_of(image, tmp_path / "none.nii.gz", wanted)
    with pytest.raises(SiteError, match="settings: there is no file"):
        read_settings(tmp_path / "none.toml")
    for array, spacing, reason in (
        (np.zeros((14, 20, 24)), SPACING_MM, "mask is empty"),
        (ball(), (1.0, 1.0, 1.0), "geometry"),
    ):
        sitk.WriteImage(make(array.astype(np.uint8), spacing), tmp_path / "wrong.nii.gz")
        with pytest.raises(CaseError, match=reason):
            features_of(image, tmp_path / "wrong.nii.gz", wanted)


def test_a_label_among_several(tmp_path):
    image, mask = write_case(tmp_path)
    labels = ball().astype(np.uint8) * 2
    labels[:7] *= 2
    sitk.WriteImage(make(labels), mask)
    sizes = [
        features_of(image, mask, Settings(bin_count=8, label=label, classes=("shape",)))["original_shape_VoxelVolume"]
        for label in (2, 4)
    ]
    assert sizes == pytest.approx([(labels == label).sum() * np.prod(SPACING_MM) for label in (2, 4)])
    with pytest.raises(CaseError, match=r"mask lacks the label.*no voxel is 3"):
        features_of(image, mask, Settings(bin_count=8, label=3))


def test_new_keys_leave_the_hash_of_studies_that_do_not_use_them():
    plain = RadiomicsFeatures(kind="radiomics", images=("ct",), regions=("t",), bin_count=8)
    assert set(plain.model_dump()) == {
        "kind", "images", "regions", "image_types", "log_sigma_mm", "classes", "bin_count", "bin_width", "mode"
    }  # fmt: skip


def test_settings_that_ask_for_too_much_are_refused_at_once(tmp_path):
    image, mask = write_case(tmp_path)
    for settings, reason in (
        (Settings(bin_count=8, spacing_mm=(0.001, 0.001, 0.001)), "too many voxels at the study's spacing"),
        (Settings(bin_width=1e-6), "bins are too narrow.*widen them"),
        (Settings(bin_width=1e-6, mode="ibsi"), "bins are too narrow.*widen them"),
        (Settings(bin_count=60000, normalise="none", mode="ibsi", spacing_mm=(0.4, 0.4, 0.4)), "too many grey levels"),
    ):
        with pytest.raises(CaseError, match=reason):
            features_of(image, mask, settings)
    (tmp_path / "s.toml").write_text("bin_count = 8\nspacing_mm = [1, 1, 1, 1]\n")
    with pytest.raises(SiteError, match=r"spacing_mm = .*3 items") as wrong:
        read_settings(tmp_path / "s.toml")
    assert "\n" not in str(wrong.value)


def test_values_that_overflow_are_one_line(tmp_path, capsys):
    image, mask = write_case(tmp_path)
    huge = sitk.ReadImage(image, sitk.sitkFloat64) * 1e305
    sitk.WriteImage(huge, image)
    code, _ = run_on(tmp_path, image, mask, "bin_count = 8\nimage_types = ['Original', 'Square', 'Gradient']\n")
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    assert "features cannot be computed" in told


def test_dicom_of_another_modality_than_the_settings_say(tmp_path):
    folder = write_series(tmp_path / "ct", slices(np.random.default_rng(0).integers(0, 90, (5, 9, 9)).astype(np.int16)))
    mask = sitk.Image(read_image(folder) > 30)
    sitk.WriteImage(mask, tmp_path / "mask.nrrd")
    for modality in ("CT", "OTHER"):
        assert features_of(folder, tmp_path / "mask.nrrd", Settings(bin_count=8, modality=modality))
    with pytest.raises(CaseError, match="image is of another modality"):
        features_of(folder, tmp_path / "mask.nrrd", Settings(bin_count=8, modality="MR"))
