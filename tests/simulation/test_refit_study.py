"""The closed test of updating with a refit, through whole runs: at one external site and as sums over several."""

import json

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from cohortium.common.errors import StudyError
from cohortium.common.ledger import Ledger
from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.server.stages.cohorts import is_refitted
from cohortium.simulation.simulate import simulate

STUDY = """
[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.sparse]
kind = "lasso"
n_lambda = 8
folds = 3
predictors = ["age", "stage", "marker"]

[validation]
updating = "refit"
subgroups = ["stage"]
by_site = true
"""
SEVERAL = {"north": 90, "east": 70, "south": 60, "west": 60, "ulm": 55, "graz": 50}


def simulated(folder, out, *, several=False, edit=lambda frame: frame):
    if several:
        text = (folder / "study.toml").read_text()
        (folder / "study.toml").write_text(text.replace('external = ["west"]', 'external = ["west", "ulm", "graz"]'))
    for site in ("west", "ulm", "graz")[: 3 if several else 1]:
        path = folder / "sites" / site / "patients.csv"
        edit(pd.read_csv(path)).to_csv(path, index=False)
    simulate(folder, out)
    return json.loads((out / "results.json").read_text())


def turned(frame):
    """The outcome of the external patients, less likely with age."""
    rng = np.random.default_rng(3)
    return frame.assign(outcome=(rng.random(len(frame)) < 1 / (1 + np.exp((frame["age"] - 60) / 6))).astype(int))


@pytest.fixture(scope="module", params=[False, True], ids=["one", "several"])
def run(request, write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("refit")
    sizes = SEVERAL if request.param else {"north": 90, "east": 70, "south": 60, "west": 90}
    folder = write_study(place / "study", STUDY, sizes=sizes)
    return folder, place / "out", simulated(folder, place / "out", several=request.param, edit=turned), request.param


def external(results, name):
    return results["models"][name]["cohorts"]["external"]["updating"]


def test_equals_statsmodels(run, pooled):
    folder, out, results, _ = run
    everybody = pooled(out, folder)
    patients = everybody[everybody["part"] == "external"].reset_index(drop=True)
    filled = patients["marker"].fillna(everybody.loc[everybody["part"] == "train", "marker"].median())
    columns = {"age": patients["age"], "stage=2": patients["stage"] == 2, "stage=3": patients["stage"] == 3}
    columns["marker"] = filled
    for name in ("full", "sparse"):
        model, y = results["models"][name], patients["outcome"].to_numpy(float)
        design = sm.add_constant(np.column_stack([columns[term].to_numpy(float) for term in model["selected"]]))
        score = design @ np.array([row["estimate"] for row in model["coefficients"]])
        none = float((y * score - np.logaddexp(0, score)).sum())
        large = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=score).fit(tol=1e-14)
        both = sm.Logit(y, sm.add_constant(score)).fit(disp=0, tol=1e-14)
        full = sm.Logit(y, design).fit(disp=0, tol=1e-14)
        found, p = external(results, name), design.shape[1] - 1
        for test, llf, df in zip(found["tests"], (none, large.llf, both.llf), (p + 1, p, p - 1), strict=True):
            assert test["chi2"] == pytest.approx(2 * (full.llf - llf), rel=1e-7)
            assert test["df"] == df
            assert test["p"] == pytest.approx(stats.chi2.sf(2 * (full.llf - llf), df), rel=1e-6)
        rows = found["models"]["refit"]["coefficients"]
        np.testing.assert_allclose([row["estimate"] for row in rows], full.params, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose([row["se"] for row in rows], full.bse, rtol=1e-6)


def test_only_external_patients_are_refitted_on(run):
    _, _, results, several = run
    cohorts = results["models"]["full"]["cohorts"]
    assert "refit" in external(results, "full")["models"]
    assert "refit" not in cohorts["train"]["updating"]["models"]
    assert "refit" not in cohorts["external/subgroup:stage=1"]["updating"].get("models", {})
    if several:
        assert "refit" in cohorts["external/site:west"]["updating"]["models"]  # at the site itself


def test_it_is_listed_and_reported(run):
    folder, out, _, several = run
    listed = [
        one for one in releases(load_study(folder)) if one.part == "external" and one.statistic == "logistic.terms"
    ]
    assert bool(listed) == several
    sums = [line for line in Ledger(out / "sites" / "west").entries() if line["kind"] == "sum"]
    of_external = {statistic for line in sums if "external" in line["parts"] for statistic in line["statistics"]}
    assert ("logistic.terms" in of_external) == several
    page = (out / "report.html").read_text()
    assert "coefficients refitted on external patients" in page
    assert "p, intercept and slope" in page


def test_too_few_patients_or_separation_withhold_the_refit_alone(write_study, tmp_path):
    folder = write_study(tmp_path / "study", STUDY, sizes={"north": 90, "east": 70, "south": 60, "west": 15})
    found = external(simulated(folder, tmp_path / "out"), "full")
    assert "needs 16 patients" in found["models"]["refit"]["withheld"]
    assert found["chosen"] in ("none", "intercept", "intercept_and_slope")
    folder = write_study(tmp_path / "again", STUDY, sizes={"north": 90, "east": 70, "south": 60, "west": 60})
    apart = simulated(
        folder, tmp_path / "out2", edit=lambda frame: frame.assign(outcome=(frame["stage"] == 3).astype(int))
    )
    assert "separates the outcome" in external(apart, "full")["models"]["refit"]["undefined"]


def test_only_models_with_coefficients_are_refitted(write_study, tmp_path):
    others = '\n[model.machine]\nkind = "linear_svm"\npredictors = ["age"]\n[model.hazard]\nkind = "cox"\n'
    others += 'endpoint = "os"\npredictors = ["age"]\n'
    study = load_study(write_study(tmp_path / "study", STUDY + others))
    assert [name for name in study.model if is_refitted(study, name)] == ["full", "sparse"]


def test_the_key_needs_patients_and_a_model(write_study, tmp_path):
    folder = write_study(tmp_path / "study", STUDY)
    text = (folder / "study.toml").read_text()
    unused = text.replace('updating = "refit"', 'updating = "recalibration"')
    plain = text.replace('updating = "refit"\n', "")
    hashes = []
    for name, written in (("asked", text), ("unused", unused), ("plain", plain)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.toml").write_text(written)
        hashes.append(load_study(tmp_path / name).hash)
    assert hashes[0] != hashes[1] == hashes[2]
    (folder / "study.toml").write_text(text.replace('external = ["west"]', ""))
    with pytest.raises(StudyError, match=r"updating = 'refit'.*needs external sites"):
        load_study(folder)
