"""Classifiers in a whole study: what the sites scored is what the pooled patients give, and no sum was unlisted."""

import json

import numpy as np
import pytest
from scipy import special
from sklearn.svm import LinearSVC

from cohortium.common.errors import StudyError, SumRefused
from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.simulation.simulate import simulate
from tests.simulation.prepared import sums_sent

TABLES = """
internal_fraction = 0.3

[model.net]
kind = "mlp"
hidden = [3]
predictors = ["age", "stage", "marker"]
iterations = 8

[model.tnm]
kind = "staging"
predictors = ["stage", "age"]
points = { stage = { "1" = 0.1, "2" = 0.7, "3" = 1.4 }, age = 0.06 }
intercept = -4.0

[model.machine]
kind = "linear_svm"
C = 0.1
predictors = ["age", "stage"]
selection = [{ method = "correlation", r = 0.99 }]

[model.kernel]
kind = "rff_svm"
components = 12
predictors = ["age", "marker"]

[model.forest]
kind = "gradient_boosting"
trees = 4
max_depth = 2
predictors = ["age", "stage", "marker"]

[model.both]
kind = "logistic"
predictors = ["model.forest", "age"]
stack = "apparent"

[model.tnm_os]
kind = "staging"
endpoint = "os"
predictors = ["stage"]
points = { stage = { "2" = 0.7, "3" = 1.4 } }

[validation]
compare = [["net", "tnm"], ["forest", "machine"]]
"""


@pytest.fixture(scope="module")
def run(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("classifiers")
    folder = write_study(place / "study", TABLES)
    simulate(folder, place / "out")
    return folder, place / "out"


def test_points_are_added_up_and_nothing_is_fitted(run, pooled):
    folder, out = run
    table = pooled(out, folder)
    points = np.array([np.nan, 0.1, 0.7, 1.4])[table.stage]
    expected = special.expit(-4.0 + points + 0.06 * table.age)
    np.testing.assert_allclose(table["score.tnm"], expected, atol=5.1e-5)  # scores are rounded to 1e-4
    np.testing.assert_allclose(table["score.tnm_os"], np.array([np.nan, 0, 0.7, 1.4])[table.stage], atol=5.1e-5)


def test_the_machine_orders_patients_as_liblinear_on_the_pooled_rows(run, pooled):
    folder, out = run
    table = pooled(out, folder)
    train = (table.part == "train").to_numpy()
    raw = np.column_stack([table.age, table.stage == 2, table.stage == 3]).astype(float)
    x = (raw - raw[train].mean(axis=0)) / raw[train].std(axis=0, ddof=1)
    x = np.column_stack([np.ones(len(x)), x])
    machine = LinearSVC(C=0.1, dual=False, tol=1e-12, max_iter=10**6, fit_intercept=False)
    decision = machine.fit(x[train], table.outcome[train]).decision_function(x)
    notes = json.loads((out / "results.json").read_text())["models"]["machine"]["notes"]["platt"]
    expected = special.expit(notes["slope"] * decision + notes["offset"])
    np.testing.assert_allclose(table["score.machine"], expected, atol=6e-5)


def test_every_kind_has_figures_and_a_bundle(run):
    _, out = run
    results = json.loads((out / "results.json").read_text())
    for name, model in results["models"].items():
        figures = model["cohorts"]["internal"]
        where = figures["survival"]["c_index"] if name == "tnm_os" else figures["auc"]
        assert 0.4 < where["estimate"] < 0.95, name
        assert (out / "models" / name / "model.json").is_file()
    page = (out / "report.html").read_text()
    for words in ("Existing staging system", "Platt scaling", "Trees grown on sums", "equals pooled training"):
        assert words in page


def test_every_sum_was_listed(run):
    folder, out = run
    assert sums_sent(out).keys() <= {one.statistic for one in releases(load_study(folder))}


MISTAKES = {
    'kind = "staging"\npredictors = ["stage"]\npoints = { age = 1.0 }': "name the same variables",
    'kind = "staging"\npredictors = ["stage"]\npoints = { stage = { "4" = 1.0 } }': "no such level",
    'kind = "staging"\npredictors = ["stage"]\npoints = { stage = 1.0 }': "points a level",
    'kind = "staging"\npredictors = ["age"]\npoints = { age = { "1" = 1.0 } }': "continuous variable has no levels",
    'kind = "staging"\npredictors = ["age"]\npoints = { age = 1.0 }\nselection = ["screen"]': "selects nothing",
    'kind = "gradient_boosting"\npredictors = ["age"]\nmin_child_weight = 1': "fewer than minimum_count = 5",
    'kind = "mlp"\nendpoint = "os"\npredictors = ["age"]': "needs a binary one",
    'kind = "linear_svm"\npredictors = ["age"]\nc = 1.0': "C",
}


@pytest.mark.parametrize("table", MISTAKES)
def test_mistakes_are_named(table, write_study, tmp_path):
    folder = write_study(tmp_path / "study", f"\n[model.one]\n{table}\n")
    with pytest.raises(StudyError, match=MISTAKES[table]):
        load_study(folder)


def test_a_site_answers_training_only_as_approved(run):
    from cohortium.client import classifiers

    study = load_study(run[0])
    view = {"endpoint": "outcome"}

    def check(statistic, **parameters):
        classifiers.check(study, statistic, view, parameters, patients=150)

    heap, cuts = np.zeros((4, 7)), np.zeros((4, 14))
    check("mlp.gradient", hidden=[3])
    check("linear_svm.loss", kernel=None)
    check("linear_svm.loss", kernel=[0.5, 12, 3])
    check("gradient_boosting.histograms", feature=heap, cuts=cuts, level=1)
    for statistic, parameters in (
        ("mlp.gradient", {"hidden": [300]}),
        ("linear_svm.loss", {"kernel": [0.5, 500, 3]}),
        ("linear_svm.loss", {"kernel": [0.5, 12, 4]}),
        ("gradient_boosting.histograms", {"feature": heap, "cuts": cuts, "level": 2}),
        ("gradient_boosting.histograms", {"feature": heap, "cuts": np.zeros((4, 20)), "level": 1}),
        ("gradient_boosting.histograms", {"feature": heap, "cuts": np.zeros((400, 3)), "level": 1}),
        ("gradient_boosting.histograms", {"feature": np.zeros((5, 7)), "cuts": cuts, "level": 1}),
        ("gradient_boosting.histograms", {"feature": np.zeros((4, 63)), "cuts": cuts, "level": 1}),
    ):
        with pytest.raises(SumRefused, match="approved"):
            check(statistic, **parameters)
    view = {"endpoint": "os"}
    with pytest.raises(SumRefused, match="approved"):
        check("mlp.gradient", hidden=[3])
