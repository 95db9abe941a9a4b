import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from cohortium.client.imaging import dispatch, site_images
from cohortium.client.prepare import prepare, worker_pool
from cohortium.common.errors import SiteError
from cohortium.common.progress import NullProgress
from cohortium.common.study import parse_study
from cohortium.common.table import Table
from cohortium.sites.site_file import parse_site
from tests.client.imaging.volumes import write_case

STUDY = {
    "study": {"name": "tiny", "primary": "relapse", "seed": 3},
    "variable": ({"name": "age", "kind": "continuous"},),
    "endpoint": {"relapse": {"kind": "binary", "column": "relapse"}},
    "image": {"ct": {"modality": "CT", "spacing_mm": (2.0, 2.0, 2.0), "window_hu": (-100.0, 200.0)}},
    "region": {"tumour": {}, "rim": {"source": "ring", "of": "tumour", "outer_mm": 4.0}},
    "features": {
        "radiomics": {
            "kind": "radiomics",
            "images": ("ct",),
            "regions": ("tumour", "rim"),
            "classes": ("shape", "firstorder"),
            "bin_count": 16,
        }
    },
    "split": {"train": ("a", "b", "c"), "folds": 2},
    "model": {"m": {"kind": "logistic", "predictors": ("age",)}},
}
DEEP = {"kind": "deep", "images": ("ct",), "regions": ("tumour",), "network": "resnet10", "size": (32, 32)}
PATIENTS = 8


@pytest.fixture
def hospital(tmp_path):
    """A site with eight patients, one of them without an age."""
    for i in range(PATIENTS):
        write_case(tmp_path / "images" / f"p{i}", seed=i, shape=(10, 16, 18))
    frame = pd.DataFrame(
        {"patient_id": [f"p{i}" for i in range(PATIENTS)], "age": range(50, 58), "relapse": [0, 1] * 4}
    )
    frame["age"] = frame["age"].astype(object)
    frame.loc[7, "age"] = ""
    frame.to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def site(folder, **images):
    pattern = {"image": "images/{patient_id}/image.nii.gz", "mask": {"tumour": "images/{patient_id}/mask.nii.gz"}}
    return parse_site(
        {"site": {"name": "a"}, "data": {"patients": "patients.csv"}, "images": {"ct": pattern | images}}, folder=folder
    )


def study(**tables):
    return parse_study({**STUDY, **tables})


def test_a_table_with_variables_outcomes_folds_and_features(hospital):
    done = prepare(study(), site(hospital), hospital / "out")
    table = Table.read(done.table)
    assert table.patient_id.tolist() == [f"p{i}" for i in range(7)]
    assert table.columns["age"].tolist() == [50 + i for i in range(7)]
    assert table.columns["endpoint.relapse"].tolist() == [0, 1] * 3 + [0]
    assert set(table.columns["fold"]) == {0.0, 1.0}
    assert len(table.feature_names) == 2 * (14 + 18)  # pyradiomics: 14 shape and 18 first-order features
    assert np.isfinite(table.matrix(table.feature_names)).all()
    volume = table.columns["features.radiomics/ct/tumour/original_shape_VoxelVolume"]
    assert volume == pytest.approx([4 / 3 * np.pi * 9**3] * 7, rel=0.1)  # a ball of 9 mm in voxels of 2 mm
    assert (table.columns["features.radiomics/ct/rim/original_shape_VoxelVolume"] > 0).all()
    assert (done.flow.given, done.flow.excluded, done.flow.used) == (8, {"age is missing": 1}, 7)
    assert json.loads((hospital / "out" / "flow.json").read_text()) == {"site": "a", **done.flow.plain()}
    report = json.loads((hospital / "out" / "features.json").read_text())
    assert report["sets"]["radiomics"]["columns"] == list(table.feature_names)
    assert report["versions"]["pyradiomics"] == "3.0.1"


def spoil(hospital):
    """One case of each fault; returns reason by patient."""
    images = hospital / "images"
    (images / "p0" / "image.nii.gz").unlink()
    (images / "p1" / "mask.nii.gz").unlink()
    (images / "p2" / "image.nii.gz").write_bytes(b"not an image")
    mask = sitk.ReadImage(images / "p3" / "mask.nii.gz")
    sitk.WriteImage(mask * 0, images / "p3" / "mask.nii.gz")
    mask.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(mask, images / "p4" / "mask.nii.gz")
    image = sitk.ReadImage(images / "p5" / "image.nii.gz")
    image[0, 0, 0] = float("nan")
    sitk.WriteImage(image, images / "p5" / "image.nii.gz")
    return {
        "p0": "image file is missing",
        "p1": "mask file is missing",
        "p2": "image is unreadable",
        "p3": "mask is empty",
        "p4": "mask lies outside the image",
        "p5": "image has NaN or infinite values",
        "p7": "age is missing",
    }


def test_unusable_cases_are_excluded_counted_and_the_rest_goes_on(hospital):
    reasons = spoil(hospital)
    done = prepare(study(), site(hospital), hospital / "out")
    assert Table.read(done.table).patient_id.tolist() == ["p6"]
    assert done.flow.given == PATIENTS == sum(done.flow.excluded.values()) + done.flow.used
    assert done.flow.excluded == dict.fromkeys(sorted(reasons.values()), 1)
    excluded = pd.read_csv(hospital / "out" / "excluded.csv", keep_default_na=False)
    assert dict(zip(excluded["patient_id"], excluded["reason"], strict=True)) == reasons
    assert excluded.set_index("patient_id").loc["p3", "detail"].startswith("image ct, region tumour: ")


def test_two_patients_with_the_same_files_are_told_to_the_site(hospital):
    for name in ("image.nii.gz", "mask.nii.gz"):
        (hospital / "images" / "p2" / name).write_bytes((hospital / "images" / "p5" / name).read_bytes())
    done = prepare(study(), site(hospital), hospital / "out")
    page = (hospital / "out" / "quality.html").read_text()
    assert page.count("has all features of patient") == 2
    assert len(Table.read(done.table).patient_id) == PATIENTS - 1


def test_folds_are_dealt_over_who_remains(hospital):
    whole = Table.read(prepare(study(), site(hospital), hospital / "out").table)
    spoil(hospital)
    (hospital / "images" / "p5" / "image.nii.gz").write_bytes(
        (hospital / "images" / "p6" / "image.nii.gz").read_bytes()
    )
    rest = Table.read(prepare(study(), site(hospital), hospital / "again").table)
    assert rest.patient_id.tolist() == ["p5", "p6"]
    assert len(whole) == 7
    # the first of each class gets the site's first fold again, whoever left
    assert rest.columns["fold"].tolist() == [0.0, 0.0]


def test_a_second_prepare_computes_nothing_and_a_changed_setting_everything(hospital):
    first = prepare(study(), site(hospital), hospital / "out")
    again = prepare(study(), site(hospital), hospital / "again")
    assert (first.computed, first.kept, again.computed, again.kept) == (7, 0, 0, 7)
    one, two = Table.read(first.table), Table.read(again.table)
    assert np.array_equal(one.matrix(one.feature_names), two.matrix(two.feature_names), equal_nan=True)
    wider = {"radiomics": STUDY["features"]["radiomics"] | {"bin_count": 8}}
    assert prepare(study(features=wider), site(hospital), hospital / "wider").computed == 7
    write_case(hospital / "images" / "p2", seed=99, shape=(10, 16, 18))
    changed = prepare(study(), site(hospital), hospital / "out")
    assert (changed.computed, changed.kept) == (1, 6)


def test_a_killed_prepare_keeps_what_was_finished(hospital, monkeypatch):
    begin, calls = dispatch.begin, []

    def killed_at_the_fifth(*given):
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return begin(*given)

    monkeypatch.setattr(dispatch, "begin", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        prepare(study(), site(hospital), hospital / "out")
    assert not (hospital / "out").exists()
    monkeypatch.undo()
    done = prepare(study(), site(hospital), hospital / "out")
    assert (done.computed, done.kept) == (3, 4)


def test_a_case_that_fails_in_a_library_is_listed_and_the_rest_goes_on(hospital, monkeypatch):
    begin = dispatch.begin

    def failing(files, *given):
        if files.patient_id == "p3":
            raise ValueError("no such matrix")
        return begin(files, *given)

    monkeypatch.setattr(dispatch, "begin", failing)
    done = prepare(study(), site(hospital), hospital / "out")
    assert done.flow.excluded == {"age is missing": 1, "features cannot be computed": 1}
    assert "p3,features cannot be computed,ValueError: no such matrix" in (hospital / "out/excluded.csv").read_text()


def test_only_the_numbers_of_a_case_stay_in_memory(hospital):
    ids = [f"p{i}" for i in range(PATIENTS)]
    given = {"pool": None, "progress": NullProgress(), "cache": hospital / "cases"}
    images = site_images.measure_site(study(), site(hospital), ids, **given)
    assert all(row.base is None for row in images.rows.values())  # no view of a finished case and its pictures
    kept = site_images.finished(site_images.Store(hospital / "cases"), images.cases["p0"])
    assert kept["sheet"].startswith(b"\x89PNG")
    assert kept["volumes_ml"]["ct/tumour"] == pytest.approx(4 / 3 * np.pi * 0.9**3, rel=0.1)


def test_a_half_written_case_is_computed_anew(hospital):
    cache = hospital / "cache"
    prepare(study(), site(hospital), hospital / "out", cache=cache)
    finished = sorted(path for path in cache.rglob("*") if path.is_file())
    finished[0].write_bytes(finished[0].read_bytes()[:100])
    assert prepare(study(), site(hospital), hospital / "out", cache=cache).computed == 1


def test_processes_give_the_numbers_of_one(hospital):
    spoil(hospital)
    alone = prepare(study(), site(hospital), hospital / "alone", cache=hospital / "one")
    with worker_pool(2) as pool:
        steps = []
        progress = NullProgress(Recorder(steps))
        many = prepare(study(), site(hospital), hospital / "many", pool=pool, cache=hospital / "two", progress=progress)
    one, two = Table.read(alone.table), Table.read(many.table)
    assert one.patient_id.tolist() == two.patient_id.tolist()
    assert np.array_equal(one.matrix(one.feature_names), two.matrix(two.feature_names), equal_nan=True)
    assert (hospital / "alone" / "excluded.csv").read_text() == (hospital / "many" / "excluded.csv").read_text()
    assert steps[-1] == ("a: images", 7, 7)


class Bomb(str):
    """A patient's number that crashes the process that is sent it, as a library may that reads the patient's file."""

    __slots__ = ()

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGSEGV,)


def test_a_case_that_crashes_its_process_is_excluded_alone(hospital, monkeypatch):
    def files_of(site, recipe, patient_id):
        files = real(site, recipe, patient_id)
        return files._replace(patient_id=Bomb("p1")) if patient_id == "p1" else files

    real = site_images.files_of
    monkeypatch.setattr(site_images, "files_of", files_of)
    with worker_pool(2) as pool:
        ready = prepare(study(), site(hospital), hospital / "out", pool=pool, cache=hospital / "cache")
    assert ready.flow.excluded["reading or measuring its files crashed"] == 1
    assert "p1" not in Table.read(ready.table).patient_id
    assert "signal SIGSEGV" in (hospital / "out" / "excluded.csv").read_text()


class Recorder:
    def __init__(self, steps):
        self.steps = steps

    def opened(self, step):
        pass

    def changed(self, step):
        self.steps.append((step.name, step.done, step.total))

    def closed(self, step, *, ended_well):
        assert ended_well


def test_embeddings_stand_beside_radiomics(hospital):
    images = {"mr": {"modality": "MR", "normalise": "zscore"}, **STUDY["image"]}
    asked = study(image=images, features={**STUDY["features"], "deep": {**DEEP, "images": ("mr", "ct")}})
    here = site(hospital)
    here = here.model_copy(update={"images": {"ct": here.images["ct"], "mr": here.images["ct"]}})
    done = prepare(asked, here, hospital / "out")
    table = Table.read(done.table)
    columns = [name for name in table.feature_names if name.startswith("features.deep/")]
    assert columns == [f"features.deep/{image}/tumour/{i:04d}" for image in ("ct", "mr") for i in range(512)]
    weights = json.loads((hospital / "out" / "features.json").read_text())["sets"]["deep"]["weights"]
    assert weights["network"] == "resnet10"
    assert len(weights["sha256"]) == 64
    again = Table.read(prepare(asked, here, hospital / "again").table)
    assert again.feature_names == table.feature_names
    assert np.array_equal(table.matrix(table.feature_names), again.matrix(again.feature_names))


def test_a_folder_that_is_away_stops_the_site(hospital):
    (hospital / "images").rename(hospital / "unmounted")
    with pytest.raises(SiteError, match=r"images\.ct\].*does not exist; mount the share"):
        prepare(study(), site(hospital), hospital / "out")


def test_a_pattern_that_finds_nobody_stops_the_site(hospital):
    with pytest.raises(SiteError, match=r"images\.ct, mask\.tumour\].*none of 7 patients has this file"):
        prepare(study(), site(hospital, mask={"tumour": "images/{patient_id}/contour.nii.gz"}), hospital / "out")


def test_a_right_that_is_missing_stops_the_site(hospital, monkeypatch):
    def refused(path, *args, **kwargs):
        if path.name == "image.nii.gz":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    opened = Path.open
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(SiteError, match="right to read"):
        prepare(study(), site(hospital), hospital / "out")
    assert not (hospital / "out").exists()


def test_nobody_usable_is_an_error_with_the_reasons(hospital):
    for i in range(PATIENTS):
        (hospital / "images" / f"p{i}" / "mask.nii.gz").write_bytes(b"")
    with pytest.raises(SiteError, match=r"none of 8 patients is usable \(mask is unreadable: 7, age is missing: 1\)"):
        prepare(study(), site(hospital), hospital / "out")


def test_a_missing_key_of_the_site_file_is_named(hospital):
    with pytest.raises(SiteError, match=r"mask\.tumour is missing"):
        prepare(study(), site(hospital, mask={}), hospital / "out")


def test_without_images_neither_torch_nor_simpleitk_is_imported(hospital):
    tables = {key: value for key, value in STUDY.items() if key not in ("image", "region", "features")}
    script = f"""
import sys
from pathlib import Path
from cohortium.client.prepare import prepare
from cohortium.common.study import parse_study
from cohortium.sites.site_file import parse_site
here = Path({str(hospital)!r})
site = parse_site({{"site": {{"name": "a"}}, "data": {{"patients": "patients.csv"}}}}, folder=here)
print(prepare(parse_study({tables!r}), site, here / "out").flow.used)
assert not {{"torch", "SimpleITK", "radiomics", "monai"}} & sys.modules.keys()
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "7"), done.stderr
