"""Chained equations across sites: the models are those of the pooled rows, filled by other software."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # what makes the next import possible
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression

from cohortium.common.cohort import keyed_hash
from cohortium.common.errors import StudyError
from cohortium.common.federation import PooledSites
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.server.releases import releases
from cohortium.simulation.preview import preview
from cohortium.simulation.simulate import simulate
from cohortium.strategies import chained, moments
from cohortium.strategies.rows import Matrix
from tests.simulation.prepared import sums_sent

PREDICTORS = ["age", "marker", "lactate", "noise0"]
TABLES = """
internal_fraction = 0.2

[[variable]]
name = "lactate"
kind = "continuous"
missing = "chained"

[[variable]]
name = "noise0"
kind = "continuous"

[endpoint.volume]
kind = "continuous"
column = "volume"

[model.full]
kind = "logistic"
predictors = ["age", "marker", "lactate", "noise0"]

[model.size]
kind = "linear"
endpoint = "volume"
predictors = ["age", "marker", "lactate", "noise0"]

[imputation]
"""
SEED = 3  # of the study


def study(write_study, place, settings):
    folder = write_study(place / "study", TABLES + settings)
    text = (folder / "study.toml").read_text().replace('missing = "median"', 'missing = "chained"')
    (folder / "study.toml").write_text(text)
    rng = np.random.default_rng(8)
    for path in folder.glob("sites/*/patients.csv"):
        rows = pd.read_csv(path)
        lactate = (0.5 + 0.3 * rows.marker.fillna(2) + 0.02 * rows.age + rng.normal(0, 0.4, len(rows))).round(2)
        volume = (2e4 + 900 * rows.age + 4e3 * lactate + rng.normal(0, 5e3, len(rows))).round()
        rows = rows.assign(lactate=lactate.where(rng.random(len(rows)) > 0.15), volume=volume)
        rows.to_csv(path, index=False)
    return folder


def run(folder, out, pooled):
    simulate(folder, out)
    return json.loads((out / "results.json").read_text()), pooled(out, folder)


@pytest.fixture(scope="module")
def single(write_study, pooled, tmp_path_factory):
    place = tmp_path_factory.mktemp("chained")
    return *run(study(write_study, place, "cycles = 4"), place / "out", pooled), place / "out"


@pytest.fixture(scope="module")
def several(write_study, pooled, tmp_path_factory):
    place = tmp_path_factory.mktemp("several")
    return *run(study(write_study, place, "cycles = 3\nimputations = 4"), place / "out", pooled), place / "out"


def test_one_imputation_is_that_of_scikit_learn(single):
    results, rows, _ = single
    train = rows[rows.part == "train"]
    imputer = IterativeImputer(LinearRegression(), max_iter=4, tol=0, imputation_order="ascending")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of cycles
        imputer.fit(train[PREDICTORS])
    fit = sm.Logit(train.outcome, sm.add_constant(imputer.transform(train[PREDICTORS]))).fit(disp=0, tol=1e-12)
    ours = results["models"]["full"]["coefficients"]
    np.testing.assert_allclose([row["estimate"] for row in ours], fit.params, rtol=1e-8)
    np.testing.assert_allclose([row["se"] for row in ours], fit.bse, rtol=1e-8)
    # sites that took no part, and patients held out, are filled by the same equations
    others = rows[rows.part != "train"]
    risk = fit.predict(sm.add_constant(imputer.transform(others[PREDICTORS])))
    np.testing.assert_allclose(others["score.full"], risk, atol=0.5e-4 + 1e-9)
    assert others[PREDICTORS].isna().any(axis=1).sum() > 10


def test_every_sum_was_listed(single):
    _, _, out = single
    sent = sums_sent(out)
    assert "chained.products" in sent
    assert sent.keys() <= {one.statistic for one in releases(load_study(out))}


def test_a_site_can_rehearse_several(several):
    _, _, out = several
    (table,) = (out / "sites" / "north").glob("prepared/*/table.parquet")
    assert preview(load_study(out), Table.read(table), ("*",)).stopped == ""


def least_squares_are_pooled(model, fits, patients):
    """Rubin's rules over statsmodels' fits, Student's intervals, R2 on Fisher's scale (mice: pool.r.squared)."""
    params = np.array([fit.params for fit in fits])
    between = params.var(axis=0, ddof=1)
    total = np.mean([fit.bse**2 for fit in fits], axis=0) + 1.25 * between
    share, complete = 1.25 * between / total, patients - 5
    degrees = 1 / (share**2 / 3 + (complete + 3) / ((complete + 1) * complete * (1 - share)))
    half = stats.t.ppf(0.975, degrees) * np.sqrt(total)
    rows = model["coefficients"]
    np.testing.assert_allclose([row["estimate"] for row in rows], params.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose([row["se"] for row in rows], np.sqrt(total), rtol=1e-6)
    np.testing.assert_allclose([row["ci"][1] - row["estimate"] for row in rows], half, rtol=1e-6)
    notes = model["notes"]
    for key, values in {
        "r_squared": [f.rsquared for f in fits],
        "adjusted_r_squared": [f.rsquared_adj for f in fits],
    }.items():
        assert notes[key] == pytest.approx(np.tanh(np.arctanh(np.sqrt(values)).mean()) ** 2, rel=1e-8)
    assert notes["residual_sd"] == pytest.approx(np.sqrt(np.mean([fit.scale for fit in fits])), rel=1e-8)
    assert "f_test" not in notes  # of one data set


def test_several_imputations_are_pooled(several):
    """Each data set filled from the pooled rows and fitted by statsmodels; Rubin's rules written out."""
    results, rows, out = several
    train = rows[rows.part == "train"]
    gaps = train[["age", "marker", "lactate", "noise0"]].to_numpy()
    key = [
        keyed_hash("impute", SEED, site, patient) for site, patient in zip(train.site, train.patient_id, strict=True)
    ]
    incomplete = chained.Incomplete(gaps, np.array(key, dtype=np.uint64).view(np.int64))
    whole = PooledSites([incomplete])
    known = moments.fit(PooledSites([Matrix(gaps, np.zeros(len(gaps), np.int64))]), 4)
    fits, risks, lines = [], [], []
    for i in range(4):
        rng = np.random.default_rng([SEED, i])
        chain = chained.fit(whole, known, known.mean, np.array([1, 2]), 3, rng=rng, imputation=i)
        x = sm.add_constant(chained.complete(incomplete, chain))
        fits.append(sm.Logit(train.outcome, x).fit(disp=0, tol=1e-12))
        risks.append(x @ fits[-1].params)
        lines.append(sm.OLS(train.volume, x).fit())
    least_squares_are_pooled(results["models"]["size"], lines, len(train))
    params = np.array([fit.params for fit in fits])
    between = params.var(axis=0, ddof=1)
    total = np.mean([fit.bse**2 for fit in fits], axis=0) + 1.25 * between
    ours = results["models"]["full"]["coefficients"]
    np.testing.assert_allclose([row["estimate"] for row in ours], params.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose([row["se"] for row in ours], np.sqrt(total), rtol=1e-7)
    imputation = results["models"]["full"]["notes"]["imputation"]
    assert imputation["imputations"] == 4
    assert not {"aic", "likelihood_ratio", "log_likelihood"} & {*results["models"]["full"]["notes"]}  # of one data set
    np.testing.assert_allclose(imputation["between"], between, rtol=1e-6)
    share, complete = 1.25 * between / total, len(train) - 5
    degrees = 1 / (share**2 / 3 + (complete + 3) / ((complete + 1) * complete * (1 - share)))
    np.testing.assert_allclose(imputation["degrees_of_freedom"], degrees, rtol=1e-6)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(total)
    np.testing.assert_allclose([row["ci"][1] - row["estimate"] for row in ours], half, rtol=1e-6)
    assert "Gaps were filled 4 times by chained equations" in (out / "report.html").read_text()
    # the score is the mean linear predictor
    risk = 1 / (1 + np.exp(-np.mean(risks, axis=0)))
    np.testing.assert_allclose(train["score.full"], risk, atol=0.5e-4 + 1e-7)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "logistic"', 'kind = "lasso"', "cannot be pooled by Rubin's rules"),
        ('kind = "logistic"', 'kind = "logistic"\nselection = ["screen"]', "could select other columns in each"),
        ('missing = "chained"', 'missing = "mean"', "leave the table out"),
    ],
)
def test_what_cannot_be_pooled_is_refused(write_study, tmp_path, old, new, says):
    folder = study(write_study, tmp_path, "imputations = 4")
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace(old, new))
    with pytest.raises(StudyError, match=says):
        load_study(folder)


def test_cox_folds_and_a_categorical_variable(write_study, tmp_path):
    """Levels are filled as numbers; every fold has equations of its own; one baseline hazard is pooled."""
    tables = """folds = 3

[model.pooled]
kind = "cox"
strata = "none"
predictors = ["age", "stage", "marker"]

[imputation]
cycles = 2
imputations = 2
"""
    sizes = {"north": 50, "east": 50, "south": 50, "west": 30}
    folder = write_study(tmp_path / "study", tables, primary="os", sizes=sizes)
    text = (folder / "study.toml").read_text().replace('missing = "median"', 'missing = "chained"')
    (folder / "study.toml").write_text(text.replace("levels = [1, 2, 3]", 'levels = [1, 2, 3]\nmissing = "chained"'))
    rng = np.random.default_rng(2)
    for path in folder.glob("sites/*/patients.csv"):
        rows = pd.read_csv(path)
        rows.assign(stage=rows.stage.where(rng.random(len(rows)) > 0.2).astype("Int64")).to_csv(path, index=False)
    simulate(folder, tmp_path / "out")
    model = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["pooled"]
    assert model["selected"] == ["age", "stage=2", "stage=3", "marker"]
    assert all(0 < share < 1 for share in model["notes"]["imputation"]["missing_information"])
    assert len(model["notes"]["baseline"]["time"]) == len(model["notes"]["baseline"]["cumulative_hazard"])
    assert model["cohorts"]["cross_validated"]["survival"]["c_index"]["estimate"] > 0.5
