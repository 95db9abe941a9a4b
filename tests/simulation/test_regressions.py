"""Ways to fit logistic and Cox models, from study.toml to results.json and the report: equal to pooled statsmodels."""

import json
import math
import tomllib

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter
from scipy import optimize, stats

from cohortium.client import disclosure
from cohortium.common.errors import StudyError, SumRefused
from cohortium.common.study import load_study, parse_study
from cohortium.common.study_analysis import CoxModel, LogisticModel, Validation
from cohortium.common.table import Table
from cohortium.server.releases import releases
from cohortium.simulation.preview import preview
from cohortium.simulation.simulate import simulate
from tests.simulation.prepared import sums_sent
from tests.strategies.test_firth import penalised
from tests.strategies.test_restricted_likelihood import restricted_maximum

NOISE = [f"noise{k}" for k in range(3)]
ALL = json.dumps(["age", "stage", *NOISE])
TABLES = f"""
internal_fraction = 0.2
folds = 3

[model.plain]
kind = "logistic"
predictors = {ALL}
tests = "likelihood_ratio"

[model.chosen]
kind = "logistic"
predictors = {ALL}
selection = ["stepwise_aic"]

[model.by_p]
kind = "logistic"
predictors = {ALL}
selection = [{{ method = "stepwise_p", enter = 0.2, remove = 0.3 }}]

[model.firth]
kind = "logistic"
predictors = ["age", "stage"]
penalty = "firth"
tests = "likelihood_ratio"
intervals = "profile"

[model.by_site]
kind = "logistic"
predictors = ["age", "stage"]
site_effects = "fixed"

[model.random]
kind = "logistic"
predictors = ["age"]
site_effects = "random"

[model.meta]
kind = "logistic"
predictors = ["age"]
aggregation = "meta"

[model.reml]
kind = "logistic"
predictors = ["age"]
aggregation = "meta"
tau2 = "reml"

[model.cox]
kind = "cox"
endpoint = "os"
predictors = ["age", "stage"]
tests = "likelihood_ratio"
proportional_hazards = "log"

[model.cox_chosen]
kind = "cox"
endpoint = "os"
predictors = {ALL}
selection = [{{ method = "stepwise_aic", direction = "forward" }}]

[model.cox_firth]
kind = "cox"
endpoint = "os"
strata = "none"
predictors = ["age", "stage"]
penalty = "firth"
intervals = "profile"
proportional_hazards = "identity"
""" + "".join(f'\n[[variable]]\nname = "{name}"\nkind = "continuous"\n' for name in NOISE)


@pytest.fixture(scope="module")
def run(write_study, pooled, tmp_path_factory):
    place = tmp_path_factory.mktemp("regressions")
    folder = write_study(place / "study", TABLES)
    simulate(folder, place / "out")
    rows = pooled(place / "out", folder)
    return json.loads((place / "out" / "results.json").read_text()), rows[rows.part == "train"], place / "out"


def design(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    columns = {}
    for name in names:
        if name == "stage":
            columns |= {"stage=2": (rows.stage == 2) * 1.0, "stage=3": (rows.stage == 3) * 1.0}
        else:
            columns[name] = rows[name].astype(float)
    return pd.DataFrame(columns)


def pooled_fit(rows: pd.DataFrame, names: list[str]):
    x = sm.add_constant(design(rows, names), has_constant="add") if names else np.ones((len(rows), 1))
    return sm.Logit(rows.outcome, x).fit(disp=0, method="newton", tol=1e-13)


def estimates(results: dict, model: str) -> dict[str, dict]:
    return {row["term"]: row for row in results["models"][model]["coefficients"]}


def test_likelihood_ratio_of_each_whole_variable(run):
    results, rows, _ = run
    notes = results["models"]["plain"]["notes"]
    names = ["age", "stage", *NOISE]
    full = pooled_fit(rows, names)
    assert notes["likelihood_ratio"]["chi2"] == pytest.approx(full.llr, rel=1e-8)
    assert notes["bic"] == pytest.approx(full.bic, rel=1e-10)
    for test in notes["likelihood_ratio"]["variables"]:
        without = pooled_fit(rows, [name for name in names if name != test["variable"]])
        chi2, df = 2 * (full.llf - without.llf), 2 if test["variable"] == "stage" else 1
        assert test["df"] == df
        assert test["chi2"] == pytest.approx(chi2, abs=1e-8)
        assert test["p"] == pytest.approx(stats.chi2.sf(chi2, df), rel=1e-6)
    assert [entry["variable"] for entry in notes["variance_inflation"]] == names


def test_stepwise_chooses_what_the_pooled_search_chooses(run):
    results, rows, _ = run
    names, steps = ["age", "stage", *NOISE], []
    current = list(names)
    while True:
        tried = [(pooled_fit(rows, [n for n in names if (n in current) != (n == name)]).aic, name) for name in names]
        if min(tried)[0] >= pooled_fit(rows, current).aic:
            break
        current = [n for n in names if (n in current) != (n == min(tried)[1])]
        steps.append(min(tried)[1])
    (told,) = results["models"]["chosen"]["notes"]["selection"]
    assert [step.get("remove") or step.get("add") for step in told["steps"]] == steps
    assert results["models"]["chosen"]["selected"] == list(design(rows, current).columns)
    assert results["models"]["by_p"]["selected"]


def test_site_effects_equal_dummies(run):
    results, rows, _ = run
    x = design(rows, ["age", "stage"]).join(pd.get_dummies(rows.site).astype(float))
    theirs = sm.Logit(rows.outcome, x).fit(disp=0, method="newton", tol=1e-13)
    ours = estimates(results, "by_site")
    for term in ("age", "stage=2", "stage=3"):
        assert ours[term]["estimate"] == pytest.approx(theirs.params[term], rel=1e-8)
        assert ours[term]["se"] == pytest.approx(theirs.bse[term], rel=1e-8)
    weights = rows.site.value_counts(normalize=True)
    mean = sum(weights[site] * theirs.params[site] for site in weights.index)
    told = results["models"]["by_site"]["notes"]["site_effects"]
    assert told["mean_intercept"] == pytest.approx(mean, rel=1e-8)
    score = rows["fit.by_site"]
    expected = 1 / (1 + np.exp(-(mean + x.iloc[:, :3] @ theirs.params.iloc[:3])))
    np.testing.assert_allclose(score, expected, atol=6e-5)  # of the grid of 1e-4


def test_random_intercept_and_meta_analysis_are_told(run):
    results, _, _ = run
    told = results["models"]["random"]["notes"]["site_effects"]
    assert told["sd"] >= 0
    assert told["median_odds_ratio"] >= 1
    assert told["on_the_edge"] == (told["sd"] == 0)
    meta = results["models"]["meta"]["notes"]["meta_analysis"]
    assert meta["sites"] == 3
    assert 0 <= meta["terms"][0]["i2"] <= 1
    assert results["models"]["meta"]["coefficients"][0]["term"] == "age"
    reml = results["models"]["reml"]["notes"]["meta_analysis"]
    assert (meta["method"], reml["method"]) == ("DerSimonian-Laird", "REML")
    local = [
        sm.Logit(g.outcome, sm.add_constant(g[["age"]] * 1.0)).fit(disp=0, tol=1e-13) for _, g in run[1].groupby("site")
    ]
    b, v = np.array([(fit.params.age, fit.bse.age**2) for fit in local]).T
    assert reml["terms"][0]["tau2"] == pytest.approx(restricted_maximum(b, v), rel=1e-5, abs=1e-8 * v.mean())


def test_reml_is_an_opt_in_and_is_refused_elsewhere(run):
    study = load_study(run[2])
    assert study.opt_ins == ("tau2",)
    usual = parse_study(tomllib.loads((run[2] / "study.toml").read_text().replace('tau2 = "reml"', "")))
    assert usual.opt_ins == ()
    view = {"kind": "labelled", "rows": {"part": "train"}, "endpoint": "outcome"}
    with pytest.raises(SumRefused, match="no meta-analysis by REML"):
        disclosure.check(usual, "meta_analysis.restricted", view, {}, None)
    disclosure.check(study, "meta_analysis.restricted", view, {}, None)


def test_cox_tests(run):
    results, rows, _ = run
    x = design(rows, ["age", "stage"]).assign(time=rows.time, death=rows.death, site=rows.site)
    x = x[x.time > 0]
    theirs = CoxPHFitter().fit(x, "time", "death", strata="site", fit_options={"precision": 1e-12})
    notes = results["models"]["cox"]["notes"]
    assert notes["likelihood_ratio"]["chi2"] == pytest.approx(
        theirs.log_likelihood_ratio_test().test_statistic, rel=1e-8
    )
    assert [test["df"] for test in notes["likelihood_ratio"]["variables"]] == [1, 2]
    from lifelines.statistics import proportional_hazard_test

    test = proportional_hazard_test(theirs, x, time_transform=lambda time, *_: np.log(time))
    ours = [term["chi2"] for term in notes["proportional_hazards"]["terms"]]
    np.testing.assert_allclose(ours, test.test_statistic, rtol=1e-5)
    assert results["models"]["cox_chosen"]["notes"]["selection"][0]["method"] == "stepwise_aic"
    pooled = results["models"]["cox_firth"]["notes"]
    assert pooled["penalty"] == "firth"
    assert math.isfinite(pooled["proportional_hazards"]["global"]["p"])


def test_firth_is_close_to_maximum_likelihood_where_that_exists(run):
    results, rows, _ = run
    theirs = pooled_fit(rows, ["age", "stage"])
    ours = estimates(results, "firth")
    assert abs(ours["age"]["estimate"] - theirs.params["age"]) < 0.2 * theirs.bse["age"]
    assert len(results["models"]["firth"]["notes"]["likelihood_ratio"]["variables"]) == 2


def test_profile_intervals_lie_where_the_penalised_likelihood_has_lost_enough(run):
    results, rows, out = run
    x, y = sm.add_constant(design(rows, ["age", "stage"])).to_numpy(), rows.outcome.to_numpy()
    ours = list(estimates(results, "firth").values())
    top = penalised(np.array([row["estimate"] for row in ours]), x, y)[0]
    for k, row in enumerate(ours):
        lost = []
        for value in (0.0, *row["profile_ci"]):

            def score(b, k=k, value=value):
                return np.delete(penalised(np.insert(b, k, value), x, y)[1], k)

            b = optimize.root(score, np.delete([other["estimate"] for other in ours], k), tol=1e-12).x
            lost.append(2 * (penalised(np.insert(b, k, value), x, y)[0] - top))
        assert lost[1:] == pytest.approx([stats.chi2.ppf(0.95, 1)] * 2, rel=1e-6)
        assert row["profile_p"] == pytest.approx(stats.chi2.sf(lost[0], 1), rel=1e-6)
        if k:
            assert row["profile_ratio_ci"] == pytest.approx(np.exp(row["profile_ci"]))
    low, high = estimates(results, "cox_firth")["age"]["profile_ci"]
    assert low < estimates(results, "cox_firth")["age"]["estimate"] < high
    assert "profile_ci" not in estimates(results, "plain")["age"]
    page = (out / "report.html").read_text()
    assert "Odds ratio (95% CI, profile)" in page
    assert "95% CI, Wald" in page


def test_every_sum_was_listed(run):
    _, _, out = run
    listed = {one.statistic for one in releases(load_study(out))}
    sent = sums_sent(out)
    assert sent.keys() <= listed
    assert {"firth.correction", "firth_cox.moments", "site_effects.marginal", "meta_analysis.restricted"} <= sent.keys()
    assert {"site_effects.intercept", "proportional_hazards.stratum", "proportional_hazards.observed"} <= sent.keys()


def test_a_site_can_rehearse_it(run):
    _, _, out = run
    (table,) = (out / "sites" / "north").glob("prepared/*/table.parquet")
    assert preview(load_study(out), Table.read(table), ("*",)).stopped == ""


def test_the_report_says_it(run):
    _, _, out = run
    page = (out / "report.html").read_text()
    for words in (
        "Likelihood-ratio test",
        "Variance inflation",
        "Firth",
        "DerSimonian",
        "scaled Schoenfeld residuals",
        "stepwise AIC",
        "stepwise likelihood-ratio tests",
        "an intercept of its own",
        "median odds ratio",
    ):
        assert words in page


def test_a_study_without_these_keeps_its_hash():
    logistic = LogisticModel(kind="logistic", predictors=("age",)).model_dump()
    cox = CoxModel(kind="cox", predictors=("age",)).model_dump()
    assert not {"tests", "intervals", "site_effects", "proportional_hazards", "tau2"} & {*logistic, *cox}
    assert "tau2" not in Validation().model_dump()
    with pytest.raises(ValueError, match="is of a meta-analysis"):
        LogisticModel(kind="logistic", predictors=("age",), tau2="reml")
    with pytest.raises(ValueError, match="add leave_one_site_out = true"):
        Validation(tau2="reml")
    with pytest.raises(ValueError, match="different fits"):
        LogisticModel(kind="logistic", predictors=("age",), penalty="firth", site_effects="fixed")


def test_profiles_are_of_a_penalised_likelihood(run):
    text = (run[2] / "study.toml").read_text().replace('tests = "likelihood_ratio"', 'intervals = "profile"', 1)
    with pytest.raises(StudyError, match="is of a penalised likelihood"):
        parse_study(tomllib.loads(text))
