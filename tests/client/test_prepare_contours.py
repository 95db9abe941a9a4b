"""Prepare with perturbed contours: the same twice, killed and resumed, and no model's features beside its own."""

import numpy as np
import pandas as pd
import pytest

from cohortium.client.imaging import dispatch, parts
from cohortium.client.predict.images import Measurement
from cohortium.client.prepare import prepare
from cohortium.common.errors import StudyError
from cohortium.common.study import parse_study
from cohortium.common.table import Table, perturbed
from tests.client.imaging.volumes import write_case
from tests.client.test_prepare import STUDY, site

PATIENTS = 5
RADIOMICS = STUDY["features"]["radiomics"]


@pytest.fixture
def hospital(tmp_path):
    for i in range(PATIENTS):
        write_case(tmp_path / "images" / f"p{i}", seed=i, shape=(10, 16, 18))
    rows = {"patient_id": [f"p{i}" for i in range(PATIENTS)], "age": range(50, 55), "relapse": [0, 1, 0, 1, 0]}
    pd.DataFrame(rows).to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def study(times=2, selection=("icc",), **features):
    model = {"kind": "logistic", "predictors": ("age", "features.radiomics"), "selection": selection}
    features = {"radiomics": RADIOMICS | {"perturbations": times} | features}
    return parse_study({**STUDY, "features": features, "model": {"m": model}})


def test_columns_of_contours_lie_beside_the_features(hospital):
    table = Table.read(prepare(study(), site(hospital), hospital / "out").table)
    plain = Table.read(prepare(study(0, ()), site(hospital), hospital / "plain").table)
    assert table.feature_names == plain.feature_names
    assert np.array_equal(table.matrix(table.feature_names), plain.matrix(plain.feature_names))
    for number in (1, 2):
        other = table.matrix([perturbed(name, number) for name in table.feature_names])
        assert np.isfinite(other).all()
        assert not np.array_equal(other, table.matrix(table.feature_names))


def test_a_killed_prepare_goes_on_and_gives_the_same(hospital, monkeypatch):
    begin, calls = dispatch.begin, []

    def killed_at_the_fourth(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return begin(*given)

    whole = prepare(study(), site(hospital), hospital / "whole", cache=hospital / "other")
    monkeypatch.setattr(dispatch, "begin", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        prepare(study(), site(hospital), hospital / "out")
    monkeypatch.undo()
    done = prepare(study(), site(hospital), hospital / "out")
    assert (done.computed, done.kept) == (PATIENTS - 3, 3)
    assert prepare(study(), site(hospital), hospital / "out").computed == 0
    one, two = Table.read(whole.table), Table.read(done.table)
    assert list(one.columns) == list(two.columns)
    assert all(np.array_equal(one.columns[name], two.columns[name]) for name in one.columns)


def test_a_contour_that_cannot_be_measured_is_on_the_sites_page(hospital, monkeypatch):
    measured = parts.measured

    def with_a_finding(*given):
        found = measured(*given)
        found.findings.append(["perturbed contour cannot be measured", "image ct, region tumour: contour 1", False])
        return found

    monkeypatch.setattr(parts, "measured", with_a_finding)
    done = prepare(study(), site(hospital), hospital / "out")
    assert done.flow.used == PATIENTS
    page = (hospital / "out" / "quality.html").read_text()
    assert page.count("perturbed contour cannot be measured") >= PATIENTS


def test_a_new_patient_is_measured_with_one_contour():
    class Needs:
        features = ("radiomics",)

    class Saved:
        study = parse_study(
            {**STUDY, "features": {"radiomics": RADIOMICS | {"perturbations": 2, "regions": ("tumour",)}}}
        )

    class Model:
        saved, needs = Saved, Needs

    columns = Measurement(Model)._recipe.radiomics_columns()
    assert len(columns) == 14 + 18


def test_no_contours_are_no_part_of_a_studys_hash():
    assert b"perturbations" not in study(0, ()).canonical
    assert study(2).hash != study(3).hash


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ({"kind": "survival", "time": "time", "event": "dead"}, "cox"),
        ({"kind": "continuous", "column": "volume"}, "linear"),
    ],
)
def test_the_step_takes_any_endpoint(endpoint, kind):
    model = {"kind": kind, "predictors": ("features.radiomics",), "selection": ("icc",)}
    tables = {"endpoint": {"relapse": endpoint}, "features": {"radiomics": RADIOMICS | {"perturbations": 2}}}
    assert parse_study({**STUDY, **tables, "model": {"m": model}}).model["m"].selection[0].minimum == 0.75


def test_the_agreement_of_contours_needs_some():
    with pytest.raises(StudyError, match=r"selection\[1\] = 'icc'.*perturbations = 10"):
        study(0)
