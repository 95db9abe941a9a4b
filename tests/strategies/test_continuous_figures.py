"""Figures of predicted numbers: those of scikit-learn, SciPy and statsmodels in any unit; Bland and Altman's data."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn import metrics
from sklearn.datasets import load_diabetes

from cohortium.common.federation import PooledSites
from cohortium.strategies.continuous_figures import CONTINUOUS_FIGURES, validate_continuous
from cohortium.strategies.rows import Matrix
from cohortium.strategies.validation_settings import Settings
from tests.strategies.additivity import FixedPointSites, split

PEFR_LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
PEFR_MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
"""First measurements of peak flow by two meters, l/min (Bland & Altman, Lancet i:307, 1986, table)."""


def columns(y, scores, pairs=()) -> Matrix:
    """As `view_continuous.predicted` lays them out."""
    error = scores - y[:, None]
    larger = [np.abs(error[:, a]) - np.abs(error[:, b]) for a, b in pairs]
    return Matrix(np.column_stack([y, scores, error, np.abs(error), *larger]), np.zeros(len(y), np.int64))


@pytest.fixture(scope="module")
def predictions():
    """Disease progression of 442 patients, predicted by body mass index and by blood pressure."""
    x, y = load_diabetes(return_X_y=True)
    return y, np.column_stack([150 + 700 * x[:, 2], 140 + 500 * x[:, 3]])


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e12])
def test_figures_equal_the_libraries(predictions, kind, unit):
    y, scores = (values * unit for values in predictions)
    federation = kind(split(columns(y, scores, [(0, 1)]), [200, 150, 90, 1, 0, 1]))
    found, (compared,) = validate_continuous(federation, ["bmi", "bp"], [("bmi", "bp")], Settings())
    assert federation.rounds == 2
    for s, ours in zip(scores.T, found.values(), strict=True):
        assert tuple(ours) == CONTINUOUS_FIGURES
        assert ours["n"] == 442
        assert ours["r_squared"] == pytest.approx(metrics.r2_score(y, s), rel=1e-11)
        assert ours["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, s), rel=1e-12)
        assert ours["mae"] == pytest.approx(metrics.mean_absolute_error(y, s), rel=1e-12)
        interval = stats.t.interval(0.95, 441, np.abs(s - y).mean(), stats.sem(np.abs(s - y)))
        assert ours["mae_ci"] == pytest.approx(interval, rel=1e-10)
        r = stats.pearsonr(y, s)
        assert ours["correlation"] == pytest.approx(r.statistic, rel=1e-11)
        assert ours["correlation_ci"] == pytest.approx(list(r.confidence_interval()), rel=1e-10)
        line = sm.OLS(y / unit, sm.add_constant(s / unit)).fit()  # its own solver drops columns of 1e12 beside 1
        scale = np.array([unit, 1])
        for key, values in (("", line.params), ("_se", line.bse), ("_ci", line.conf_int())):
            ours_of = [ours["calibration"][name + key] for name in ("intercept", "slope")]
            np.testing.assert_allclose(ours_of, values * (scale[:, None] if key == "_ci" else scale), rtol=1e-9)
    theirs = stats.ttest_rel(np.abs(scores[:, 0] - y), np.abs(scores[:, 1] - y))
    assert compared["test"] == "absolute_error"
    assert compared["z"] == pytest.approx(theirs.statistic, rel=1e-10)
    assert compared["p"] == pytest.approx(2 * stats.norm.sf(abs(theirs.statistic)), rel=1e-8)
    assert compared["p_holm"] == compared["p"]


def test_bland_and_altman_1986():
    y, s = np.array(PEFR_MINI, float), np.array(PEFR_LARGE, float)[:, None]
    found, _ = validate_continuous(PooledSites([columns(y, s)]), ["large"], [], Settings())
    agreement = found["large"]["bland_altman"]
    assert round(agreement["mean_difference"], 1) == -2.1
    assert round(agreement["sd"], 1) == 38.8
    assert np.round(agreement["mean_difference_ci"], 0).tolist() == [-22.0, 18.0]  # printed: -22.0 to 17.8
    assert agreement["upper"] - agreement["lower"] == pytest.approx(2 * 1.959964 * agreement["sd"])
    # the paper's standard error of a limit is sqrt(3 s^2 / n) = 16.3; the exact form of 1999 is a little smaller
    half = (agreement["upper_ci"][1] - agreement["upper_ci"][0]) / 2 / stats.t.ppf(0.975, 16)
    assert half == pytest.approx(16.3, abs=0.3)


@pytest.mark.parametrize(
    ("y", "s", "missing"),
    [
        ([5.0] * 6, [1, 2, 3, 4, 5, 6.0], ("r_squared", "correlation", "correlation_ci")),
        ([1, 2, 3, 4, 5, 6.0], [5.0] * 6, ("correlation", "correlation_ci")),
    ],
)
def test_what_cannot_exist_says_so(y, s, missing):
    rows = columns(np.array(y), np.array(s, float)[:, None])
    ours = validate_continuous(PooledSites([rows]), ["m"], [], Settings())[0]["m"]
    assert all("undefined" in ours[key] for key in missing)
    assert ours["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, s))
    assert ("undefined" in str(ours["calibration"]["slope"])) == (len(set(s)) == 1)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_patients_have_what_exists(n):
    rows = columns(np.arange(n) * 2.0, np.arange(n)[:, None] * 1.5)
    found = validate_continuous(PooledSites([rows]), ["m"], [], Settings(minimum_count=0 if n else 1))[0]["m"]
    assert "withheld" in found["rmse"] if n == 0 else found["n"] == n


def test_few_patients_are_withheld(predictions):
    y, scores = predictions
    rows = columns(y[:4], scores[:4], [(0, 1)])
    found, compared = validate_continuous(PooledSites([rows]), ["a", "b"], [("a", "b")], Settings())
    assert all("withheld" in figure for figure in found["a"].values())
    assert "withheld" in compared[0]["difference"]


def test_equal_models_have_no_test(predictions):
    y, scores = predictions
    rows = columns(y, scores[:, [0, 0]], [(0, 1)])
    _, (compared,) = validate_continuous(PooledSites([rows]), ["a", "b"], [("a", "b")], Settings())
    assert compared["difference"] == 0
    assert "undefined" in compared["p"]
