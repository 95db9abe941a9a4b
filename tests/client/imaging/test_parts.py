"""Cases in parts: the numbers of a case measured at once, whatever ends on the way, and nothing left behind."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging import dispatch
from cohortium.client.imaging.case import CaseFiles, case_key, measure
from cohortium.client.imaging.dispatch import measure_cases
from cohortium.client.imaging.parts import begin, measure_part
from cohortium.client.imaging.processes import CRASHED, Processes
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.store import Store, finished
from cohortium.client.imaging.workers import worker_pool
from cohortium.common.progress import NullProgress
from cohortium.common.study_images import DeepFeatures, Image, MaskRegion, RadiomicsFeatures, RingRegion
from cohortium.sites.flow import Exclusion
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.volumes import ball, make, textured

SHAPE = (20, 26, 30)
SET = {
    "kind": "radiomics", "regions": ("tumour", "rim"), "image_types": ("Original", "Wavelet", "LoG"),
    "log_sigma_mm": (1.0, 2.0), "classes": ("shape", "firstorder"),
}  # fmt: skip
SMALL = {"image_types": ("Original",), "classes": ("firstorder",)}
PASSES = 5  # shape, original, wavelets, two widths of LoG


def recipe(**given):
    images = {"ct": Image(modality="CT", spacing_mm=(1.3, 1.3, 1.7)), "mr": Image(modality="MR", normalise="zscore")}
    sets = {
        "plain": RadiomicsFeatures(images=("ct",), bin_width={"ct": 5.0}, **SET | {"perturbations": 2} | given),
        "scaled": RadiomicsFeatures(images=("mr",), bin_count=16, perturbations=1, **SET),
        "deep": DeepFeatures(kind="deep", images=("ct",), regions=("tumour",), network="resnet10", size=(16, 16)),
    }
    regions = {"tumour": MaskRegion(), "rim": RingRegion(source="ring", of="tumour", outer_mm=3.0)}
    return Recipe(images, regions, sets, seed=1)


def case(folder, patient="p0", seed=0):
    folder = folder / patient
    folder.mkdir()
    for name in ("ct", "mr"):
        sitk.WriteImage(make(textured(seed, SHAPE), (0.9, 1.1, 2.0), (0.1, -7.3, 1 / 3)), folder / f"{name}.nrrd")
    mask = make(ball(SHAPE, 8.0, (0.9, 1.1, 2.0)).astype(np.uint8), (0.9, 1.1, 2.0), (0.1, -7.3, 1 / 3))
    sitk.WriteImage(mask, folder / "mask.nrrd")
    places = [(name, "tumour") for name in ("ct", "mr")]
    return CaseFiles(
        patient,
        {name: folder / f"{name}.nrrd" for name in ("ct", "mr")},
        dict.fromkeys(places, folder / "mask.nrrd"),
        dict.fromkeys(places, MaskFile(path="{patient_id}")),
    )


def run(cases, wanted, store, pool=None):
    notes = []
    with NullProgress().stage("images", len(cases)) as step:
        done = list(measure_cases(cases, wanted, store, pool, step))
        notes.append(step.note)
    return {one.patient_id: one.found for one in done}, notes[-1]


def unfinished(store):
    return [path.name for path in store.folder.rglob("*-*")]


def crash(*given):
    signal.raise_signal(signal.SIGSEGV)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(dispatch, "begin", partial(begin, large=0))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cases")


@pytest.mark.parametrize("jobs", [1, 2])
def test_values_pictures_and_findings_are_those_of_a_case_at_once(tmp_path, store, jobs):
    cases, wanted = [case(tmp_path, f"p{i}", i) for i in range(2)], recipe()
    with worker_pool(jobs) as pool:
        found, note = run(cases, wanted, store, pool)
    assert note == f"{4 * PASSES} of {4 * PASSES} parts of a large case"
    for files in cases:
        whole, kept = measure(files, wanted), finished(store, found[files.patient_id])
        assert np.isfinite(whole.values).mean() > 0.9
        assert kept["values"].tobytes() == whole.values.tobytes()  # to the last bit
        assert kept["pictures"].keys() == whole.pictures.keys() == {"deep/ct/tumour"}
        assert np.array_equal(kept["pictures"]["deep/ct/tumour"], whole.pictures["deep/ct/tumour"])
        assert kept["findings"][len(kept["findings"]) - len(whole.findings) :] == whole.findings
        assert kept["sheet"].startswith(b"\x89PNG")
    assert not unfinished(store)


def test_what_a_region_lacks_is_told_as_of_a_case_at_once(tmp_path, store):
    files, wanted = case(tmp_path), recipe(perturbations=20, **SMALL)
    # of a few voxels; some of the other contours are flat
    thin = np.zeros(SHAPE, dtype=np.uint8)
    thin[10:12, 12:14, 14:16] = 1
    sitk.WriteImage(make(thin, (0.9, 1.1, 2.0), (0.1, -7.3, 1 / 3)), files.masks["ct", "tumour"])
    whole = measure(files, wanted)
    kept = finished(store, run([files], wanted, store)[0]["p0"])
    assert whole.findings == [one for one in kept["findings"] if one[0].startswith("perturbed")]
    assert kept["values"].tobytes() == whole.values.tobytes()


def test_a_killed_case_goes_on_where_it_was(tmp_path, store, monkeypatch):
    files, wanted, calls = case(tmp_path), recipe(), []

    def counted(part, *given):
        calls.append(part)
        if len(calls) == 6:
            raise KeyboardInterrupt
        measure_part(part, *given)

    monkeypatch.setattr(dispatch, "measure_part", counted)
    with pytest.raises(KeyboardInterrupt):
        run([files], wanted, store)
    assert store.get(case_key(files, wanted)) is None
    found, _ = run([files], wanted, store)
    assert len(calls) == 4 * PASSES + 1  # the one that was killed is begun twice
    assert finished(store, found["p0"])["values"].tobytes() == measure(files, wanted).values.tobytes()
    assert not unfinished(store)


def test_a_case_killed_after_its_last_part_has_nothing_left_to_measure(tmp_path, store, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    files, wanted = case(tmp_path), recipe(**SMALL)
    monkeypatch.setattr(dispatch, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run([files], wanted, store)
    monkeypatch.setattr(dispatch, "measure_part", None)
    found, _ = run([files], wanted, store)
    assert finished(store, found["p0"])["values"].tobytes() == measure(files, wanted).values.tobytes()
    assert not unfinished(store)


def test_a_part_that_fails_excludes_its_case_alone_with_its_reason(tmp_path, store, monkeypatch):
    cases, wanted = [case(tmp_path, f"p{i}", i) for i in range(2)], recipe(**SMALL)

    def failing(part, recipe, store, key):
        if key == case_key(cases[0], wanted) and part.number >= 2:
            raise ValueError(f"part {part.number}")
        measure_part(part, recipe, store, key)

    monkeypatch.setattr(dispatch, "measure_part", failing)
    found, _ = run(cases, wanted, store)
    assert found["p0"] == Exclusion("p0", "features cannot be computed", "ValueError: part 2")
    assert isinstance(found["p1"], str)
    assert not unfinished(store)


def test_a_region_that_cannot_be_measured_is_told_as_of_a_case_at_once(tmp_path, store):
    files, wanted = case(tmp_path), recipe(resegment_range={"ct": (4000.0, 5000.0)})
    with pytest.raises(Exception, match="image ct, region tumour") as error:
        measure(files, wanted)
    found, _ = run([files], wanted, store)
    assert found["p0"] == Exclusion("p0", error.value.reason, error.value.detail)
    assert not unfinished(store)


def test_a_part_that_crashes_its_process_excludes_its_case(tmp_path, store, monkeypatch):
    monkeypatch.setattr(dispatch, "measure_part", crash)
    with Processes(1, os.getpid) as pool:
        found, _ = run([case(tmp_path)], recipe(**SMALL), store, pool)
    assert found["p0"].reason == CRASHED
    assert not unfinished(store)


def test_images_that_lie_there_are_those_of_the_cases_under_way(tmp_path, store, monkeypatch):
    looks = []

    def looked(*given):
        looks.append({name.split("-")[0] for name in unfinished(store) if "-look-" in name})
        measure_part(*given)

    monkeypatch.setattr(dispatch, "measure_part", looked)
    run([case(tmp_path, f"p{i}", i) for i in range(3)], recipe(**SMALL), store)
    assert len(looks) == 3 * 2 * (1 + PASSES)
    assert all(len(cases) == 1 for cases in looks)


def test_a_small_region_is_a_part_only_beside_a_large_one(tmp_path, store):
    files, wanted = case(tmp_path), recipe(**SMALL)
    whole = measure(files, wanted)
    volume = dict(zip(wanted.radiomics_columns(), whole.values, strict=True))
    sizes = [
        volume[f"features.scaled/mr/{name}/original_shape_VoxelVolume"] / (0.9 * 1.1 * 2.0) for name in SET["regions"]
    ]
    work = [round(size) * 11 * 2 for size in sizes]  # original, eight bands of wavelets, two LoG; two contours
    assert work[0] != work[1]
    left = begin(files, wanted, store, "key", large=max(work))
    first = work.index(max(work))
    assert [(part.look, part.only is None) for part in left] == [(2 + first, False)] * PASSES + [(3, True)] * (
        first == 0
    )
