"""A study of a number, from study.toml to the report, held against statsmodels, scikit-learn and the pooled rows."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import ElasticNet

from cohortium.cli.main import main
from cohortium.client import disclosure
from cohortium.client.predict.patients import in_table
from cohortium.client.predict.saved import open_model
from cohortium.client.predict.score import predict
from cohortium.common.errors import NotIdentifiable, StudyError, SumRefused
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.server.federation import table_columns
from cohortium.server.releases import releases
from cohortium.simulation.simulate import simulate
from cohortium.sites.patients import read_patients
from cohortium.sites.site_file import load_site
from cohortium.strategies import views
from cohortium.strategies.rows import Labelled
from tests.simulation.prepared import sums_sent
from tests.strategies.test_restricted_likelihood import restricted_maximum

NOISE = [f"noise{k}" for k in range(6)]
NAMES = ["age", *NOISE]
STUDY = f"""
internal_fraction = 0.25
folds = 3

{"".join(f'[[variable]]{chr(10)}name = "{name}"{chr(10)}kind = "continuous"{chr(10)}' for name in NOISE)}
[endpoint.volume]
kind = "continuous"
column = "volume"
unit = "mm3"
range = [0, 1e9]

[model.plain]
kind = "linear"
predictors = ["age", "stage", "noise0"]

[model.net]
kind = "lasso"
predictors = {json.dumps(NAMES)}
mixing = 0.5
folds = 3
n_lambda = 10

[model.refitted]
kind = "linear"
predictors = {json.dumps(NAMES)}
selection = [{{ method = "lasso", folds = 3, n_lambda = 10 }}]

[model.stepwise]
kind = "linear"
predictors = ["age", "stage", "noise0", "noise1", "noise2"]
selection = ["stepwise_aic"]

[model.by_p]
kind = "linear"
predictors = ["age", "stage", "noise0", "noise1", "noise2"]
selection = [{{ method = "stepwise_p", enter = 0.1, remove = 0.2 }}]

[model.rule]
kind = "staging"
predictors = ["age"]
points = {{ age = 1000 }}

[model.stacked]
kind = "linear"
predictors = ["model.net", "stage"]

[model.other]
kind = "logistic"
endpoint = "outcome"
predictors = ["age"]

[validation]
compare = [["plain", "net"]]
subgroups = ["stage"]
explain = ["shap", "permutation", "nomogram"]
by_site = true
leave_one_site_out = true
tau2 = "reml"
"""
ASKED = 'leave_one_site_out = true\ntau2 = "reml"\n'
LINEAR = ("plain", "net", "refitted", "rule", "stacked")
SIZES = {"north": 160, "east": 120, "south": 110, "central": 100, "west": 70}


@pytest.fixture(scope="module")
def run(write_study, pooled, tmp_path_factory):
    place = tmp_path_factory.mktemp("continuous")
    folder = write_study(place / "study", STUDY, primary="volume", sizes=SIZES)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('"south"]', '"south", "central"]'))
    for k, path in enumerate(sorted(folder.glob("sites/*/patients.csv"))):
        rows = pd.read_csv(path)
        rng = np.random.default_rng(k)
        volume = 3e4 + 900 * rows.age + 4e3 * rows.stage - 2e3 * rows.noise1 + rng.normal(0, 9e3, len(rows))
        rows.assign(volume=volume.round(1)).to_csv(path, index=False)
    simulate(folder, place / "out")
    rows = pooled(place / "out", folder)
    results = json.loads((place / "out" / "results.json").read_text())
    return place / "out", results, rows


def design(rows, names=("age", "noise0")):
    stage = pd.get_dummies(rows.stage, dtype=float)[[2, 3]]
    return sm.add_constant(np.column_stack([rows["age"], stage, rows["noise0"]]) if names else stage)


def test_least_squares_is_statsmodels(run):
    _, results, rows = run
    train = rows[rows.part == "train"]
    theirs = sm.OLS(train.volume.to_numpy(), design(train)).fit()
    ours = results["models"]["plain"]
    assert [row["term"] for row in ours["coefficients"]] == ["(Intercept)", "age", "stage=2", "stage=3", "noise0"]
    for key, values in (("estimate", theirs.params), ("se", theirs.bse), ("ci", theirs.conf_int())):
        np.testing.assert_allclose([row[key] for row in ours["coefficients"]], values, rtol=1e-8)
    np.testing.assert_allclose([row["p"] for row in ours["coefficients"]], theirs.pvalues, rtol=1e-6, atol=1e-300)
    notes = ours["notes"]
    assert notes["r_squared"] == pytest.approx(theirs.rsquared, rel=1e-9)
    assert notes["adjusted_r_squared"] == pytest.approx(theirs.rsquared_adj, rel=1e-9)
    assert notes["residual_sd"] == pytest.approx(np.sqrt(theirs.scale), rel=1e-9)
    assert notes["f_test"]["f"] == pytest.approx(theirs.fvalue, rel=1e-8)
    assert notes["f_test"]["p"] == pytest.approx(theirs.f_pvalue, rel=1e-6)
    assert "ratio" not in ours["coefficients"][1]


def test_elastic_net_is_scikit_learns(run):
    _, results, rows = run
    train = rows[rows.part == "train"]
    x, y = train[NAMES].to_numpy(float), train.volume.to_numpy()
    scale, spread = x.std(0, ddof=1), y.std(ddof=1)
    penalty = results["models"]["net"]["notes"]["lambda"]
    theirs = ElasticNet(alpha=penalty, l1_ratio=0.5, tol=1e-14, max_iter=100_000).fit(
        (x - x.mean(0)) / scale, (y - y.mean()) / spread
    )
    ours = {row["term"]: row["estimate"] for row in results["models"]["net"]["coefficients"]}
    np.testing.assert_allclose([ours.get(n, 0) for n in NAMES], theirs.coef_ * spread / scale, rtol=1e-8, atol=1e-6)
    raw = train[[*ours][1:]].to_numpy() @ np.array([*ours.values()])[1:] + ours["(Intercept)"]
    np.testing.assert_allclose(train["fit.net"], raw, rtol=1e-10)


def test_stepwise_is_the_search_over_the_pooled_rows(run):
    """AIC of statsmodels; it and R's step differ from each other by the same constant in all models."""
    _, results, rows = run
    train, names = rows[rows.part == "train"], ["age", "stage", "noise0", "noise1", "noise2"]

    def fit(some):
        x = {"const": np.ones(len(train))} | {name: train[name] for name in some if name != "stage"}
        x |= {f"stage={k}": (train.stage == k) * 1.0 for k in (2, 3) if "stage" in some}
        return sm.OLS(train.volume.to_numpy(), pd.DataFrame(x, index=train.index).to_numpy(float)).fit()

    current, steps = list(names), []
    while True:
        tried = min((fit([n for n in names if (n in current) != (n == name)]).aic, name) for name in names)
        if tried[0] >= fit(current).aic:
            break
        current = [n for n in names if (n in current) != (n == tried[1])]
        steps.append(tried)
    ours = results["models"]["stepwise"]
    (told,) = ours["notes"]["selection"]
    assert [step.get("remove") or step.get("add") for step in told["steps"]] == [name for _, name in steps]
    assert [step["aic"] for step in told["steps"]] == pytest.approx([aic for aic, _ in steps], rel=1e-10)
    assert steps
    assert len(ours["coefficients"]) == len(fit(current).params)
    (told,) = results["models"]["by_p"]["notes"]["selection"]
    first = {n: fit([n]).compare_lr_test(fit([]))[1] for n in names}
    assert told["steps"][0] == {"add": min(first, key=lambda n: first[n]), "p": pytest.approx(min(first.values()))}
    assert {"age", "stage=2", "stage=3"} <= set(results["models"]["by_p"]["selected"])


def cohort_rows(rows, cohort):
    part = {"cross_validated": "train", "leave_one_site_out": "train"}.get(cohort, cohort)
    return rows[rows.part == part]


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("cohort", ["train", "cross_validated", "leave_one_site_out", "internal", "external"])
def test_figures_are_those_of_the_pooled_predictions(run, cohort, name):
    _, results, rows = run
    found = results["models"][name]["cohorts"]
    figures = found[f"{cohort}/site:west"] if cohort == "external" and cohort not in found else found[cohort]
    mine = cohort_rows(rows, cohort)
    column = {"train": "fit", "leave_one_site_out": "loso"}.get(cohort, "score")
    y, s = mine.volume.to_numpy(), mine[f"{column}.{name}"].to_numpy()
    assert figures["n"] == len(mine)
    assert figures["r_squared"] == pytest.approx(metrics.r2_score(y, s), rel=1e-9)
    assert figures["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, s), rel=1e-12)
    assert figures["mae"] == pytest.approx(metrics.mean_absolute_error(y, s), rel=1e-12)
    r = stats.pearsonr(y, s)
    assert figures["correlation"] == pytest.approx(r.statistic, rel=1e-9)
    assert figures["correlation_ci"] == pytest.approx(list(r.confidence_interval()), rel=1e-8)
    line = sm.OLS(y, sm.add_constant(s)).fit()
    for at, key in enumerate(("intercept", "slope")):
        assert figures["calibration"][key] == pytest.approx(line.params[at], rel=1e-8, abs=1e-6)
        assert figures["calibration"][f"{key}_se"] == pytest.approx(line.bse[at], rel=1e-8)
        assert figures["calibration"][f"{key}_ci"] == pytest.approx(list(line.conf_int()[at]), rel=1e-7)
    agreement, error = figures["bland_altman"], s - y
    assert agreement["sd"] == pytest.approx(error.std(ddof=1), rel=1e-12)
    assert agreement["mean_difference"] == pytest.approx(error.mean(), rel=1e-9, abs=1e-6)
    assert agreement["upper"] == pytest.approx(error.mean() + 1.959964 * error.std(ddof=1), rel=1e-6)


def test_sites_differ_as_their_own_figures_do(run):
    out, results, rows = run
    ours = results["models"]["plain"]["cohorts"]["leave_one_site_out"]["heterogeneity"]
    train = rows[rows.part == "train"]
    own = [(g["loso.plain"] - g.volume, sm.OLS(g.volume, sm.add_constant(g["loso.plain"])).fit())
           for _, g in train.groupby("site")]  # fmt: skip
    for figure, found in {
        "mean_difference": [(error.mean(), stats.sem(error) ** 2) for error, _ in own],
        "calibration.slope": [(line.params.iloc[1], line.bse.iloc[1] ** 2) for _, line in own],
    }.items():
        b, v = np.array(found).T
        record = ours[figure]
        assert (record["sites"], record["method"], record["scale"]) == (4, "REML", "identity")
        assert record["tau2"] == pytest.approx(restricted_maximum(b, v), rel=1e-6, abs=1e-8 * v.mean())
        w = 1 / (v + record["tau2"])
        assert record["estimate"] == pytest.approx(w @ b / w.sum(), rel=1e-7)
    assert 0 < ours["r_squared"]["estimate"] < 1
    page = (out / "report.html").read_text()
    assert "variance between sites by REML" in page
    assert "Mean error" in page


def test_the_pair_is_compared_by_its_absolute_errors(run):
    _, results, rows = run
    (entry,) = [e for e in results["comparisons"] if e["cohort"] == "internal"]
    mine = rows[rows.part == "internal"]
    a, b = (np.abs(mine[f"score.{name}"] - mine.volume) for name in ("plain", "net"))
    t = stats.ttest_rel(a, b)
    assert entry["test"] == "absolute_error"
    assert entry["difference"] == pytest.approx((a - b).mean(), rel=1e-9)
    assert entry["z"] == pytest.approx(t.statistic, rel=1e-9)


def test_subgroups_differ_in_slope_by_the_wald_test(run):
    _, results, rows = run
    (entry,) = [e for e in results["interactions"] if e["cohort"] == "train" and e["model"] == "plain"]
    mine = rows[rows.part == "train"]
    fits = [sm.OLS(g.volume, sm.add_constant(g["fit.plain"])).fit() for _, g in mine.groupby("stage")]
    slopes, weights = np.array([f.params.iloc[1] for f in fits]), np.array([f.bse.iloc[1] ** -2 for f in fits])
    expected = weights @ (slopes - np.average(slopes, weights=weights)) ** 2
    assert entry["chi2"] == pytest.approx(expected, rel=1e-6)


def test_table_one_has_one_group(run):
    _, results, rows = run
    train = rows[rows.part == "train"]
    age = next(e for e in results["table_one"] if e["variable"] == "age" and e["cohort"] == "train")
    assert list(age["groups"]) == ["all"]
    assert age["groups"]["all"]["mean"] == pytest.approx(train.age.mean())
    assert "nothing is compared" in age["p"]["undefined"]
    stage = next(e for e in results["table_one"] if e["variable"] == "stage" and e["cohort"] == "train")
    assert stage["groups"]["all"]["levels"]["2"] == (train.stage == 2).sum()


def test_nothing_is_said_of_classes(run):
    out, results, _ = run
    assert not {"auc", "at_cutoff", "decision_curve", "survival"} & set(results["models"]["plain"]["cohorts"]["train"])
    assert "auc" in results["models"]["other"]["cohorts"]["train"]
    permuted = results["models"]["plain"]["explanation"]["permutation"]
    assert "undefined" in permuted
    page = " ".join((out / "report.html").read_text().split())
    assert "A number is predicted, not a class" in page
    assert "Root mean squared error" in page
    assert "Odds ratio" not in page.partition("Model plain")[2].partition("Model net")[0]


def test_every_sum_was_listed(run):
    out, _, _ = run
    assert sums_sent(out).keys() <= {one.statistic for one in releases(load_study(out))}


@pytest.mark.parametrize("name", LINEAR)
def test_the_saved_model_predicts_what_the_sites_wrote(run, name, tmp_path):
    out, _, rows = run
    path = tmp_path / "patients.csv"
    rows[["patient_id", *NAMES, "stage"]].to_csv(path, index=False)
    model = open_model(out / "models" / name)
    found = predict(model, in_table(path, model.needs))
    theirs = rows.set_index("patient_id")[f"fit.{name}"]
    # the tables were read by pandas, which gets the last digit of some numbers wrong
    assert {p.patient_id: p.score for p in found} == pytest.approx(theirs.to_dict(), rel=1e-14)
    assert not any(isinstance(p.survival, list) or p.group for p in found)


def test_intervals_of_new_patients_are_statsmodels_of_the_mean(run, tmp_path, capsys):
    out, _, rows = run
    train, path = rows[rows.part == "train"], tmp_path / "patients.csv"
    rows[["patient_id", *NAMES, "stage"]].to_csv(path, index=False)
    fitted = sm.OLS(train.volume.to_numpy(), design(train)).fit().get_prediction(design(rows)).conf_int()
    model = open_model(out / "models" / "plain")
    ours = [p.interval for p in predict(model, in_table(path, model.needs))]
    np.testing.assert_allclose(ours, fitted, rtol=1e-8)
    main(["predict", str(out / "models" / "plain"), "--set", "age=60", "--set", "stage=2", "--set", "noise0=0"])
    assert "mm3" in (page := capsys.readouterr().out)
    assert "a single one varies more" in page


def test_who_has_no_usable_number_is_excluded(run, tmp_path):
    out, _, _ = run
    table = pd.DataFrame({"patient_id": list("abcdef"), "age": 60, "stage": 1, "marker": 1.5, "outcome": 1})
    table = table.assign(time=5, death=0, **dict.fromkeys(NOISE, 0.5), volume=["12.5", "", "large", "-1", "1e400", "0"])
    table.to_csv(tmp_path / "patients.csv", index=False)
    (tmp_path / "site.toml").write_text('[site]\nname = "west"\n[data]\npatients = "patients.csv"\n')
    found = read_patients(load_study(out), load_site(tmp_path / "site.toml"))
    assert found.frame["endpoint.volume"].tolist() == [12.5, 0]
    reasons = {exclusion.patient_id: exclusion.reason for exclusion in found.exclusions}
    not_a_number = "volume is not a number"
    assert reasons == {"b": "volume is missing", "c": not_a_number, "d": "volume out of range", "e": not_a_number}


@pytest.mark.parametrize("kind", ["outcome", "labelled"])
def test_times_and_classes_are_no_numbers(run, kind):
    study = load_study(run[0])
    nobody = views.Context(table=Table.empty(table_columns(study, ())), study=study, site="", objects={})
    recipe = {"blocks": [], "centre": 0, "scale": 1, "fill": 0, "outcome": {"centre": 0.0, "scale": 1.0}}
    with pytest.raises(SumRefused, match="is no number"):
        views.build({"kind": kind, "rows": {"part": "train"}, "endpoint": "os", **recipe}, nobody)


@pytest.mark.parametrize(
    ("statistic", "kind"),
    [
        ("quantiles.top_bytes", "outcome"),
        ("rank_tests.split", "predicted"),
        ("levels.level_counts", "outcome"),
        ("local_fits.shares", "labelled"),
        ("moments.power_sums", "matrix"),
    ],
)
def test_no_single_outcome_leaves(run, statistic, kind):
    view = {"kind": kind, "rows": {"part": "train"}, "endpoint": "volume", "outcome": {"centre": 0.0, "scale": 1.0}}
    rows = Labelled(np.empty((0, 1)), np.empty(0), np.empty(0, np.int64))
    with pytest.raises(SumRefused, match="only sums of values, squares and products"):
        disclosure.check(load_study(run[0]), statistic, view, {}, rows)


def test_the_outcome_is_a_column_of_the_second_moments():
    rows = Labelled(np.empty((0, 3)), np.empty(0), np.empty(0, np.int64))
    assert disclosure.width("linear.cross_products", {}, rows) == 4


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'kind = "linear"\npredictors = ["age", "stage"',
            'kind = "logistic"\npredictors = ["age", "stage"',
            "a binary one",
        ),
        (
            'method = "lasso", folds = 3, n_lambda = 10',
            'method = "screen"',
            "of a continuous endpoint lasso and the stepwise",
        ),
        ("mixing = 0.5", 'aggregation = "fedavg"', "averages fits of classes or times"),
        ("by_site = true", 'survival = "os"', "predicts a number"),
        ("by_site = true", 'cutoff = "log_rank"', "needs a survival primary endpoint"),
        ("by_site = true", "\n[table_one]\nrank_tests = true", "a number makes none"),
        ("range = [0, 1e9]", "range = [1, 0]", "the first number must be below the second"),
        ("range = [0, 1e9]", "\n[privacy.dp]\nepsilon = 1.0\ndelta = 1e-5", "leave continuous ones out"),
        (
            "by_site = true",
            'by_site = true\n[[validation.analysis]]\nmodel = "other"\nendpoint = "volume"',
            "a number against classes or times",
        ),
    ],
)
def test_what_takes_classes_is_refused(write_study, tmp_path, old, new, told):
    text = STUDY.replace(old, new, 1)
    assert text != STUDY
    with pytest.raises(StudyError, match=told):
        load_study(write_study(tmp_path, text.replace(ASKED, ""), primary="volume"))


def test_the_page_has_intervals_units_and_no_noise(run):
    out, results, _ = run
    page = (out / "report.html").read_text()
    age = results["models"]["plain"]["coefficients"][1]
    low, high = age["ci"]
    assert f"{age['estimate']:.3f} ({low:.3f}–{high:.3f})" in page.replace("\u202f", "")
    assert "Coefficient (95% CI)" in page
    assert "volume (mm3)" in page
    assert "explained variance" in page
    assert not re.search(r">[−]?[0-9.]+×10⁻¹[0-9] \[", page)


@pytest.mark.parametrize(
    ("volume", "told"),
    [(5.0, "the outcome has one value in the training patients"), (1e30, "holds a value beyond")],
)
def test_an_outcome_that_cannot_be_fitted_is_named(write_study, tmp_path, volume, told):
    tables = '[endpoint.volume]\nkind = "continuous"\ncolumn = "volume"\n\n'
    tables += '[model.plain]\nkind = "linear"\npredictors = ["age"]\n'
    folder = write_study(tmp_path / "study", tables, primary="volume")
    for path in folder.glob("sites/*/patients.csv"):
        pd.read_csv(path).assign(volume=volume).to_csv(path, index=False)
    with pytest.raises((NotIdentifiable, SumRefused), match=told):
        simulate(folder, tmp_path / "out")
