"""Regions that a network draws, at a site: measured as contours are, kept by content, shown, refused and counted."""

import io
import json
import os
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from cohortium.client.imaging import segment
from cohortium.client.imaging.automatic import drawn_cases
from cohortium.client.imaging.contact_sheet import HEADING, SIDE
from cohortium.client.imaging.processes import Processes
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.site_images import Store, files_of, finished, measure_site
from cohortium.client.predict.images import Measurement
from cohortium.client.predict.patients import IMAGE, MASK, NewPatient
from cohortium.client.predict.saved import Model, Needs
from cohortium.client.prepare import prepare
from cohortium.client.site_check import check_site
from cohortium.common.errors import ModelError, SiteError
from cohortium.common.model_files import SavedModel, add_weights
from cohortium.common.progress import NullProgress
from cohortium.common.study import parse_study
from cohortium.common.table import Table
from cohortium.sites.patients import read_patients
from cohortium.sites.site_file import parse_site
from tests.client.imaging.segmenters import thresholding
from tests.client.imaging.volumes import ball, make

PATIENTS = 4
SHAPE = (14, 20, 24)
VOXEL_ML = 3e-3  # of volumes.SPACING_MM


@pytest.fixture
def folder(tmp_path):
    """Four patients with a bright ball of another size each, one also with a piece of noise; one has none at all."""
    for i in range(PATIENTS):
        values = np.random.default_rng(i).normal(0, 10, SHAPE)
        if i < 3:
            values[tumour(i)] += 150
            values[1, 1, 1] = 500
        sitk.WriteImage(make(values), tmp_path / f"p{i}_ct.nrrd")
    ids = [f"p{i}" for i in range(PATIENTS)]
    pd.DataFrame({"patient_id": ids, "relapse": [0, 1] * 2}).to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def tumour(i):
    return ball(SHAPE, radius_mm=6.0 + i)


def study(folder, **given):
    region = thresholding(folder / "net.pt", 75.0)
    tables = {
        "study": {"name": "drawn", "primary": "relapse", "seed": 3},
        "endpoint": {"relapse": {"kind": "binary", "column": "relapse"}},
        "image": {"ct": {"modality": "CT"}},
        "region": {"tumour": {**region, **given}, "rim": {"source": "ring", "of": "tumour", "outer_mm": 3.0}},
        "features": {
            "radiomics": {
                "kind": "radiomics", "images": ("ct",), "regions": ("tumour", "rim"),
                "classes": ("shape", "firstorder"), "bin_count": 8,
            },
            "deep": {
                "kind": "deep", "images": ("ct",), "regions": ("tumour",), "network": "resnet10", "slices": "volume",
                "size": (16, 16, 16),
            },
        },
        "split": {"train": ("a", "b", "c")},
        "model": {"m": {"kind": "logistic", "predictors": ("features.radiomics", "features.deep")}},
    }  # fmt: skip
    return parse_study(tables, folder=folder)


def site(folder):
    """No mask anywhere."""
    images = {"ct": {"image": "{patient_id}_ct.nrrd"}}
    return parse_site({"site": {"name": "a"}, "data": {"patients": "patients.csv"}, "images": images}, folder=folder)


def test_regions_are_measured_as_contours_are(folder):
    done = prepare(study(folder), site(folder), folder / "out")
    table = Table.read(done.table)
    assert table.patient_id.tolist() == ["p0", "p1", "p2"]
    assert done.flow.excluded == {"network finds no region": 1}
    excluded = pd.read_csv(folder / "out" / "excluded.csv")
    assert excluded.detail.tolist() == [str(folder / "p3_ct.nrrd")]
    # The same study with the same regions as masks on disk
    for i in range(PATIENTS):
        sitk.WriteImage(make(tumour(i).astype(np.uint8)), folder / f"p{i}_mask.nrrd")
    tables = json.loads(study(folder).canonical)
    tables["region"]["tumour"] = {"source": "mask"}
    images = {"ct": {"image": "{patient_id}_ct.nrrd", "mask": {"tumour": "{patient_id}_mask.nrrd"}}}
    there = parse_site({"site": {"name": "a"}, "data": {"patients": "patients.csv"}, "images": images}, folder=folder)
    contoured = Table.read(prepare(parse_study(tables), there, folder / "contoured").table)
    assert table.feature_names == contoured.feature_names
    assert len(table.feature_names) == 2 * 32 + 512
    rows = [contoured.patient_id.tolist().index(patient) for patient in table.patient_id]
    names = table.feature_names
    assert np.array_equal(table.matrix(names), contoured.matrix(names)[rows], equal_nan=True)


def test_a_mask_is_drawn_once_and_again_when_anything_changes(folder, monkeypatch):
    calls = []
    draw = segment.segment
    monkeypatch.setattr(segment, "segment", lambda *given: calls.append(1) or draw(*given))
    assert prepare(study(folder), site(folder), folder / "out").computed == 3
    assert len(calls) == 4
    assert prepare(study(folder), site(folder), folder / "out").kept == 3
    assert len(calls) == 4
    kept = sorted((folder / "workspace" / "cases").rglob("*.nrrd"))
    kept[0].write_bytes(kept[0].read_bytes()[:60])
    before = Table.read(folder / "out" / "table.parquet")
    after = Table.read(prepare(study(folder), site(folder), folder / "out").table)
    assert len(calls) == 5
    assert np.array_equal(before.matrix(before.feature_names), after.matrix(after.feature_names), equal_nan=True)
    prepare(study(folder, keep="all"), site(folder), folder / "out")
    assert len(calls) == 9


def test_regions_of_one_network_are_drawn_at_once(folder, monkeypatch):
    given = study(folder)
    tables = json.loads(given.canonical)
    tables["region"]["all"] = tables["region"]["tumour"] | {"keep": "all"}
    tables["region"]["elsewhere"] = tables["region"]["tumour"] | {"normalise": "zscore", "window_hu": None}
    tables["features"]["radiomics"]["regions"] = ["tumour", "all"]
    calls = []
    draw = segment.segment
    monkeypatch.setattr(segment, "segment", lambda *given: calls.append(len(given) - 2) or draw(*given))
    cache = folder / "cases"
    both = parse_study(tables, folder=folder)
    ids = ["p0", "p1"]
    images = measure_site(both, site(folder), ids, pool=None, progress=NullProgress(), cache=cache)
    assert calls == [2, 2]
    volume = [n for n in images.names if n.endswith("shape_VoxelVolume")]
    for i, patient in enumerate(ids):
        row = dict(zip(images.names, images.rows[patient], strict=True))
        # "all" has the piece of noise too, of one voxel
        assert [row[name] for name in volume] == pytest.approx(
            [(tumour(i).sum() + more) * VOXEL_ML * 1000 for more in (0, 1)]
        )
    # Each is kept for itself: one that is there is not drawn again, and another network draws alone
    tables["features"]["radiomics"]["regions"] = ["tumour", "all", "elsewhere"]
    measure_site(
        parse_study(tables, folder=folder), site(folder), ["p0"], pool=None, progress=NullProgress(), cache=cache
    )
    assert calls == [2, 2, 1]


def test_cases_that_wait_are_not_drawn_when_prepare_ends_early(folder):
    futures = []

    class Waiting(Executor):
        def submit(self, do, files):
            futures.append(Future())
            if files.patient_id == "p0":
                futures[-1].set_result(do(files))
            return futures[-1]

    asked = study(folder)
    recipe, here = Recipe.of(asked), site(folder)
    cases = [files_of(here, recipe, f"p{i}") for i in range(PATIENTS)]
    found = drawn_cases(cases, recipe, asked.resolve, folder / "cases", Waiting())
    assert next(found).patient_id == "p0"
    found.close()
    assert [future.cancelled() for future in futures] == [False, True, True, True]


def test_processes_draw_what_one_draws(folder):
    ids = ["p0", "p3"]
    given = {"progress": NullProgress()}
    alone = measure_site(study(folder), site(folder), ids, pool=None, cache=folder / "one", **given)
    with Processes(1, os.getpid) as pool:
        many = measure_site(study(folder), site(folder), ids, pool=pool, cache=folder / "two", **given)
    assert alone.exclusions == many.exclusions
    assert np.array_equal(alone.rows["p0"], many.rows["p0"], equal_nan=True)


def test_the_site_sees_what_was_drawn(folder):
    asked, here = study(folder), site(folder)
    out = folder / "check"
    left, found = check_site(asked, here, read_patients(asked, here), [], out)
    assert left.frame["patient_id"].tolist() == ["p0", "p1", "p2"]
    assert ("p3", "network finds no region", str(folder / "p3_ct.nrrd"), True) in found.findings
    sheets = sorted((out / "sheets").glob("*.png"))
    assert len(sheets) == 3
    with Picture.open(sheets[0]) as sheet:
        assert sheet.size == (3 * SIDE, SIDE + HEADING)
        assert (np.asarray(sheet) == (255, 196, 0)).all(axis=2).sum() > 50  # the outline
    images = measure_site(asked, here, ["p1"], pool=None, progress=NullProgress(), cache=here.workspace / "cases")
    kept = finished(Store(here.workspace / "cases"), images.cases["p1"])
    assert kept["volumes_ml"] == {"ct/tumour": pytest.approx(tumour(1).sum() * VOXEL_ML)}
    with Picture.open(io.BytesIO(kept["sheet"])) as sheet:
        assert sheet.size == (3 * SIDE, SIDE + HEADING)


def test_weights_that_are_not_the_studys_stop_the_site(folder):
    asked = study(folder)
    (folder / "net.pt").write_bytes(b"other")
    with pytest.raises(SiteError, match=r"net\.pt: sha256 is [0-9a-f]{64}, the study says"):
        prepare(asked, site(folder), folder / "out")
    (folder / "net.pt").unlink()
    with pytest.raises(SiteError, match=r"net\.pt: No such file"):
        prepare(asked, site(folder), folder / "out")


@pytest.fixture
def model(folder):
    """What prepare gave, and a model that looks at all of it with the weights beside it."""
    asked = study(folder)
    table = Table.read(prepare(asked, site(folder), folder / "out").table)
    features = {s: tuple(n for n in table.feature_names if n.startswith(f"features.{s}/")) for s in asked.features}
    (folder / "models" / "m").mkdir(parents=True)
    add_weights(folder / "models", asked)
    saved = SavedModel(folder=folder / "models" / "m", description=None, study=asked, objects={})
    return table, Model(saved=saved, needs=Needs({}, (), features, ()))


def test_a_new_patient_needs_no_mask(folder, model):
    table, known = model
    found = Measurement(known).features(NewPatient("new", {IMAGE + "ct": "p1_ct.nrrd"}, folder))
    row = table.patient_id.tolist().index("p1")
    assert found == {name: table.columns[name][row] for name in table.feature_names}


def test_a_mask_that_is_given_is_taken(folder, model):
    _, known = model
    sitk.WriteImage(make(tumour(2).astype(np.uint8)), folder / "mine.nrrd")
    given = {IMAGE + "ct": "p1_ct.nrrd", MASK + "tumour": "mine.nrrd"}
    found = Measurement(known).features(NewPatient("new", given, folder))
    volume = found["features.radiomics/ct/tumour/original_shape_VoxelVolume"]
    assert volume == pytest.approx(tumour(2).sum() * VOXEL_ML * 1000)


def test_weights_that_are_not_beside_the_model_are_named(folder, model):
    _, known = model
    next(Path(known.saved.folder / "weights").iterdir()).unlink()
    with pytest.raises(ModelError, match=r"the weights of region\.tumour are not there; copy the file net\.pt"):
        Measurement(known).features(NewPatient("new", {IMAGE + "ct": "p1_ct.nrrd"}, folder))
