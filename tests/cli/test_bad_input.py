"""Bad input at the command line: a case is excluded and counted, a site that cannot read stops; nothing is lost."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from cohortium.cli.main import main
from tests.client.imaging.volumes import write_case

SIZES = {"north": 40, "east": 40, "south": 40, "west": 12}
MODEL = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage"]

[privacy]
minimum_count = 1  # every reason by its name
"""


@pytest.fixture
def study(write_study, tmp_path):
    """A small study that runs as it is."""
    folder = write_study(tmp_path / "study", MODEL, sizes=SIZES)
    text = (folder / "study.toml").read_text()
    ranged = text.replace('unit = "years"', 'unit = "years"\nrange = [18, 110]')
    (folder / "study.toml").write_text(ranged)
    return folder


@pytest.fixture
def command(tmp_path, capsys):
    """``command(folder)`` is `cohortium simulate`; gives the exit code and the error."""

    def run(folder: Path, *more: str) -> tuple[int, str]:
        code = main(["simulate", str(folder), "--out", str(tmp_path / "out"), "--jobs", "1", "--quiet", *more])
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return code, told[told.find("error: ") :] if code else ""

    return run


def edit(folder: Path, site: str, change) -> None:
    path = folder / "sites" / site / "patients.csv"
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def finished(tmp_path: Path) -> tuple[dict, str]:
    """results.json, read strictly, and the report; every site's flow adds up."""
    results = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    for site in results["sites"]:
        assert site["given"] == sum(site["excluded"].values()) + site["used"]
    return {site["name"]: site for site in results["sites"]} | {"results": results}, (
        tmp_path / "out" / "report.html"
    ).read_text()


def set_cells(**cells):
    """Change of a table: ``column=(row, value)``."""

    def change(frame):
        for column, (row, value) in cells.items():
            frame.loc[row, column] = value
        return frame

    return change


# --- patients that cannot be used -----------------------------------------------------------------------------


def test_bad_patients_are_excluded_and_counted_and_the_rest_goes_on(study, command, tmp_path):
    faults = {
        "unknown level of stage": set_cells(stage=(0, "9")),
        "age out of range": set_cells(age=(1, "430")),
        "age is not a number": set_cells(age=(2, "sixty")),
        "age is missing": set_cells(age=(3, "")),
        "outcome is missing": set_cells(outcome=(4, "")),
        "unknown value of outcome": set_cells(outcome=(5, "maybe")),
        "time is negative": set_cells(time=(6, "-3")),
        "event at time 0": set_cells(time=(7, "0"), death=(7, "1")),
        "death is not 0 or 1": set_cells(death=(8, "2")),
        "patient_id is missing": set_cells(patient_id=(9, "")),
    }
    for change in faults.values():
        edit(study, "north", change)
    edit(study, "north", lambda frame: pd.concat([frame, frame.iloc[[20]]]))
    edit(study, "south", set_cells(time=(0, "0"), death=(0, "0")))  # censored at once: was at risk, is kept
    assert command(study)[0] == 0
    sites, report = finished(tmp_path)
    assert sites["north"]["given"] == 41
    assert sites["north"]["excluded"] == {**dict.fromkeys(faults, 1), "patient is given more than once": 2}
    assert (sites["south"]["given"], sites["south"]["used"]) == (40, 40)
    for reason in sites["north"]["excluded"]:
        assert reason in report
    (excluded,) = (tmp_path / "out" / "sites" / "north" / "prepared").glob("*/excluded.csv")
    assert len(pd.read_csv(excluded)) == 12
    figures = sites["results"]["models"]["full"]["cohorts"]
    used = sum(sites[name]["used"] for name in ("north", "east", "south"))
    assert figures["train"]["n"] + figures["internal"]["n"] == used


def test_few_of_a_reason_are_merged_before_they_leave(study, command, tmp_path):
    text = (study / "study.toml").read_text()
    (study / "study.toml").write_text(text.replace("minimum_count = 1", "minimum_count = 5"))
    edit(study, "north", set_cells(age=(11, "430"), stage=(10, "9")))
    edit(study, "north", lambda frame: frame.assign(outcome=frame.outcome.where(frame.index > 7)))
    assert command(study)[0] == 0
    sites, _ = finished(tmp_path)
    assert sites["north"]["excluded"] == {"other": 10}  # 8 of one reason hide the other two
    assert sites["north"]["used"] == 30


def test_a_site_of_one_class_takes_part_and_a_study_of_one_class_is_named(study, command, tmp_path):
    edit(study, "north", lambda frame: frame.assign(outcome="1"))
    assert command(study)[0] == 0
    sites, _ = finished(tmp_path)
    assert sites["north"]["used"] == 40
    shutil.rmtree(tmp_path / "out")
    for site in SIZES:
        edit(study, site, lambda frame: frame.assign(outcome="1"))
    code, told = command(study)
    assert code == 2
    assert "[model.full]: logistic regression: all" in told
    assert "patients have the outcome; a fit needs both classes" in told


def test_a_site_without_a_patient_of_a_part_takes_part(study, command, tmp_path):
    text = (study / "study.toml").read_text()
    parts = 'part_column = { column = "part_of", train = "dev", internal = "test" }'
    (study / "study.toml").write_text(text.replace("internal_fraction = 0.3", parts))
    for site in ("north", "east", "south"):
        internal = 0 if site == "north" else 12
        edit(study, site, lambda frame, n=internal: frame.assign(part_of=np.where(frame.index < n, "test", "dev")))
    assert command(study)[0] == 0
    sites, _ = finished(tmp_path)
    figures = sites["results"]["models"]["full"]["cohorts"]
    assert (figures["train"]["n"], figures["internal"]["n"]) == (40 + 28 + 28, 24)


# --- a site that cannot go on ---------------------------------------------------------------------------------


def no_table(folder):
    (folder / "patients.csv").unlink()


def no_column(folder):
    frame = pd.read_csv(folder / "patients.csv").rename(columns={"stage": "Stadium"})
    frame.to_csv(folder / "patients.csv", index=False)


def no_text(folder):
    (folder / "patients.csv").write_bytes(b"PK\x03\x04\x14\x00\xff\xfe\x00")


def ragged(folder):
    with (folder / "patients.csv").open("a") as file:
        file.write('p,1,2,3,4,5,6,7,8,9,10,11,12,13,14\n"unfinished')


def empty(folder):
    (folder / "patients.csv").write_text("")


def no_row(folder):
    frame = pd.read_csv(folder / "patients.csv")
    frame.iloc[:0].to_csv(folder / "patients.csv", index=False)


def nobody(folder):
    pd.read_csv(folder / "patients.csv").assign(age=430).to_csv(folder / "patients.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_table, ("patients.csv: there is no such file", "correct patients in the site file")),
        (no_column, ("column 'stage' is missing", "map the name under [data.columns]")),
        (no_text, ("is not utf-8 text", "set encoding under [data]")),
        (ragged, ("cannot be parsed", "check delimiter and file")),
        (empty, ("cannot be parsed", "check delimiter and file")),
        (no_row, ("holds no row", "correct [data] in the site file")),
        (nobody, ("none of 40 patients is usable (age out of range: 40)", "correct these")),
    ],
)
def test_a_site_whose_table_cannot_be_used_stops_and_goes_on_once_mended(study, command, tmp_path, spoil, told):
    kept = (study / "sites" / "east" / "patients.csv").read_bytes()
    spoil(study / "sites" / "east")
    code, said = command(study)
    assert code == 2
    assert said.startswith("error: site east: ")
    assert all(words in said for words in told), said
    assert list((tmp_path / "out" / "sites" / "west" / "prepared").glob("*/table.parquet"))  # the others are ready
    if spoil is no_table:
        (study / "sites" / "east" / "patients.csv").write_bytes(kept)
        assert command(study)[0] == 0
        assert finished(tmp_path)[0]["east"]["used"] == 40


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "may not be read; give this user permission"),
        (errno.EIO, "cannot be read (Input/output error); check the disk or share"),
        (errno.ESTALE, "cannot be read (Stale file handle); check the disk or share"),
    ],
)
def test_a_table_that_may_not_be_read_excludes_nobody(study, command, monkeypatch, number, told):
    def read(path, *_args, **_kwargs):
        raise OSError(number, "Input/output error" if number == errno.EIO else "Stale file handle", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("cohortium.sites.local_table._read_delimited", read)
        code, said = command(study)
    assert code == 2
    assert said.count(told) == len(SIZES)  # every site is told of at once


def test_a_run_that_cannot_be_written_says_where(study, command, tmp_path):
    (tmp_path / "out").write_text("a file where the run should be")
    code, said = command(study)
    assert code == 2
    assert f"{tmp_path / 'out' / 'run'}: Not a directory; check the path, its rights and the free space" in said


# --- images ---------------------------------------------------------------------------------------------------

IMAGES = """
internal_fraction = 0.3

[image.ct]
modality = "CT"
spacing_mm = [2.0, 2.0, 2.0]
window_hu = [-100, 200]

[region.tumour]

[features.radiomics]
kind = "radiomics"
images = ["ct"]
regions = ["tumour"]
classes = ["firstorder"]
bin_count = 16

[model.image]
kind = "logistic"
predictors = ["features.radiomics"]
selection = [{ method = "screen", p = 0.2 }]

[privacy]
minimum_count = 1
"""
CASES = {"north": 14, "east": 9, "south": 9, "west": 5}


@pytest.fixture(scope="module")
def contoured(write_study, tmp_path_factory):
    """A small study with an image and a mask for every patient; tests copy it."""
    folder = write_study(tmp_path_factory.mktemp("contoured") / "study", IMAGES, sizes=CASES)
    for seed, (site, n) in enumerate(CASES.items()):
        place = folder / "sites" / site
        for i in range(n):
            write_case(place / "images" / f"{site}-{i:03d}", seed=100 * seed + i, shape=(8, 12, 14))
        with (place / "site.toml").open("a") as file:
            file.write(
                '[images.ct]\nimage = "images/{patient_id}/image.nii.gz"\n'
                'mask = { tumour = "images/{patient_id}/mask.nii.gz" }\n'
            )
    return folder


@pytest.fixture
def scans(contoured, tmp_path):
    return shutil.copytree(contoured, tmp_path / "scans")


def spoil_images(images: Path) -> dict[str, int]:
    """One case of each fault; how many of each reason."""
    case = [images / f"north-{i:03d}" for i in range(9)]
    (case[0] / "image.nii.gz").unlink()
    (case[1] / "mask.nii.gz").unlink()
    (case[2] / "image.nii.gz").write_bytes(b"not an image")
    (case[3] / "mask.nii.gz").write_bytes((case[3] / "mask.nii.gz").read_bytes()[:100])
    mask = sitk.ReadImage(case[4] / "mask.nii.gz")
    sitk.WriteImage(mask * 0, case[4] / "mask.nii.gz")
    shifted = sitk.Image(mask)
    shifted.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(shifted, case[5] / "mask.nii.gz")
    stretched = sitk.Image(mask)
    stretched.SetSpacing((0.9, 1.4, 1.9))
    sitk.WriteImage(stretched, case[6] / "mask.nii.gz")
    image = sitk.ReadImage(case[7] / "image.nii.gz")
    image[0, 0, 0] = float("nan")
    sitk.WriteImage(image, case[7] / "image.nii.gz")
    shutil.rmtree(case[8])
    return {
        "image file is missing": 2,
        "image has NaN or infinite values": 1,
        "image is unreadable": 1,
        "mask and image differ in geometry": 1,
        "mask file is missing": 1,
        "mask is empty": 1,
        "mask is unreadable": 1,
        "mask lies outside the image": 1,
    }


def test_bad_images_are_excluded_and_counted_and_the_rest_goes_on(scans, command, tmp_path):
    reasons = spoil_images(scans / "sites" / "north" / "images")
    assert command(scans)[0] == 0
    sites, report = finished(tmp_path)
    assert (sites["north"]["given"], sites["north"]["used"]) == (14, 5)
    assert sites["north"]["excluded"] == reasons
    assert all(reason in report for reason in reasons)
    assert [sites[name]["used"] for name in ("east", "south", "west")] == [9, 9, 5]


def test_a_share_that_goes_away_stops_the_site_and_keeps_the_finished_cases(scans, command, tmp_path, monkeypatch):
    images = scans / "sites" / "east" / "images"
    whole_open = Path.open

    def broken(path, *args, **kwargs):
        if images in path.parents and path.parent.name == "east-004":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole_open(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", broken)
        code, said = command(scans)
    assert code == 2
    assert "image " in said
    assert "Permission denied; give the account that runs cohortium the right to read it" in said
    images.rename(images.with_name("unmounted"))
    code, said = command(scans)
    assert code == 2
    assert "images" in said
    assert "mount" in said
    images.with_name("unmounted").rename(images)
    assert command(scans)[0] == 0
    sites, _ = finished(tmp_path)
    assert sites["east"]["used"] == 9
