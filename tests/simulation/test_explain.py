"""Explanations of a run: equal to those of the pooled rows that no hospital shows, for each kind of model."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import special

from cohortium.simulation.simulate import simulate

TABLES = """
[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.sparse]
kind = "lasso"
predictors = ["age", "stage", "marker"]

[model.head]
kind = "network"
predictors = ["age", "marker"]
rounds = 2
head = [4]

[model.times]
kind = "cox"
endpoint = "os"
predictors = ["age", "stage"]

[validation]
explain = ["shap", "permutation", "nomogram"]
bootstrap = 200
compare = [["full", "sparse"], ["full", "head"]]
subgroups = ["stage"]
"""


@pytest.fixture(scope="module")
def run(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("explain")
    folder = write_study(place / "study", TABLES, primary="outcome")
    simulate(folder, place / "out")
    rows = pd.concat([pd.read_csv(folder / "sites" / site / "patients.csv") for site in ("north", "east", "south")])
    rows = rows.assign(marker=rows["marker"].fillna(rows["marker"].median()))
    return json.loads((place / "out" / "results.json").read_text()), rows, place / "out"


def contributions(results, rows, name):
    """Contribution of every variable to the linear predictor of every patient, from coefficients in study units."""
    beta = {row["term"]: row["estimate"] for row in results["models"][name]["coefficients"]}
    found = {}
    for term, slope in beta.items():
        if term == "(Intercept)":
            continue
        variable, _, level = term.partition("=")
        x = rows[variable] if not level else (rows[variable].astype(str) == level).astype(float)
        found[variable] = found.get(variable, 0) + slope * (x - x.mean())
    return found


@pytest.mark.parametrize("name", ["full", "sparse", "times"])
def test_shap_is_that_of_the_pooled_rows(run, name):
    results, rows, _ = run
    expected = contributions(results, rows, name)
    for entry in results["models"][name]["explanation"]["shap"]:
        pooled = np.abs(expected[entry["variable"]]).mean()
        assert entry["mean_absolute"] == pytest.approx(pooled, rel=1e-9)


def test_points_of_the_nomogram_are_the_models_risk(run):
    results, _, _ = run
    model = results["models"]["full"]
    beta = {row["term"]: row["estimate"] for row in model["coefficients"]}
    found = model["explanation"]["nomogram"]
    low = {axis["variable"]: axis["points"][0] for axis in found["axes"]}
    linear = beta["(Intercept)"] + sum(beta[v] * low[v][0] for v in ("age", "marker"))  # reference level of stage
    total = sum(points for _, points in low.values())
    assert found["lowest"] + total / found["points_per_unit"] == pytest.approx(linear, rel=1e-9)
    for points, risk in found["risk"]:
        assert special.expit(found["lowest"] + points / found["points_per_unit"]) == pytest.approx(risk, rel=1e-9)


def test_models_that_are_not_linear_or_not_binary_say_so(run):
    results, _, out = run
    head = results["models"]["head"]["explanation"]
    assert "undefined" in head["nomogram"]
    assert len(head["shap"]) == len(head["permutation"]["variables"]) == 2
    assert "undefined" in results["models"]["times"]["explanation"]["permutation"]
    assert results["models"]["times"]["explanation"]["nomogram"]["risk"] == []
    page = (out / "report.html").read_text()
    assert "add up points" in page
    assert "Tests of interaction" in page
    assert "bootstrap 95% CI" in page


def test_adjusted_p_and_interactions_stand_in_the_results(run):
    results, _, _ = run
    for entry in results["comparisons"]:
        assert entry["p"] <= entry["p_bh"] <= entry["p_holm"]
    tested = {(entry["model"], entry["figure"]) for entry in results["interactions"]}
    assert {("full", "auc"), ("full", "calibration.slope"), ("head", "auc")} <= tested
