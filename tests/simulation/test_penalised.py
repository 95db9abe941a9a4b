"""Penalised and averaged models from study.toml to the report, held against scikit-learn and statsmodels."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from statsmodels.duration.hazard_regression import PHReg

from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.simulation.simulate import simulate
from tests.simulation.prepared import sums_sent

SIZES = {"north": 220, "east": 180, "south": 150, "west": 60}
NOISE = [f"noise{k}" for k in range(6)]
NAMES = ["age", *NOISE]
VARIABLES = "\n".join(f'[[variable]]\nname = "{name}"\nkind = "continuous"\n' for name in NOISE)
BINARY = f"""
internal_fraction = 0.2

{VARIABLES}
[model.exact]
kind = "logistic"
predictors = {json.dumps(NAMES)}

[model.averaged]
kind = "logistic"
predictors = {json.dumps(NAMES)}
aggregation = "fedavg"

[model.net]
kind = "lasso"
predictors = {json.dumps(NAMES)}
mixing = 0.5
folds = 5
n_lambda = 20

[model.averaged_lasso]
kind = "lasso"
predictors = {json.dumps(NAMES)}
folds = 5
n_lambda = 20
aggregation = "fedavg"
"""
SURVIVAL = f"""
internal_fraction = 0.2

{VARIABLES}
[model.sparse]
kind = "lasso"
predictors = {json.dumps(NAMES)}
folds = 5
n_lambda = 20

[model.refitted]
kind = "cox"
predictors = {json.dumps(NAMES)}
selection = [{{ method = "lasso", folds = 5, n_lambda = 20 }}]

[model.averaged]
kind = "lasso"
predictors = {json.dumps(NAMES)}
folds = 5
n_lambda = 20
aggregation = "fedavg"
"""


def run_of(write_study, pooled, place, primary, tables):
    folder = write_study(place / "study", tables, primary=primary, sizes=SIZES)
    simulate(folder, place / "out")
    results = json.loads((place / "out" / "results.json").read_text())
    rows = pooled(place / "out", folder)
    return place / "out", results["models"], rows[rows.part == "train"].reset_index(drop=True)


@pytest.fixture(scope="module")
def binary(write_study, pooled, tmp_path_factory):
    return run_of(write_study, pooled, tmp_path_factory.mktemp("penalised"), "outcome", BINARY)


@pytest.fixture(scope="module")
def survival(write_study, pooled, tmp_path_factory):
    return run_of(write_study, pooled, tmp_path_factory.mktemp("penalised"), "os", SURVIVAL)


def estimates(model) -> dict[str, float]:
    return {row["term"]: row["estimate"] for row in model["coefficients"]}


def test_elastic_net_is_scikit_learns(binary):
    _, models, rows = binary
    x = rows[NAMES].to_numpy(float)
    scale = x.std(0, ddof=1)
    penalty = models["net"]["notes"]["lambda"]
    theirs = LogisticRegression(
        l1_ratio=0.5, C=1 / (len(x) * penalty), solver="saga", tol=1e-13, max_iter=100_000, random_state=0
    ).fit((x - x.mean(0)) / scale, rows.outcome)
    ours = estimates(models["net"])
    np.testing.assert_allclose([ours.get(name, 0) for name in NAMES], theirs.coef_[0] / scale, atol=1e-8)
    assert models["net"]["cohorts"]["external"]["auc"]["estimate"] > 0.5


def test_averaged_logistic_is_the_mean_of_local_fits(binary):
    _, models, rows = binary
    fits, patients = [], []
    for _, site in rows.groupby("site"):
        x = site[NAMES].to_numpy(float)
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(x, site.outcome)
        fits.append(np.concatenate([model.intercept_, model.coef_[0]]))
        patients.append(len(x))
    ours = estimates(models["averaged"])
    mean = np.average(fits, axis=0, weights=patients)
    np.testing.assert_allclose([ours["(Intercept)"], *(ours[name] for name in NAMES)], mean, atol=1e-7)
    assert models["averaged"]["coefficients"][1]["se"] == {
        "undefined": "an average of local fits has no standard error"
    }


def test_the_exact_fit_stands_beside_with_the_distance(binary):
    _, models, rows = binary
    beside = models["averaged"]["notes"]["fedavg"]
    assert beside["sites"] == 3
    assert beside["patients"] == len(rows)
    assert {row["term"]: row["estimate"] for row in beside["exact"]} == pytest.approx(estimates(models["exact"]))
    scale = rows[NAMES].std().to_numpy()
    ours, exact = (np.array([estimates(models[m])[name] for name in NAMES]) * scale for m in ("averaged", "exact"))
    assert beside["relative_error"] == pytest.approx(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
    assert beside["largest_difference"] == pytest.approx(np.abs(ours - exact).max())
    sparse = models["averaged_lasso"]["notes"]["fedavg"]
    assert sparse["nonzero"] == len(models["averaged_lasso"]["selected"]) >= sparse["nonzero_exact"] > 0


def test_the_report_says_how_far_the_average_is(binary):
    out, models, _ = binary
    page = " ".join((out / "report.html").read_text().split())
    error = models["averaged"]["notes"]["fedavg"]["relative_error"]
    assert f"{100 * error:.0f}% of the length of the exact ones" in page
    assert "3 of 3 training sites could fit the model alone" in page


@pytest.mark.parametrize("name", ["binary", "survival"])
def test_every_sum_was_listed(name, request):
    out, _, _ = request.getfixturevalue(name)
    assert sums_sent(out).keys() <= {one.statistic for one in releases(load_study(out))}


def test_cox_lasso_is_optimal_by_statsmodels(survival):
    _, models, rows = survival
    x = rows[NAMES].to_numpy(float)
    scale = x.std(0, ddof=1)
    ours = estimates(models["sparse"])
    assert "(Intercept)" not in ours
    b = np.array([ours.get(name, 0) for name in NAMES]) * scale
    model = PHReg(rows.time, (x - x.mean(0)) / scale, status=rows.death, strata=rows.site, ties="breslow")
    gradient, penalty = -model.score(b) / len(rows), models["sparse"]["notes"]["lambda"]
    at_zero = np.maximum(np.abs(gradient) - penalty, 0)
    assert np.where(b != 0, np.abs(gradient + np.sign(b) * penalty), at_zero).max() < 1e-9
    assert models["sparse"]["cohorts"]["external"]["survival"]["c_index"]["estimate"] > 0.5
    raw = rows[list(ours)].to_numpy(float) @ np.array(list(ours.values()))
    np.testing.assert_allclose(rows["score.sparse"], raw, atol=6e-5)


def test_cox_after_a_lasso_has_what_it_left(survival):
    _, models, rows = survival
    assert models["refitted"]["selected"] == models["sparse"]["selected"]
    assert models["refitted"]["notes"]["path"] == models["sparse"]["notes"]["path"]
    model = PHReg(rows.time, rows[models["refitted"]["selected"]], status=rows.death, strata=rows.site, ties="efron")
    theirs = model.fit(disp=0, method="newton", tol=1e-13)
    np.testing.assert_allclose(list(estimates(models["refitted"]).values()), theirs.params, rtol=1e-7)


def test_averaged_cox_lasso(survival):
    out, models, _ = survival
    beside = models["averaged"]["notes"]["fedavg"]
    assert {row["term"]: row["estimate"] for row in beside["exact"]} == pytest.approx(estimates(models["sparse"]))
    assert beside["sites"] == 3
    assert "Penalised Cox" in (out / "report.html").read_text()
