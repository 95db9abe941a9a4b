"""Images of a new patient: the features that `cohortium site prepare` gives the same files."""

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.client.imaging.read import read_image
from cohortium.client.predict.images import Measurement
from cohortium.client.predict.patients import IMAGE, MASK, ROI, NewPatient, paths
from cohortium.client.predict.saved import Model, Needs
from cohortium.client.predict.score import _judged as judged
from cohortium.client.prepare import prepare
from cohortium.common.errors import CaseError, ModelError
from cohortium.common.model_files import SavedModel
from cohortium.common.study import parse_study
from cohortium.common.table import Table
from cohortium.sites.site_file import parse_site
from tests.client.imaging.dicom_phantom import segmentation, slices, write, write_series
from tests.client.imaging.volumes import ball, make, textured

STUDY = {
    "study": {"name": "images", "primary": "outcome", "seed": 4},
    "endpoint": {"outcome": {"kind": "binary", "column": "outcome"}},
    "image": {"ct": {"modality": "CT", "spacing_mm": [2.0, 2.0, 2.0]}},
    "region": {"tumour": {"source": "mask"}, "rim": {"source": "ring", "of": "tumour", "inner_mm": 1, "outer_mm": 3}},
    "features": {
        "radiomics": {
            "kind": "radiomics", "images": ["ct"], "regions": ["tumour", "rim"], "classes": ["firstorder"],
            "bin_count": 8,
        },
        "deep": {
            "kind": "deep", "images": ["ct"], "regions": ["tumour"], "network": "resnet10", "size": [32, 32],
            "slices": "largest", "weights": "random",
        },
    },
    "split": {"train": ["here", "there", "yonder"]},
    "model": {"m": {"kind": "logistic", "predictors": ["features.radiomics", "features.deep"]}},
}  # fmt: skip
SITE = {
    "site": {"name": "here"},
    "data": {"patients": "patients.csv"},
    "images": {"ct": {"image": "{patient_id}_ct.nrrd", "mask": {"tumour": "{patient_id}_mask.nrrd"}}},
}


@pytest.fixture
def prepared(tmp_path):
    """A site's table, and the model that looks at all its features."""
    sitk.WriteImage(make(textured(0)), tmp_path / "p_ct.nrrd")
    sitk.WriteImage(make(ball().astype(np.uint8)), tmp_path / "p_mask.nrrd")
    (tmp_path / "patients.csv").write_text("patient_id,outcome\np,1\n")
    study = parse_study(STUDY)
    ready = prepare(study, parse_site(SITE, folder=tmp_path), tmp_path / "ready")
    table = Table.read(ready.table)
    features = {s: tuple(n for n in table.feature_names if n.startswith(f"features.{s}/")) for s in study.features}
    saved = SavedModel(folder=tmp_path, description=None, study=study, objects={})
    return table, Model(saved=saved, needs=Needs({}, (), features, ())), tmp_path


def test_a_region_is_named_in_a_segmentation_as_in_a_structure_set(prepared):
    """The ball beside another segment, and the image as a series: the numbers of its own mask."""
    _, model, folder = prepared
    model.needs.features.pop("deep")
    volume, inside = sitk.GetArrayFromImage(make(textured(0))), ball() > 0
    series = slices(np.round(volume).astype(np.int16))
    image = write_series(folder / "ct", series)
    masks = {"tumour": inside, "liver": ~inside}
    sitk_mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    sitk_mask.CopyInformation(read_image(image))
    sitk.WriteImage(sitk_mask, folder / "own.nrrd")
    write(segmentation(series, masks), folder / "seg.dcm")
    given = {IMAGE + "ct": "ct", MASK + "tumour": "own.nrrd"}
    own = Measurement(model).features(NewPatient("own", given, folder))
    for name in ("Tumour", "1"):
        asked = {**given, MASK + "tumour": "seg.dcm", ROI + "tumour": name}
        assert Measurement(model).features(NewPatient("seg", asked, folder)) == own
    with pytest.raises(CaseError, match="name one"):
        Measurement(model).features(NewPatient("seg", {**given, MASK + "tumour": "seg.dcm"}, folder))


def test_features_are_those_of_prepare(prepared):
    table, model, folder = prepared
    given = {IMAGE + "ct": "p_ct.nrrd", MASK + "tumour": "p_mask.nrrd"}
    found = Measurement(model).features(NewPatient("new", given, folder))
    assert set(found) == set(table.feature_names)
    for name in table.feature_names:
        assert found[name] == table.columns[name][0], name


def test_what_is_missing_is_named(prepared):
    _, model, folder = prepared
    measurement = Measurement(model)
    with pytest.raises(ModelError, match=r"no path is given of mask tumour on image ct"):
        measurement.features(NewPatient("new", {IMAGE + "ct": "p_ct.nrrd"}, folder))
    given = {IMAGE + "ct": "p_ct.nrrd", MASK + "ct/tumour": "p_ct.nrrd"}
    with pytest.raises(CaseError, match=r"there is no such file: ct: .*nowhere\.nrrd"):
        measurement.features(NewPatient("new", {**given, IMAGE + "ct": "nowhere.nrrd"}, folder))
    # An empty cell is one patient's, a column that is not there is the table's
    with pytest.raises(CaseError, match=r"no path is given: of image ct$"):
        measurement.features(NewPatient("new", {**given, IMAGE + "ct": ""}, folder))
    with pytest.raises(CaseError, match=r"no path is given: of mask tumour on image ct"):
        measurement.features(NewPatient("new", {**given, MASK + "ct/tumour": ""}, folder))


def test_names_of_paths_are_the_studys(prepared):
    _, model, _ = prepared
    study = model.saved.study
    assert paths({"ct/tumour": "/a"}, MASK, study) == {MASK + "ct/tumour": "/a"}
    for name, prefix, told in (
        ("CT", IMAGE, r"--image CT: the study has no such image; did you mean 'ct'\?"),
        ("tumor", MASK, r"--mask tumor: the study has no such region; did you mean 'tumour'\?"),
    ):
        with pytest.raises(ModelError, match=told):
            paths({name: "/a"}, prefix, study)


def test_what_a_library_raises_refuses_one_patient(prepared, monkeypatch):
    _, model, folder = prepared

    def overflow(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr("cohortium.client.predict.images.measure", overflow)
    given = {IMAGE + "ct": "p_ct.nrrd", MASK + "tumour": "p_mask.nrrd"}
    _, refused, _ = judged(model, [NewPatient("new", given, folder)])
    assert refused == {"new": ["features cannot be computed: RuntimeError: no room"]}
