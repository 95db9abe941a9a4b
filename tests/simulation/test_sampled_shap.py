"""Scores that are not linear, explained in a run: SHAP values and permutation importance of the pooled rows."""

import hashlib
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from cohortium.cli.main import main
from cohortium.client.classifiers import check_explained
from cohortium.client.predict.patients import in_table
from cohortium.client.predict.saved import open_model
from cohortium.client.predict.score import predict
from cohortium.common.cohort import keyed_hash
from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.common.model_files import DESCRIPTION, SUMS
from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.server.stages.columns import Column, Columns
from cohortium.server.stages.explain import _Explained
from cohortium.server.stages.fitted import Fit, FittedModel
from cohortium.simulation.simulate import simulate
from cohortium.strategies import permutation, score_bins, scoring, shapley, views
from cohortium.strategies.rows import Scored
from tests.simulation.prepared import sums_sent

TABLES = """
[model.net]
kind = "mlp"
hidden = [3]
predictors = ["age", "stage", "marker"]
iterations = 3

[model.kernel]
kind = "rff_svm"
components = 12
predictors = ["age", "marker"]

[model.forest]
kind = "gradient_boosting"
trees = 2
max_depth = 2
predictors = ["age", "stage", "marker"]

[model.head]
kind = "network"
predictors = ["age", "marker"]
rounds = 2
head = [4]

[model.plain]
kind = "logistic"
predictors = ["age", "stage"]

[validation]
explain = ["shap", "permutation"]
"""
MODELS = ("net", "kernel", "forest", "head")


@pytest.fixture(scope="module")
def run(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("shapley")
    folder = write_study(place / "study", TABLES)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('missing = "median"', 'missing = "indicator"'))
    simulate(folder, place / "out")
    return folder, place / "out", json.loads((place / "out" / "results.json").read_text())


@pytest.fixture(scope="module")
def train(run, pooled):
    """Everyone in training, side by side."""
    folder, out, _ = run
    rows = pooled(out, folder)
    return rows[rows["part"] == "train"].reset_index(drop=True)


def design(model, rows):
    """Standardised columns of pooled patients, by the model's folder."""
    stage = rows["stage"].to_numpy(float) - 1  # levels are 1, 2, 3
    columns = {"age": rows["age"].to_numpy(float), "stage": stage, "marker": rows["marker"].to_numpy(float)}
    context = model.context([str(i) for i in range(len(rows))], columns)
    return views.design(context, model.fit(model.saved.description.name), (), "final")


def by_definition(fit, x, background):
    """Shapley values of every patient, (n, groups): a mean over all orders of what each switch changes."""
    group, rows, _ = background
    groups = int(group.max()) + 1
    worth = {
        s: np.mean([scoring.linear_predictor(fit, np.where(np.isin(group, s), x, row)) for row in rows], axis=0)
        for k in range(groups + 1)
        for s in itertools.combinations(range(groups), k)
    }
    values, orders = np.zeros((len(x), groups)), list(itertools.permutations(range(groups)))
    for order in orders:
        for k, j in enumerate(order):
            values[:, j] += worth[tuple(sorted(order[: k + 1]))] - worth[tuple(sorted(order[:k]))]
    return values / len(orders)


@pytest.mark.parametrize("name", MODELS)
def test_values_are_those_of_the_pooled_rows(run, train, name):
    _, out, results = run
    explanation = results["models"][name]["explanation"]
    model = open_model(out / "models" / name)
    variables, background = model.background()
    x, fit = design(model, train), model.fit(name)
    sampling = explanation["shap_sampling"]
    assert sampling["patients"] == len(train) == 220
    assert sampling["background"]["rows"] == len(background.rows) == 100
    assert sampling["background"]["seed"] == results["study"]["seed"]
    exact = by_definition(fit, x, background)
    same = shapley.contributions(fit, x, background)
    found = {entry["variable"]: entry for entry in explanation["shap"]}
    assert np.all(np.diff([entry["mean_absolute"] for entry in explanation["shap"]]) <= 0)
    size = np.abs(exact).mean(axis=0).max()
    for j, variable in enumerate(variables):
        assert found[variable]["mean_absolute"] == pytest.approx(np.abs(same[:, j]).mean(), abs=1e-10)
        assert found[variable]["mean"] == pytest.approx(same[:, j].mean(), abs=1e-10)
        # 200 permutations; what is left to chance is how they mix
        assert found[variable]["mean_absolute"] == pytest.approx(np.abs(exact[:, j]).mean(), abs=0.03 * size)
    added = sum(entry["mean"] for entry in found.values())
    assert sampling["expected"] + added == pytest.approx(sampling["score"], abs=1e-10)
    assert sampling["score"] == pytest.approx(scoring.linear_predictor(fit, x).mean(), abs=1e-10)


def test_the_background_has_the_marginals_of_the_pooled_rows(run, train):
    _, out, _ = run
    model = open_model(out / "models" / "net")
    fit = model.fit("net")
    _, (_, rows, _) = model.background()
    raw = dict(zip(model.saved.description.columns, (rows * fit["scale"] + fit["centre"]).T, strict=True))
    shares = np.clip((np.arange(25) + 0.5) / 25, 5 / 220, 1 - 5 / 220)  # minimum_count patients lie beyond
    np.testing.assert_allclose(np.sort(raw["age"])[::4], np.quantile(train["age"], shares), atol=1e-9)
    for level in (2, 3):
        assert raw[f"stage={level}"].sum() == pytest.approx(100 * (train["stage"] == level).mean(), abs=1)
    gone = raw["marker:missing"] > 0.5
    assert gone.sum() == pytest.approx(100 * train["marker"].isna().mean(), abs=1)
    np.testing.assert_allclose(raw["marker"][gone], train["marker"].mean(), rtol=1e-9)  # what fills a gap, and so told
    known = np.quantile(train["marker"].dropna(), [0.1, 0.5, 0.9])
    # 25 values stand for the marginal, a few of them for the gaps
    np.testing.assert_allclose(np.quantile(raw["marker"][~gone], [0.1, 0.5, 0.9]), known, rtol=0.1)


def marginals(model, name, train):
    """Of each variable its place in the design, values (k, c) and weights (k,) over the pooled rows."""
    columns, fit = model.saved.description.columns, model.fit(name)
    shares = np.clip((np.arange(25) + 0.5) / 25, 5 / 220, 1 - 5 / 220)  # minimum_count patients lie beyond
    even = np.full(25, 0.04)
    gone, mean = train["marker"].isna().mean(), train["marker"].mean()
    filled = np.quantile(train["marker"].fillna(mean), shares)
    # the values nearest to the mean are those of who has none: as many make way, one of them in part
    left = even.copy()
    for k in np.argsort(np.abs(filled - mean)):
        left[k] -= (taken := min(0.04, gone - (0.04 * 25 - left.sum())))
        assert taken >= -1e-12
    found = {
        "age": (np.quantile(train["age"], shares)[:, None], even),
        "stage": (np.array([[0, 0], [1, 0], [0, 1.0]]), [(train["stage"] == level).mean() for level in (1, 2, 3)]),
        "marker": (
            np.column_stack([np.append(filled, mean), np.append(np.zeros(25), 1)]),
            np.append(left, gone),
        ),
    }
    for variable, (values, weights) in found.items():
        at = [i for i, column in enumerate(columns) if column.startswith(variable)]
        if at:
            yield variable, at, (values - fit["centre"][at]) / fit["scale"][at], weights


@pytest.mark.parametrize("name", MODELS)
def test_falls_of_the_auc_are_those_of_the_pooled_rows(run, train, name):
    """scikit-learn over every patient with every value of the marginal, in the bins of the pooled scores."""
    _, out, results = run
    found = results["models"][name]["explanation"]["permutation"]
    model = open_model(out / "models" / name)
    x, fit = design(model, train), model.fit(name)
    y = train["outcome"].to_numpy(float)
    risk = np.round(special.expit(scoring.linear_predictor(fit, x)), 4)
    rows = Scored(risk[:, None], y, np.zeros(len(y), np.int64))
    (lower,) = score_bins.edges(PooledSites([rows]), 1, scale="probability")

    def area(scores, weights):
        cells = np.searchsorted(lower, np.rint(1e4 * special.expit(np.concatenate(scores))), side="right")
        return roc_auc_score(np.tile(y, len(scores)), cells, sample_weight=np.repeat(weights, len(y)))

    assert found["patients"] == 220
    assert found["auc"] == pytest.approx(area([scoring.linear_predictor(fit, x)], [1.0]), abs=1e-10)
    falls = {entry["variable"]: entry["fall"] for entry in found["variables"]}
    asked = list(marginals(model, name, train))
    assert set(falls) == {variable for variable, *_ in asked}
    for variable, at, values, weights in asked:
        scores = []
        for value in values:
            drawn = x.copy()
            drawn[:, at] = value
            scores.append(scoring.linear_predictor(fit, drawn))
        expected = found["auc"] - area(scores, weights)
        assert falls[variable] == pytest.approx(expected, abs=1e-4)  # quantiles are found to 32 bits: a grid step or so


def test_a_part_of_the_patients_is_asked_about_in_wider_cells(write_study, pooled, tmp_path, monkeypatch):
    """A quarter of them, by the keyed hash of their ids; the sites' guards let as many cells through."""
    monkeypatch.setattr(permutation, "MOST_REPLACED", 220)
    forest = TABLES[TABLES.index("[model.forest]") : TABLES.index("[model.head]")]
    folder = write_study(tmp_path / "study", f'{forest}[validation]\nexplain = ["permutation"]\n')
    simulate(folder, tmp_path / "out")
    forest = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["forest"]
    found = forest["explanation"]["permutation"]
    rows = pooled(tmp_path / "out", folder)
    train = rows[rows["part"] == "train"]
    ids = zip(train["site"], train["patient_id"], strict=True)
    hashes = [keyed_hash("explain", 3, site, patient) for site, patient in ids]
    assert found["patients"] == sum(value % 4 == 0 for value in hashes)
    assert 0.5 < found["auc"] < 1


def test_a_model_of_many_variables_and_a_refusing_site_say_why(run, monkeypatch):
    columns = Columns(
        columns=tuple(Column(name=f"c{i}", variable=f"c{i}", source=("features", "deep", i, None)) for i in range(3)),
        **dict.fromkeys(("centre", "scale", "fill"), np.ones(3)),
    )
    fit = Fit(columns=columns, published={**columns.recipe, "head": [4], "weights": np.zeros(21, np.float32)})
    study = load_study(run[0])

    def refuse(*_, **__):
        raise SumRefused("explanation.contributions", "not on the allow list")

    federation = SimpleNamespace(study=study, rows=lambda _: SimpleNamespace(sum=refuse))
    model = _Explained(federation, "head", FittedModel(digest="", final=fit, replicates={}))
    for of in model.figures(("shap", "permutation")).values():
        assert "allow list" in of["withheld"]
    monkeypatch.setattr(shapley, "MOST_VARIABLES", 2)
    found = model.figures(("shap", "permutation", "nomogram"))
    for key in ("shap", "permutation"):
        assert "3 variables are too many to explain a score that is not linear; at most 2" in found[key]["undefined"]
    assert "not a linear function" in found["nomogram"]["undefined"]


def test_every_sum_was_listed_and_a_linear_model_is_explained_as_before(run):
    folder, out, results = run
    listed = {(one.part, one.statistic) for one in releases(load_study(folder))}
    sent = sums_sent(out)
    assert {"shapley.values", "permutation.replaced", "explanation.replaced"} <= sent.keys()
    assert sent.keys() <= {statistic for _, statistic in listed}
    assert {("train", "shapley.values"), ("train", "permutation.replaced")} <= listed
    linear = results["models"]["plain"]["explanation"]
    assert set(linear) == {"shap", "permutation"}
    assert set(linear["permutation"]) == {"auc", "variables"}
    page = (out / "report.html").read_text()
    assert "200 sampled permutations against 100 background rows" in page
    assert "Falls of the AUC over 220 patients" in page


@pytest.mark.parametrize("name", MODELS)
def test_predict_tells_what_each_variable_adds(run, capsys, name):
    _, out, _ = run
    folder = str(out / "models" / name)
    asked = ["predict", folder, "--set", "age=70", "--set", "stage=3", "--set", "marker=4.5"]
    assert main([*asked, "--json"]) == 0
    patient = json.loads(capsys.readouterr().out)["patients"][0]
    told = patient["contributions"]
    linear = told["expected"] + sum(entry["contribution"] for entry in told["predictors"])
    assert 1 / (1 + np.exp(-linear)) == pytest.approx(patient["risk"], abs=6e-5)  # risks are on a grid of 1e-4
    assert {"variable": "age", "value": 70.0}.items() <= told["predictors"][0].items()
    assert main(asked) == 0
    page = capsys.readouterr().out
    assert "contributions" in page
    assert f"{told['predictors'][0]['contribution']:+.4f}" in page


def test_several_patients_or_an_older_folder_have_none(run, tmp_path, capsys):
    _, out, _ = run
    (tmp_path / "two.csv").write_text("patient_id,age,stage,marker\na,70,3,4.5\nb,50,1,\n")
    model = open_model(out / "models" / "net")
    for prediction in predict(model, in_table(tmp_path / "two.csv", model.needs)):
        assert prediction.contributions == "given of one patient at a time"
    older = shutil.copytree(out / "models" / "net", tmp_path / "net")
    description = json.loads((older / DESCRIPTION).read_text())
    del description["background"]
    text = json.dumps(description)
    (older / DESCRIPTION).write_text(text)
    before = hashlib.sha256((out / "models" / "net" / DESCRIPTION).read_bytes()).hexdigest()
    sums = (older / SUMS).read_text().replace(before, hashlib.sha256(text.encode()).hexdigest())
    (older / SUMS).write_text(sums)
    assert main(["predict", str(older), "--set", "age=70", "--set", "stage=3", "--json"]) == 0
    patient = json.loads(capsys.readouterr().out)["patients"][0]
    assert "undefined" in patient["contributions"]


def test_a_site_explains_only_what_was_approved(run):
    study = load_study(run[0])
    view = {"kind": "keyed", "rows": {"endpoint": "outcome"}}
    orders = np.tile(np.arange(3), (100, 1))
    net = {"hidden": [3], "weights": np.zeros(1)}
    heap = np.zeros((2, 7))

    def ask(fit, *, patients=300, halvings=0, orders=orders, view=view, study=study):
        asked = {"fit": fit, "orders": orders, "halvings": halvings}
        check_explained(study, "shapley.values", view, asked, patients)

    def drawn(*, fit=net, patients=300, halvings=0, variables=3, group="outcome", study=study):
        asked = {"fit": fit, "replacements": [{}] * variables, "halvings": halvings}
        check_explained(study, "permutation.replaced", {**view, "group": group}, asked, patients)

    drawn()
    drawn(patients=100_000, halvings=1)
    for question in (
        {"fit": {"hidden": [4], "weights": np.zeros(1)}},
        {"halvings": 1},
        {"patients": 100_000},
        {"group": "os"},
        {"group": None},
    ):
        with pytest.raises(SumRefused, match="by permutation, or by fewer"):
            drawn(**question)
    with pytest.raises(SumRefused, match="contributions of more than 100 variables"):
        drawn(variables=101)

    ask(net)
    ask(net, patients=10_000, halvings=1)
    ask({"head": [4], "weights": np.zeros(1)})
    ask({"kernel": [0.4, 12, 3], "coefficients": np.zeros(13)})
    ask({"trees": {"feature": heap}, "base": 0.0})
    refused = [
        {"fit": {"hidden": [4], "weights": np.zeros(1)}},
        {"fit": {"coefficients": np.zeros(4)}},
        {"fit": {"kernel": [0.4, 500, 3], "coefficients": np.zeros(501)}},
        {"fit": {"kernel": [0.4, 12, 3], "coefficients": np.zeros(13), "head": [9]}},
        {"fit": {"trees": {"feature": np.zeros((9, 7))}, "base": 0.0}},
        {"fit": {"trees": {"feature": np.zeros((2, 63))}, "base": 0.0}},
        {"fit": net, "halvings": 1},
        {"fit": net, "patients": 10_000, "halvings": 0},
        {"fit": net, "orders": orders[:1]},
        {"fit": net, "view": {"kind": "keyed", "rows": {"endpoint": "os"}}},
        {"fit": net, "view": {"kind": "incomplete", "rows": {"endpoint": "outcome"}}},
        {"fit": net, "view": {**view, "group": "outcome"}},
    ]
    for question in refused:
        with pytest.raises(SumRefused, match="ask for what the sites approved"):
            ask(**question)
    silent = study.model_copy(update={"validation": study.validation.model_copy(update={"explain": ("nomogram",)})})
    with pytest.raises(SumRefused, match="explains no such model"):
        ask(net, study=silent)
    with pytest.raises(SumRefused, match="explains no such model"):
        drawn(study=silent)
