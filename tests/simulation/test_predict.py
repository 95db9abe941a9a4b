"""Predict: a model's folder alone gives every patient the score of predictions.csv, and intervals as statsmodels'."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter
from scipy import special

from cohortium.cli.main import main
from cohortium.client.predict.patients import in_table
from cohortium.client.predict.saved import open_model
from cohortium.client.predict.score import predict
from cohortium.simulation.simulate import simulate

TABLES = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.few]
kind = "lasso"
lambda = "min"
folds = 3
n_lambda = 10
predictors = ["age", "stage", "marker"]

[model.firth]
kind = "logistic"
penalty = "firth"
predictors = ["age", "marker"]

[model.net]
kind = "mlp"
hidden = [3]
predictors = ["age", "stage", "marker"]
iterations = 4

[model.averaged]
kind = "network"
head = [3]
rounds = 2
predictors = ["age", "marker"]

[model.kernel]
kind = "rff_svm"
components = 12
predictors = ["age", "marker"]

[model.forest]
kind = "gradient_boosting"
trees = 3
max_depth = 2
predictors = ["age", "stage", "marker"]

[model.points]
kind = "staging"
predictors = ["stage"]
points = { stage = { "2" = 0.7, "3" = 1.4 } }

[model.fused]
kind = "logistic"
predictors = ["model.forest", "model.averaged", "age"]
stack = "apparent"

[model.hazard]
kind = "cox"
endpoint = "os"
strata = "none"
predictors = ["age", "stage", "marker"]

[model.by_site]
kind = "cox"
endpoint = "os"
strata = "site"
predictors = ["age", "stage"]

[privacy]
event_time_days = 1
"""
MODELS = [
    "full", "few", "firth", "net", "averaged", "kernel", "forest", "points", "fused", "hazard", "by_site"
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("predict")
    folder = write_study(place / "study", TABLES)
    simulate(folder, place / "out")
    return folder, place / "out"


@pytest.fixture(scope="module")
def everyone(finished, pooled, tmp_path_factory):
    """All patients of all sites as a table for --patients, and what the sites predicted."""
    folder, out = finished
    rows = pooled(out, folder)
    path = tmp_path_factory.mktemp("table") / "patients.csv"
    rows[["patient_id", "age", "stage", "marker"]].to_csv(path, index=False)
    return path, rows


def scores(out, name, path):
    model = open_model(out / "models" / name)
    return predict(model, in_table(path, model.needs))


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_predictions_csv(finished, everyone, name):
    path, rows = everyone
    found = scores(finished[1], name, path)
    assert [p.patient_id for p in found] == rows.patient_id.tolist()
    assert [f"{p.score:.4f}" for p in found] == [f"{value:.4f}" for value in rows[f"score.{name}"]]


def test_one_patient_alone_scores_as_in_the_table(finished, everyone, capsys):
    _, rows = everyone
    row = rows.iloc[17]
    values = [f"--set={name}={row[name]}" for name in ("age", "stage", "marker")]
    assert main(["predict", str(finished[1] / "models" / "fused"), *values, "--json"]) == 0
    (patient,) = json.loads(capsys.readouterr().out)["patients"]
    assert patient["risk"] == pytest.approx(row["score.fused"], abs=1e-12)


def pooled_design(rows):
    train = rows.part == "train"
    x = pd.DataFrame({"one": 1.0, "age": rows.age, "two": rows.stage == 2, "three": rows.stage == 3}).astype(float)
    x["marker"] = rows.marker.fillna(rows.marker[train].median())
    return x, train


def test_interval_is_that_of_statsmodels_get_prediction(finished, everyone):
    path, rows = everyone
    x, train = pooled_design(rows)
    theirs = sm.Logit(rows.outcome[train], x[train]).fit(disp=0, tol=1e-12).get_prediction(x).summary_frame(alpha=0.05)
    linear = sm.GLM(rows.outcome[train], x[train], family=sm.families.Binomial()).fit(tol=1e-12).get_prediction(x)
    low, high = np.array([p.interval for p in scores(finished[1], "full", path)]).T
    # get_prediction of a GLM carries the interval of the linear predictor to the risk, as here
    frame = linear.summary_frame(alpha=0.05)
    np.testing.assert_allclose(low, frame.mean_ci_lower, rtol=1e-6)  # estimates agree to 1e-7 (test_simulate)
    np.testing.assert_allclose(high, frame.mean_ci_upper, rtol=1e-6)
    assert np.all((low < theirs.predicted) & (theirs.predicted < high))


def test_cox_survival_and_interval_are_those_of_the_pooled_fit(finished, everyone):
    """lifelines: the survival function by Breslow's estimate; its variance matrix for the interval about the mean."""
    path, rows = everyone
    x, train = pooled_design(rows)
    frame = x.drop(columns="one").assign(time=rows.time, death=rows.death)
    fitted = CoxPHFitter().fit(frame[train], "time", "death")
    found = scores(finished[1], "hazard", path)
    assert found[0].survival[0][0] == 365
    theirs = fitted.predict_survival_function(frame, times=[365]).to_numpy()[0]
    # Efron ties in the coefficients; the baseline hazards differ in how ties count
    np.testing.assert_allclose([p.survival[0][1] for p in found], theirs, atol=2e-3)
    away = frame[fitted.params_.index] - frame.loc[train, fitted.params_.index].mean()
    error = np.sqrt(np.einsum("ni,ij,nj->n", away, fitted.variance_matrix_, away))
    low, high = np.array([p.interval for p in found]).T
    np.testing.assert_allclose((high - low) / 2, 1.959964 * error, rtol=1e-5)


def test_models_without_interval_or_survival_say_why(finished, everyone):
    path, _ = everyone
    out = finished[1]
    assert "penalised estimate" in scores(out, "few", path)[0].interval
    assert "no coefficients" in scores(out, "forest", path)[0].interval
    assert "given by the study" in scores(out, "points", path)[0].interval
    assert "hazard of its own" in scores(out, "by_site", path)[0].survival
    assert "not a linear function" in scores(out, "net", path)[0].points


@pytest.mark.parametrize("name", ["full", "few", "firth", "points", "fused", "hazard"])
def test_points_add_up_to_the_score(finished, everyone, name):
    path, _ = everyone
    model = open_model(finished[1] / "models" / name)
    nomogram = model.saved.description.nomogram
    for p in predict(model, in_table(path, model.needs)):
        linear = nomogram.lowest + sum(points for _, _, points in p.points) / nomogram.points_per_unit
        shown = special.expit(linear) if model.saved.description.outcome == "binary" else linear
        assert shown == pytest.approx(p.score, abs=5.1e-5)  # the score lies on a grid of 1e-4
    longest = max(axis.points[-1][1] - axis.points[0][1] for axis in nomogram.axes)
    assert longest <= 100.0001


def table(tmp_path, text):
    path = tmp_path / "new.csv"
    path.write_text(text)
    return path


def test_patients_unlike_those_in_training_are_told_in_words(finished, tmp_path):
    path = table(tmp_path, "patient_id,age,stage,marker\nusual,60,1,2.5\nold,118,1,2.5\ngap,60,1,\n")
    usual, old, gap = scores(finished[1], "full", path)
    assert usual.warnings == ()
    assert old.warnings[0].startswith("age = 118 years is 6.")
    assert "squared Mahalanobis distance" in old.warnings[1]
    assert gap.filled == ("marker was missing, filled by the median of the training patients",)
    below = scores(finished[1], "fused", path)[1].warnings
    assert any(text.startswith("age = 118") for text in below)


def test_distance_is_mahalanobis_weighted_by_the_information_of_each_patient(finished, everyone):
    from cohortium.client.predict.score import _filled_columns, _standardised
    from cohortium.strategies import applicability

    path, rows = everyone
    x, train = pooled_design(rows)
    fitted = sm.Logit(rows.outcome[train], x[train]).fit(disp=0, tol=1e-12)
    risk = fitted.predict(x[train])
    weight = (risk * (1 - risk)).to_numpy()
    z = x.drop(columns="one").to_numpy()
    middle = np.average(z[train], axis=0, weights=weight)
    spread = np.cov(z[train].T, aweights=weight, ddof=0)
    theirs = np.einsum("ni,ij,nj->n", z - middle, np.linalg.inv(spread), z - middle)
    model = open_model(finished[1] / "models" / "full")
    given = in_table(path, model.needs)
    values = {n: np.array([float(p.given[n] or "nan") for p in given]) for n in ("age", "stage", "marker")}
    context = model.context([p.patient_id for p in given], {**values, "stage": values["stage"] - 1})
    ours = _standardised(model, _filled_columns(model, model.recorded(context, "full")))
    covariance = model.saved.description.covariance
    d2 = applicability.squared_distance(
        ours,
        np.array(covariance.matrix),
        intercept=True,
        known=applicability.Remembered(covariance.information, np.array(covariance.middle)),
    )
    np.testing.assert_allclose(d2, theirs, rtol=1e-5)


def test_a_row_that_cannot_be_scored_says_why_and_the_others_are(finished, tmp_path, capsys):
    path = table(tmp_path, "patient_id,age,stage,marker,else\na,60,1,2.5,x\nb,60,7,2.5,x\nc,,1,2.5,x\n")
    out = tmp_path / "risks.csv"
    command = ["predict", str(finished[1] / "models" / "full"), "--patients", str(path), "--out", str(out)]
    assert main(command) == 0
    rows = pd.read_csv(out).set_index("patient_id")
    assert rows.risk.notna().tolist() == [True, False, False]
    assert rows.refused["b"] == "stage = '7' is no level of it; use one of 1, 2, 3"
    assert rows.refused["c"].startswith("age is missing, and the study fills no gaps of it")
    assert "warning: patient b: not scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no patient: give --set"),
        (["--set", "age"], "should be NAME=VALUE"),
        (["--set", "aeg=60"], "did you mean 'age'?"),
        (["--set", "age=60", "--set", "age=61"], "given twice"),
        (["--set", "age=old", "--set", "stage=1"], "age = 'old' is not a number"),
        (["--patients", "nowhere.csv"], "cannot be read"),
        (["--patients", "nowhere.csv", "--set", "age=60"], "--patients goes without"),
    ],
)
def test_mistakes_are_told_with_a_remedy(finished, capsys, arguments, told):
    assert main(["predict", str(finished[1] / "models" / "full"), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_the_page_of_one_patient(finished, capsys):
    values = ["--set", "age=60", "--set", "stage=3"]
    assert main(["predict", str(finished[1] / "models" / "hazard"), *values]) == 0
    page = capsys.readouterr().out
    for words in ("linear predictor", "against a patient with mean values", "survival 365 days", "stage = 3", "filled"):
        assert words in page
