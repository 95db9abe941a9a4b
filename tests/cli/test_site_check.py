"""The dry run at a hospital: DICOM images, contours, people's names in them; a page, tables and an exit status."""

import csv
import shutil

import numpy as np
import pytest
import tomli_w
from PIL import Image

from cohortium.cli.main import main
from tests.client.imaging.dicom_phantom import box_outline, slices, structure_set, write, write_series

PATIENTS = 4
STUDY = {
    "study": {"name": "s", "primary": "relapse"},
    "endpoint": {"relapse": {"kind": "binary", "column": "relapse"}},
    "variable": [
        {"name": "age", "kind": "continuous", "unit": "years", "range": [0, 120], "missing": "median"},
        {"name": "sex", "kind": "binary", "levels": ["f", "m"]},
    ],
    "image": {"ct": {"modality": "CT"}},
    "region": {"tumour": {}},
    "features": {
        "radiomics": {
            "kind": "radiomics", "images": ["ct"], "regions": ["tumour"], "classes": ["shape", "firstorder"],
            "bin_count": 8,
        }
    },
    "split": {"train": ["a", "b", "c"]},
    "model": {"m": {"kind": "logistic", "predictors": ["age", "features.radiomics"]}},
}  # fmt: skip
SITE = {
    "site": {"name": "a"},
    "data": {"patients": "patients.csv", "columns": {"age": "AGE"}},
    "images": {
        "ct": {
            "image": "{patient_id}/ct",
            "mask": {"tumour": {"path": "{patient_id}/rs.dcm", "roi": ["GTV"]}},
        }
    },
}


def named(patient, series):
    for data in series:
        data.PatientID, data.PatientName = patient, f"{patient}^"
    return series


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospital")
    (folder / "study.toml").write_text(tomli_w.dumps(STUDY))
    (folder / "site.toml").write_text(tomli_w.dumps(SITE))
    rows = ["patient_id,AGE,sex,relapse", "p0,50,f,0", "p1,,m,1", "p2,61,f,1", "p3,70,m,0", "p4,430,m,0"]
    (folder / "patients.csv").write_text("\n".join(rows) + "\n")
    for i in range(PATIENTS):
        voxels = np.random.default_rng(i).integers(-100, 200, (5, 12, 14)).astype(np.int16)
        write_series(folder / f"p{i}" / "ct", named(f"p{i}", slices(voxels)))
        contours = [box_outline(2.5, 8.5 + i, 2.5, 9.5, z) for z in (1, 2, 3)]
        write(named(f"p{i}", [structure_set({"GTV": contours})])[0], folder / f"p{i}" / "rs.dcm")
    return folder


@pytest.fixture
def hospital(built, tmp_path):
    return shutil.copytree(built, tmp_path / "here")


def check(folder, capsys, *options):
    words = ["site", "check", str(folder / "study.toml"), "--site", str(folder / "site.toml"), "--jobs", "1"]
    status = main([*words, "--quiet", *options])
    return status, capsys.readouterr().out


def page(folder):
    (found,) = (folder / "workspace" / "checks").glob("*/check.html")
    return found


def test_a_clean_site(hospital, capsys):
    status, out = check(hospital, capsys)
    assert status == 0
    assert "given     5" in out
    assert "used      4 (train 4)" in out
    assert "column    age <- AGE: continuous (years), 1 missing, 1 age out of range" in out
    assert "column    sex <- sex: binary, 0 missing" in out
    shown = page(hospital)
    text = shown.read_text()
    assert "14 x 12 x 5 voxels of 1.5 x 1 x 2 mm" in text
    assert f"ct/tumour: {6 * 7 * 3 * 3 / 1000:.2f} ml" in text  # p0: voxels of 3 cubic millimetres
    sheets = sorted((shown.parent / "sheets").iterdir())
    assert len(sheets) == PATIENTS
    with Image.open(sheets[0]) as picture:
        colours = {colour for _, colour in picture.getcolors(100_000)}
    assert (255, 196, 0) in colours  # the outline
    with (shown.parent / "dictionary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    told = [(row["variable"], row["missing"], row["not_usable"]) for row in rows]
    assert told == [
        ("age", "1", "1"),
        ("sex", "0", "0"),
    ]
    assert not (hospital / "workspace" / "ledger.jsonl").exists()


def test_names_in_files_end_with_status_1_and_are_not_repeated(hospital, capsys):
    series = slices(np.full((5, 12, 14), 20, np.int16))
    for data in series:
        data.PatientName, data.PatientBirthDate = "Doe^Jane", "19500101"
    write_series(hospital / "p0" / "ct", series)
    status, out = check(hospital, capsys)
    assert status == 1
    assert "identity  3 findings may name a patient" in out
    findings = (page(hospital).parent / "findings.csv").read_text()
    assert "(0010,0030) Patient's Birth Date" in findings
    for text in (out, findings, page(hospital).read_text()):
        assert "Jane" not in text
        assert "1950" not in text


def test_contours_of_another_examination_are_told(hospital, capsys):
    contours = named("p1", [structure_set({"GTV": [box_outline(2.5, 8.5, 2.5, 9.5, z) for z in (1, 2)]})])
    contours[0].StudyInstanceUID = "1.2.3.4567"
    write(contours[0], hospital / "p1" / "rs.dcm")
    status, out = check(hospital, capsys)
    assert status == 0
    assert "finding   1: mask and image are of different examinations" in out
    assert "4567" not in (page(hospital).parent / "findings.csv").read_text()


def test_what_cannot_be_used_is_excluded_and_the_rest_is_looked_at(hospital, capsys):
    slice_file = sorted((hospital / "p1" / "ct").iterdir())[2]
    slice_file.unlink()
    wrong = structure_set({"GTV": [box_outline(2.5, 30.5, 2.5, 9.5, 1)]})
    named("p2", [wrong])
    write(wrong, hospital / "p2" / "rs.dcm")
    (hospital / "p3" / "rs.dcm").unlink()
    status, out = check(hospital, capsys)
    assert status == 0
    assert "used      1 (train 1)" in out
    for reason in ("image has missing slices", "mask lies outside the image", "tumour mask on ct is missing"):
        assert f"excluded  1: {reason}" in out
        assert reason in page(hospital).read_text()


def test_files_only_opens_no_image(hospital, capsys):
    for file in (hospital / "p0" / "ct").iterdir():
        file.write_bytes(b"")
    status, out = check(hospital, capsys, "--files-only")
    assert status == 0
    assert "used      4" in out
    assert not (hospital / "workspace").exists()


def test_prepare_writes_the_quality_page(hospital, capsys):
    for file in (hospital / "p3" / "ct").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    words = ["site", "prepare", str(hospital / "study.toml"), "--site", str(hospital / "site.toml"), "--jobs", "1"]
    assert main([*words, "--quiet", "--out", str(hospital / "out")]) == 0
    text = (hospital / "out" / "quality.html").read_text()
    assert "image is unreadable" in text
    assert "Outliers" in text
    assert text.count("<figure>") == 3
    assert len(list((hospital / "out" / "sheets").iterdir())) == 3
    assert "quality.html" in capsys.readouterr().out
