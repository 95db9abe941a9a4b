"""Predict with what a run published: ComBat at a hospital that did not train, gaps filled by equations."""

import csv

import numpy as np
import pytest

from cohortium.client.predict.patients import in_table
from cohortium.client.predict.saved import open_model
from cohortium.client.predict.score import predict
from cohortium.common.errors import ModelError
from cohortium.common.table import Table
from tests.simulation.prepared import run_on_tables

STUDY = """
[study]
name = "harmonised"
primary = "outcome"
seed = 5

[endpoint.outcome]
kind = "binary"
column = "outcome"

[[variable]]
name = "age"
kind = "continuous"

[[variable]]
name = "marker"
kind = "continuous"
missing = "chained"

[[variable]]
name = "grade"
kind = "categorical"
levels = ["low", "middle", "high", "anaplastic"]
missing = "chained"

[imputation]
cycles = 2
imputations = IMPUTATIONS

[image.ct]
modality = "CT"
spacing_mm = [1.0, 1.0, 1.0]

[region.tumour]
source = "mask"

[features.radiomics]
kind = "radiomics"
images = ["ct"]
regions = ["tumour"]
bin_count = 32

[harmonise]
method = "combat"
features = ["radiomics"]
protect = ["age"]

[split]
train = ["north", "east", "south"]
external = ["west"]

[model.clinical]
kind = "logistic"
predictors = ["age", "marker", "grade"]

[model.signature]
kind = "lasso"
predictors = ["features.radiomics"]
folds = 3
n_lambda = 6

[model.fused]
kind = "logistic"
predictors = ["model.clinical", "model.signature"]
stack = "apparent"
"""
SIZES = {"north": 90, "east": 80, "south": 70, "west": 40}


def made_up(site, n):
    rng = np.random.default_rng([3, n])
    features = {f"features.radiomics/ct/tumour/f{i}": rng.standard_normal(n) * (1 + n / 100) + n / 50 for i in range(6)}
    age, grade = rng.normal(60, 9, n), rng.choice([0.0, 1.0, 2.0], n, p=[0.48, 0.5, 0.02])
    marker = 0.1 * age + rng.standard_normal(n)
    risk = 1 / (1 + np.exp(-(0.05 * (age - 60) + 0.5 * grade + features["features.radiomics/ct/tumour/f0"] - n / 50)))
    gaps = np.where(rng.random(n) < 0.2, np.nan, 0.0)
    return Table(
        site=site,
        patient_id=np.array([f"{site}-{i:03d}" for i in range(n)]),
        part=np.full(n, "external" if site == "west" else "train"),
        columns={
            "age": age,
            "marker": marker + gaps,
            "grade": np.where(rng.random(n) < 0.1, np.nan, grade),
            "endpoint.outcome": (rng.random(n) < risk).astype(float),
            **features,
        },
    )


TEXTS = ("low", "middle", "high", "anaplastic")


def write_patients(table, path, rows=slice(None)):
    """The table as a user has it: levels as texts, gaps empty."""
    names = [name for name in table.columns if not name.startswith("endpoint.")]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", *names])
        for i in range(len(table))[rows]:
            cells = [
                ("" if np.isnan(v := table.columns[n][i]) else TEXTS[int(v)] if n == "grade" else repr(float(v)))
                for n in names
            ]
            writer.writerow([table.patient_id[i], *cells])
    return path


@pytest.fixture(scope="module", params=[1, 2])
def finished(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("harmonised")
    tables = {site: made_up(site, n) for site, n in SIZES.items()}
    run_on_tables(place, STUDY.replace("IMPUTATIONS", str(request.param)), tables)
    return place / "out", place / "sites", tables, request.param


def scores_of(sites, site, model):
    with (sites / site / "predictions.csv").open() as stream:
        return [row[f"score.{model}"] for row in csv.DictReader(stream)]


def scored(out, name, path):
    model = open_model(out / "models" / name)
    return predict(model, in_table(path, model.needs))


@pytest.mark.parametrize("name", ["clinical", "signature", "fused"])
def test_an_external_hospital_scores_as_in_the_run(finished, tmp_path, name):
    out, sites, tables, imputations = finished
    found = scored(out, name, write_patients(tables["west"], tmp_path / "west.csv"))
    theirs = scores_of(sites, "west", name)
    same = [f"{p.score:.4f}" == score for p, score in zip(found, theirs, strict=True)]
    if imputations == 1 or name == "signature":
        assert all(same)
    else:  # what is drawn for a gap is drawn anew for a new patient
        known = ~np.isnan(tables["west"].columns["marker"]) & ~np.isnan(tables["west"].columns["grade"])
        assert np.array(same)[known].all()
        assert not np.all(same)


def test_few_patients_of_a_hospital_cannot_be_harmonised(finished, tmp_path):
    out, _, tables, _ = finished
    path = write_patients(tables["west"], tmp_path / "few.csv", slice(9))
    with pytest.raises(ModelError, match=r"estimated from 10 of its patients at least, and 9 came; give a table"):
        scored(out, "fused", path)
    assert len(scored(out, "clinical", path)) == 9


def test_an_interval_of_several_imputations_is_students(finished, tmp_path):
    out, _, tables, imputations = finished
    covariance = open_model(out / "models" / "clinical").saved.description.covariance
    assert (covariance.degrees_of_freedom is None) == (imputations == 1)
    path = write_patients(tables["west"], tmp_path / "west.csv")
    for p in scored(out, "clinical", path):
        low, high = p.interval
        assert low < p.score < high


def test_rare_and_unseen_levels_and_odd_features_are_told(finished, tmp_path):
    out, _, tables, _ = finished
    table = tables["west"]
    columns = {name: values.copy() for name, values in table.columns.items()}
    columns["grade"][:2], columns["features.radiomics/ct/tumour/f0"][2] = [2, 3], 1e3
    odd = Table(table.site, table.patient_id, table.part, columns)
    found = scored(out, "fused", write_patients(odd, tmp_path / "odd.csv"))
    assert any(text == "grade = high is rare: fewer than 10 training patients had it" for text in found[0].warnings)
    assert any(text.startswith("grade = anaplastic: no training patient had it") for text in found[1].warnings)
    assert any("columns of features.radiomics are more than 3 standard" in text for text in found[2].warnings)
    assert any(text.startswith("the score of model signature") for text in found[2].warnings)


def test_a_model_of_image_features_asks_for_them(finished, tmp_path):
    out, _, _, _ = finished
    path = tmp_path / "plain.csv"
    path.write_text("patient_id,age,marker,grade\n1,60,5,low\n")
    with pytest.raises(ModelError, match=r"no path is given of image ct, mask tumour on image ct; give --image"):
        scored(out, "fused", path)
