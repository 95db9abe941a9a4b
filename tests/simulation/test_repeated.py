"""Repeated cross-validation and optimism: recomputed from predictions.csv and from pooled refits, beside plain runs."""

import hashlib
import hmac
import tomllib

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from scipy import special
from sklearn.linear_model import LinearRegression
from sklearn.metrics import brier_score_loss, r2_score, roc_auc_score, root_mean_squared_error

from cohortium.common.errors import StudyError
from cohortium.common.study import load_study, parse_study
from cohortium.common.table import Table
from cohortium.server.releases import releases
from cohortium.server.report.build import build_report
from cohortium.server.stages.replicates import in_words, replicates
from cohortium.strategies.cohort_figures import CohortSpec
from tests.simulation.prepared import run_on_tables, sums_sent

STUDY = """
[study]
name = "again"
primary = "outcome"
seed = 5

[endpoint.outcome]
kind = "binary"
column = "outcome"

[endpoint.death]
kind = "survival"
time = "days"
event = "dead"
unit = "days"

[endpoint.dose]
kind = "continuous"
column = "dose"

[[variable]]
name = "age"
kind = "continuous"

[[variable]]
name = "marker"
kind = "continuous"
missing = "mean"

[split]
train = ["north", "east", "south", "west"]
folds = 3
{split}

[model.clinical]
kind = "logistic"
predictors = ["age", "marker"]

[model.stacked]
kind = "logistic"
predictors = ["model.clinical", "age"]

[model.survival]
kind = "cox"
endpoint = "death"
predictors = ["age", "marker"]

[model.number]
kind = "linear"
endpoint = "dose"
predictors = ["age", "marker"]

[validation]
{validation}

[privacy]
{privacy}
"""
ASKED = {"split": "repeats = 3", "validation": "optimism = true\nleave_one_site_out = true"}
EXACT = 'score_resolution = "exact"'
SIZES = {"north": 90, "east": 70, "south": 60, "west": 65}
STEP = 30.0  # days, event_time_days
FOLDS, REPEATS = 3, 3


def study_text(privacy=EXACT, split="", validation=""):
    return STUDY.format(privacy=privacy, split=split, validation=validation)


def table(site: str) -> Table:
    n = SIZES[site]
    rng = np.random.default_rng([37, n])
    age, marker = rng.normal(60, 9, n).round(), rng.normal(n / 100, 1, n).round(3)
    z = (age - 60) / 12 + marker - 0.8
    y = (rng.random(n) < special.expit(z)).astype(float)
    time, censored = rng.exponential(900 * np.exp(-z / 2)).round() + 1, rng.uniform(100, 2000, n).round()
    gaps = rng.random(n) < 0.1
    columns = {
        "age": age,
        "marker": np.where(gaps, np.nan, marker),
        "endpoint.outcome": y,
        "endpoint.death.time": np.minimum(time, censored),
        "endpoint.death.event": (time <= censored).astype(float),
        "endpoint.dose": z + rng.normal(0, 1, n),
    }
    return Table(site, np.array([f"{site}-{i:03d}" for i in range(n)]), np.full(n, "train"), columns)


def pooled() -> pd.DataFrame:
    """All patients, with the folds of each repeat by the rule of docs/study-file.md."""
    frames = []
    for offset, site in enumerate(sorted(SIZES)):
        own = table(site)
        frame = pd.DataFrame({**own.columns, "site": site, "patient_id": own.patient_id})
        for repeat in range(1, REPEATS + 1):
            key = "cohortium/1/fold/5" if repeat == 1 else f"cohortium/1/fold/repeat{repeat}/5"
            ranked = [hmac.digest(key.encode(), f"{site}\x1f{i}".encode(), hashlib.sha256)[:8] for i in own.patient_id]
            order = frame.assign(hash=ranked).sort_values("hash").groupby("endpoint.outcome").cumcount()
            frame[f"fold{repeat}"] = (order + offset) % FOLDS
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def refit(kind, patients, fitted_on):
    """Linear predictor (of a number the prediction) for all patients, of a pooled fit on some of them."""
    marker = patients["marker"].fillna(patients["marker"][fitted_on].mean())
    x = np.column_stack([patients["age"], marker])
    if kind == "linear":
        return LinearRegression().fit(x[fitted_on], patients["endpoint.dose"][fitted_on]).predict(x)
    if kind == "cox":
        frame = pd.DataFrame(
            {
                "age": x[:, 0],
                "marker": x[:, 1],
                "time": patients["endpoint.death.time"],
                "event": patients["endpoint.death.event"],
                "site": patients["site"],
            }
        )
        fit = CoxPHFitter().fit(frame[fitted_on], "time", "event", strata=["site"], fit_options={"precision": 1e-10})
        return x @ fit.params_.to_numpy()
    return logit(x, patients["endpoint.outcome"], fitted_on)


def logit(x, y, fitted_on):
    columns = sm.add_constant(x)
    return columns @ sm.Logit(y[fitted_on], columns[fitted_on]).fit(disp=0, tol=1e-12).params.to_numpy()


def c_index(patients, score):
    """Harrell's C on the study's grids of times and scores."""
    time = np.floor(patients["endpoint.death.time"] / STEP)
    return concordance_index(time, -np.round(score, 4), patients["endpoint.death.event"])


def recalibration(y, score):
    """Intercept with slope 1, and slope, of statsmodels' logistic fit on the logit of the score."""
    z = special.logit(np.clip(score, 1e-4, 1 - 1e-4))
    family = sm.families.Binomial()
    intercept = sm.GLM(y, np.ones(len(z)), family=family, offset=z).fit(tol=1e-12).params
    slope = sm.GLM(y, sm.add_constant(z), family=family).fit(tol=1e-12).params
    return np.asarray(intercept)[0], np.asarray(slope)[1]


@pytest.fixture(scope="module")
def patients():
    return pooled()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: results, folder."""
    place = tmp_path_factory.mktemp("again")
    return run_on_tables(place, study_text(**ASKED), {site: table(site) for site in SIZES}), place


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same study without the keys."""
    return run_on_tables(tmp_path_factory.mktemp("plain"), study_text(), {site: table(site) for site in SIZES})


@pytest.fixture(scope="module")
def scores(run):
    """predictions.csv of all sites, in the order of `pooled`."""
    return pd.concat(
        [pd.read_csv(run[1] / "sites" / site / "predictions.csv") for site in sorted(SIZES)], ignore_index=True
    )


def test_folds_follow_from_the_documented_key(patients, scores):
    assert scores["patient_id"].tolist() == patients["patient_id"].tolist()
    np.testing.assert_array_equal(scores["fold"], patients["fold1"])
    assert (patients["fold1"] != patients["fold2"]).mean() > 0.4


def test_scores_of_a_further_repeat_come_from_its_pooled_refits(patients, scores):
    for kind, name in (("logistic", "clinical"), ("linear", "number"), ("cox", "survival")):
        for repeat in (2, 3):
            expected = np.empty(len(patients))
            for fold in range(FOLDS):
                held_out = patients[f"fold{repeat}"] == fold
                expected[held_out] = refit(kind, patients, ~held_out)[held_out]
            expected = special.expit(expected) if kind == "logistic" else expected
            grid = 1e-9 if kind == "linear" else 0.55e-4  # scores are rounded to 1e-4; lifelines stops at 1e-6
            np.testing.assert_allclose(scores[f"repeat{repeat}.{name}"], expected, atol=grid)


def test_a_stacked_model_stands_on_folds_of_its_own_repeat(patients, scores):
    """Fold 1 of repeat 2: fitted on values that fits without folds 1 and k of that repeat give to fold k."""
    held_out, fold = patients["fold2"] == 1, patients["fold2"]
    below = refit("logistic", patients, ~held_out)
    inputs = below.copy()
    for other in (0, 2):
        inputs[fold == other] = refit("logistic", patients, ~held_out & (fold != other))[fold == other]
    x = np.column_stack([inputs, patients["age"]])
    columns = sm.add_constant(x)
    fit = sm.Logit(patients["endpoint.outcome"][~held_out], columns[~held_out]).fit(disp=0, tol=1e-12)
    expected = fit.predict(sm.add_constant(np.column_stack([below, patients["age"]])))[held_out]
    np.testing.assert_allclose(scores["repeat2.stacked"][held_out], expected, atol=0.51e-4)


def test_figures_of_each_repeat_are_those_of_its_scores(run, patients, scores):
    y, models = patients["endpoint.outcome"].to_numpy(), run[0]["models"]
    columns = ["score", "repeat2", "repeat3"]
    for name in ("clinical", "stacked"):
        found = models[name]["repeated"]
        assert found["repeats"] == REPEATS
        own = [scores[f"{column}.{name}"].to_numpy() for column in columns]
        lines = np.array([recalibration(y, score) for score in own])
        # sums round to 2^-40; recalibrations end at a mean gradient of 1e-10
        assert found["auc"]["values"] == pytest.approx([roc_auc_score(y, score) for score in own], abs=1e-12)
        assert found["brier"]["values"] == pytest.approx([brier_score_loss(y, score) for score in own], abs=1e-12)
        assert found["calibration.intercept"]["values"] == pytest.approx(lines[:, 0], abs=1e-8)
        assert found["calibration.slope"]["values"] == pytest.approx(lines[:, 1], abs=1e-8)
        assert found["auc"]["bound"] == 0
    own = [scores[f"{column}.survival"].to_numpy() for column in columns]
    found = models["survival"]["repeated"]["c_index"]
    assert found["values"] == pytest.approx([c_index(patients, score) for score in own], abs=1e-12)
    dose, found = patients["endpoint.dose"], models["number"]["repeated"]
    own = [scores[f"{column}.number"] for column in columns]
    assert found["r_squared"]["values"] == pytest.approx([r2_score(dose, score) for score in own], abs=1e-9)
    assert found["rmse"]["values"] == pytest.approx([root_mean_squared_error(dose, score) for score in own], abs=1e-9)
    for model in models.values():
        for figure in model["repeated"].values():
            if figure != REPEATS:
                values = pd.Series(figure["values"])
                said = [figure[key] for key in ("mean", "sd", "min", "max")]
                assert said == pytest.approx([values.mean(), values.std(), values.min(), values.max()], abs=1e-15)


def test_optimism_is_that_of_pooled_refits(run, patients):
    """Index of the nine fits without a fold on their own patients, less the pooled index of those not seen."""
    training: dict[str, list[float]] = {name: [] for name in ("auc", "brier", "intercept", "slope", "c_index", "rmse")}
    tested: dict[str, list[float]] = {name: [] for name in training}
    y = patients["endpoint.outcome"].to_numpy()

    def add(found, which, score, hazard, number):
        line = recalibration(y[which], score[which])
        found["auc"].append(roc_auc_score(y[which], score[which]))
        found["brier"].append(brier_score_loss(y[which], score[which]))
        found["intercept"].append(line[0])
        found["slope"].append(line[1])
        found["c_index"].append(c_index(patients[which], hazard[which]))
        found["rmse"].append(root_mean_squared_error(patients["endpoint.dose"][which], number[which]))

    def fits(fitted_on):
        risk = np.round(special.expit(refit("logistic", patients, fitted_on)), 4)
        return risk, refit("cox", patients, fitted_on), refit("linear", patients, fitted_on)

    for repeat in range(1, REPEATS + 1):
        unseen = [np.empty(len(y)) for _ in range(3)]
        for fold in range(FOLDS):
            held_out = (patients[f"fold{repeat}"] == fold).to_numpy()
            made = fits(~held_out)
            add(training, ~held_out, *made)
            for whole, scores in zip(unseen, made, strict=True):
                whole[held_out] = scores[held_out]
        add(tested, np.ones(len(y), bool), *unseen)
    apparent: dict[str, list[float]] = {name: [] for name in training}
    everyone = np.ones(len(y), bool)
    add(apparent, everyone, *fits(everyone))

    models = run[0]["models"]
    keys = {"intercept": "calibration.intercept", "slope": "calibration.slope"}
    for name in training:
        model = {"c_index": "survival", "rmse": "number"}.get(name, "clinical")
        found = models[model]["optimism"][keys.get(name, name)]
        optimism = np.mean(training[name]) - np.mean(tested[name])
        # a score that two optimisers round to neighbours of the grid moves a figure by less than this
        slack = 1e-8 if name == "rmse" else 2e-4 if name == "c_index" else 1e-6
        assert found["training"] == pytest.approx(np.mean(training[name]), abs=slack), name
        assert found["optimism"] == pytest.approx(optimism, abs=2 * slack), name
        assert found["corrected"] == pytest.approx(apparent[name][0] - optimism, abs=3 * slack), name
    assert models["clinical"]["optimism"]["auc"]["optimism"] > 0 > models["clinical"]["optimism"]["brier"]["optimism"]


def test_repeats_and_optimism_travel_with_the_rest_and_change_nothing_else(run, plain):
    results, _ = run
    assert results["cost"]["secure_sums"] <= plain["cost"]["secure_sums"] + 3
    for name, model in plain["models"].items():
        assert not {"repeated", "optimism"} & model.keys()
        assert model["coefficients"] == results["models"][name]["coefficients"]
        for cohort in ("train", "cross_validated"):
            assert model["cohorts"][cohort] == results["models"][name]["cohorts"][cohort]


def test_masked_sums_give_the_figures_of_plain_floats(run, tmp_path):
    tables = {site: table(site) for site in SIZES}
    clear = study_text(privacy=EXACT + "\nsecure_aggregation = false", **ASKED)
    results = run_on_tables(tmp_path, clear, tables)

    def close(a, b):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if isinstance(value, dict):
                close(value, b[key])
            else:
                assert value == pytest.approx(b[key], abs=1e-7), key

    for name, model in results["models"].items():
        for block in ("repeated", "optimism"):
            close(model[block], run[0]["models"][name][block])


def test_replicates_leave_out_folds_of_one_repeat(run):
    study = load_study(run[1])
    needed = replicates(study)
    assert {(fold,) for fold in range(FOLDS * REPEATS)} <= set(needed["stacked"])
    assert {(3, 4), (3, 5), (4, 5), (7, 8), (0, 9)} <= set(needed["clinical"])  # 9: the first site
    assert not {(0, 3), (2, 3), (3, 9)} & set(needed["clinical"])
    assert in_words(study, (3, 4)) == "fold 0 of repeat 2 and fold 1 of repeat 2"
    assert in_words(study, (1, 9)) == "fold 1 and site east"


def test_every_sum_was_listed(run):
    listed = {one.statistic: one for one in releases(load_study(run[1]))}
    assert sums_sent(run[1]).keys() <= listed.keys()
    assert {"repeats of cross-validation", "optimism"} <= set(listed["discrimination.histogram"].purposes) | set(
        listed["calibration.terms"].purposes
    )


def test_the_report_shows_both(run):
    page = build_report(run[1] / "out").read_text()
    for said in ("over 3 draws of the folds", "Smallest", "corrected for optimism", "Optimism", "Corrected"):
        assert said in page, said


def few_events(place, sites):
    """Results where one patient of each of some sites has the event, in the midst of the others."""
    tables = {site: table(site) for site in SIZES}
    for site, own in tables.items():
        age, marker = own.columns["age"], own.columns["marker"]
        middle = np.nanargmin(np.abs(age - age.mean()) / 9 + np.abs(marker - np.nanmean(marker)))
        own.columns["endpoint.outcome"][:] = 0.0
        own.columns["endpoint.outcome"][middle] = float(site in sites)
    text = study_text(split="repeats = 2", validation="optimism = true")
    text = text[: text.index("[model.stacked]")] + text[text.index("[model.number]") :]
    return run_on_tables(place, text, tables)["models"]


def test_a_repeat_that_cannot_be_fitted_withholds_its_figures_only(tmp_path):
    """One patient with the event: the fit without that fold has one class."""
    models = few_events(tmp_path, ["north"])
    assert len(models["clinical"]["unfitted"]) == 2
    for block in ("repeated", "optimism"):
        assert "[model.clinical] without fold" in models["clinical"][block]["auc"]["withheld"]
    assert models["number"]["repeated"]["rmse"]["mean"] > 0
    assert "corrected" in models["number"]["optimism"]["rmse"]


def test_a_fold_of_one_class(tmp_path):
    """Two patients with the event, in two folds: the third fold has none, and the pooled figure does not mind."""
    found = few_events(tmp_path, ["north", "east"])["clinical"]
    scores = pd.concat([pd.read_csv(tmp_path / "sites" / site / "predictions.csv") for site in SIZES])
    areas = [roc_auc_score(scores["outcome"], scores[f"{column}.clinical"]) for column in ("score", "repeat2")]
    assert found["repeated"]["auc"]["values"] == pytest.approx(areas, abs=1e-12)
    assert found["optimism"]["auc"]["tested"] == pytest.approx(np.mean(areas), abs=1e-12)


def test_studies_without_the_keys_keep_their_hash():
    text = study_text()
    plain = parse_study(tomllib.loads(text))
    said = parse_study(tomllib.loads(study_text(split="repeats = 1", validation="optimism = false")))
    assert plain.hash == said.hash
    assert b"repeats" not in plain.canonical
    assert b"optimism" not in plain.canonical


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"split": "repeats = 2"}, "there is none; give folds"),
        ({"validation": "optimism = true"}, "there is none; give [split] folds"),
    ],
)
def test_both_need_folds(asked, told):
    tables = tomllib.loads(study_text(**asked))
    del tables["split"]["folds"]
    with pytest.raises(StudyError, match=told.replace("[", r"\[")):
        parse_study(tables)


def test_more_repeats_than_patients_can_bear(tmp_path):
    few = {site: table(site).take(np.arange(SIZES[site]) < 20) for site in SIZES}
    with pytest.raises(StudyError, match="repeats = 12 cut 80 patients into 25 sets"):
        run_on_tables(tmp_path, study_text(split="repeats = 12"), few)


def test_finished_figures_are_of_whole_cohorts():
    asked = CohortSpec(part="train", of="final", models=()).plain()
    assert CohortSpec.read(asked | {"without": [0]}).rows("outcome") == {"part": "train", "endpoint": "outcome"}
