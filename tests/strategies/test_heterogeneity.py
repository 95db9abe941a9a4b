"""Heterogeneity between sites: equal to statsmodels on each site's own figures, which other libraries compute."""

import numpy as np
import pytest
import statsmodels.api as sm
from lifelines.utils import concordance_index
from scipy import special, stats
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from statsmodels.duration.hazard_regression import PHReg
from statsmodels.stats.meta_analysis import combine_effects

from cohortium.common.federation import PooledSites
from cohortium.strategies import heterogeneity
from cohortium.strategies.rows import Matrix, Scored, ScoredSurvival
from tests.strategies.additivity import FixedPointSites, check, take
from tests.strategies.test_restricted_likelihood import restricted_maximum

SIZES = (160, 90, 130, 70, 110)


@pytest.fixture(scope="module")
def binary() -> list[Scored]:
    """Five sites at which two scores work differently well; one of which all have the event; an empty one."""
    rng = np.random.default_rng(21)
    sites = []
    for shift, n in zip((0.0, 0.9, -0.6, 1.4, 0.3), SIZES, strict=True):
        x = rng.standard_normal((n, 2))
        y = (rng.random(n) < special.expit((1 + shift) * x[:, 0] + shift - 0.3)).astype(float)
        score = np.rint(special.expit(x @ [[1.0, 0.6], [0.2, 0.5]]) * 1e4) / 1e4
        sites.append(Scored(score, y, np.zeros(n, np.int64)))
    certain = take(sites[0], sites[0].y == 1)
    return [*sites, certain, take(sites[0], slice(0, 0))]


@pytest.fixture(scope="module")
def survival() -> list[ScoredSurvival]:
    """Five sites with ties in time; one with three events only."""
    rng = np.random.default_rng(22)
    sites = []
    for slope, n in zip((1.0, 0.4, 1.3, 0.7, 0.1), SIZES, strict=True):
        score = np.rint(rng.standard_normal((n, 2)) * 1e4) / 1e4
        died = np.floor(rng.exponential(40 * np.exp(-slope * score[:, 0])))
        lost = np.floor(rng.exponential(60, n))
        sites.append(ScoredSurvival(score, np.minimum(died, lost), (died <= lost).astype(float)))
    few = take(sites[0], np.flatnonzero(sites[0].event == 1)[:3])
    return [*sites, few]


@pytest.fixture(scope="module")
def numbers() -> list[Matrix]:
    """Five sites whose outcome (in the hundred thousands) two models predict; one of three patients; one of one value.

    The mean of that value is not that value to the last digit.
    """
    rng = np.random.default_rng(23)
    sites = []
    for shift, n in zip((0.0, 0.3, -0.2, 0.5, 0.1), SIZES, strict=True):
        x = rng.standard_normal((n, 2))
        y = 1e5 * (3 + (1 + shift) * x[:, 0] + shift / 2 + rng.normal(0, 0.5 + shift / 2, n))
        predicted = 1e5 * (3 + x @ [[1.0, 0.5], [0.2, 0.3]])
        error = predicted - y[:, None]
        sites.append(Matrix(np.column_stack([y, predicted, error, np.abs(error)]), np.zeros(n, np.int64)))
    one_value = Matrix(
        np.tile([3e5 / 7, 1e5 / 7, 1e5, -2e5 / 7, 4e5 / 7, 2e5 / 7, 4e5 / 7], (57, 1)), np.zeros(57, np.int64)
    )
    return [*sites, take(sites[0], slice(0, 3)), one_value]


def delong(y, score):
    """AUC and DeLong's variance from mid-ranks (Sun & Xu 2014)."""
    ranks = stats.rankdata(score)
    n1, n0 = int(y.sum()), int((1 - y).sum())
    v10 = (ranks[y == 1] - stats.rankdata(score[y == 1])) / n0
    v01 = 1 - (ranks[y == 0] - stats.rankdata(score[y == 0])) / n1
    return roc_auc_score(y, score), v10.var(ddof=1) / n1 + v01.var(ddof=1) / n0


def harrell(time, event, score):
    """Harrell's C and its infinitesimal jackknife variance, pair by pair."""
    earlier = (event == 1)[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & (event == 0)))
    right = earlier * ((score[:, None] > score) + 0.5 * (score[:, None] == score))
    a, b = right.sum(0) + right.sum(1), earlier.sum(0) + earlier.sum(1)
    c = a.sum() / b.sum()
    return c, 4 * ((a - c * b) ** 2).sum() / b.sum() ** 2


def on_logit_scale(value, variance):
    return special.logit(value), variance / (value * (1 - value)) ** 2


def same(record, found, transform, unit=1.0):
    """Hold one record against statsmodels' random-effects summary of (estimate, variance) pairs."""
    effects, variances = np.array(found).T
    theirs = combine_effects(effects, variances, method_re="dl")
    k = len(effects)
    assert record["sites"] == k
    assert (record["scale"] == "identity") == (transform is np.asarray)
    assert record["q"] == pytest.approx(theirs.q, rel=1e-7)
    assert record["p"] == pytest.approx(theirs.test_homogeneity().pvalue, abs=1e-8)
    squared = unit**2 if transform is np.asarray else 1  # of a logarithm no unit is left
    assert record["tau2"] / squared == pytest.approx(max(theirs.tau2, 0) / squared, abs=1e-7)
    assert record["i2"] == pytest.approx(max(theirs.i2, 0), abs=1e-7)
    mean, error = theirs.mean_effect_re, theirs.sd_eff_w_re
    if theirs.tau2 <= 0:  # of which statsmodels would take the negative value
        mean, error = theirs.mean_effect_fe, theirs.sd_eff_w_fe
    tiny = 1e-7 * unit
    assert record["estimate"] == pytest.approx(transform(mean), abs=tiny)
    half = stats.norm.ppf(0.975) * error
    assert record["ci"] == pytest.approx(transform(np.array([mean - half, mean + half])), abs=tiny)
    half = stats.t.ppf(0.975, k - 2) * np.sqrt(max(theirs.tau2, 0) + error**2)
    assert record["prediction_interval"] == pytest.approx(transform(np.array([mean - half, mean + half])), abs=tiny)
    if theirs.tau2 > 0:
        half = stats.t.ppf(0.975, k - 1) * theirs.sd_eff_w_re_hksj
        assert record["ci_hartung_knapp"] == pytest.approx(transform(np.array([mean - half, mean + half])), abs=tiny)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_binary_figures_equal_combine_effects(binary, kind):
    federation = kind(binary)
    ours = heterogeneity.summarise(federation, ["a", "b"], heterogeneity.BINARY, minimum_count=5, minimum_sites=3)
    assert federation.rounds == 3
    for m, name in enumerate(("a", "b")):
        found: dict[str, list] = {figure: [] for figure in heterogeneity.BINARY}
        for site in binary[:5]:
            y, score = site.y, site.score[:, m]
            logit = special.logit(score)
            found["auc"].append(on_logit_scale(*delong(y, score)))
            family = sm.families.Binomial()
            large = sm.GLM(y, np.ones(len(y)), family=family, offset=logit).fit(tol=1e-12)
            both = sm.GLM(y, sm.add_constant(logit), family=family).fit(tol=1e-12)
            found["calibration.intercept"].append((large.params[0], large.bse[0] ** 2))
            found["calibration.slope"].append((both.params[1], both.bse[1] ** 2))
        for figure, values in found.items():
            same(ours[name][figure], values, special.expit if figure == "auc" else np.asarray)
    assert ours["a"]["auc"]["tau2"] > 0


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_survival_figures_equal_combine_effects(survival, kind):
    ours = heterogeneity.summarise(
        kind(survival), ["a", "b"], heterogeneity.SURVIVAL, minimum_count=5, minimum_sites=3, log_hazards=["a"]
    )
    indices, slopes = [], []
    for site in survival[:5]:
        score = site.score[:, 0]
        c, variance = harrell(site.time, site.event, score)
        assert c == pytest.approx(concordance_index(site.time, -score, site.event), abs=1e-12)
        indices.append(on_logit_scale(c, variance))
        fit = PHReg(site.time, score[:, None], site.event, ties="efron").fit(disp=0)
        slopes.append((fit.params[0], fit.bse[0] ** 2))
    same(ours["a"]["c_index"], indices, special.expit)
    same(ours["a"]["calibration_slope"], slopes, np.asarray)
    assert "no log hazard" in ours["b"]["calibration_slope"]["undefined"]


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_continuous_figures_equal_combine_effects(numbers, kind):
    federation = kind(numbers)
    sd = [np.concatenate([site.x[:, 3 + m] for site in numbers]).std(ddof=1) for m in range(2)]
    asked = {"minimum_count": 5, "minimum_sites": 3, "error_sd": sd}
    ours = heterogeneity.summarise(federation, ["a", "b"], heterogeneity.CONTINUOUS, **asked)
    assert federation.rounds == 3
    ways = {"r_squared": lambda x: 1 - np.exp(-x), "rmse": np.exp}
    for m, name in enumerate(("a", "b")):
        found: dict[str, list] = {figure: [] for figure in heterogeneity.CONTINUOUS}
        for site in numbers[:5]:
            y, s = site.x[:, 0], site.x[:, 1 + m]
            n, squares, spread = len(y), (y - s) ** 2, (y - y.mean()) ** 2
            both = np.cov([squares, spread]) / n  # delta method for the log of a ratio of two means
            by = np.array([1 / squares.mean(), -1 / spread.mean()])
            found["r_squared"].append((-np.log(1 - r2_score(y, s)), by @ both @ by))
            found["rmse"].append((np.log(root_mean_squared_error(y, s)), both[0, 0] * by[0] ** 2 / 4))
            found["mean_difference"].append(((s - y).mean(), stats.sem(s - y) ** 2))
            line = sm.OLS(y, sm.add_constant(s)).fit()
            found["calibration.slope"].append((line.params[1], line.bse[1] ** 2))
        for figure, values in found.items():
            unit = sd[m] if figure in ("mean_difference", "rmse") else 1.0
            same(ours[name][figure], values, ways.get(figure, np.asarray), unit)
    assert ours["a"]["rmse"]["scale"] == "log"
    reml = heterogeneity.summarise(kind(numbers), ["a", "b"], heterogeneity.CONTINUOUS, between="reml", **asked)
    for figure in heterogeneity.CONTINUOUS:
        theirs = restricted_maximum(*np.array(found[figure]).T)
        assert reml["b"][figure]["tau2"] == pytest.approx(theirs, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_by_reml_is_the_restricted_maximum(binary, kind):
    federation, dl = kind(binary), PooledSites(binary)
    asked = {"minimum_count": 5, "minimum_sites": 3}
    ours = heterogeneity.summarise(federation, ["a", "b"], heterogeneity.BINARY, between="reml", **asked)
    assert federation.rounds <= 8
    for m, name in enumerate(("a", "b")):
        found = np.array([on_logit_scale(*delong(site.y, site.score[:, m])) for site in binary[:5]])
        record, (b, v) = ours[name]["auc"], found.T
        assert record["method"] == "REML"
        assert record["tau2"] == pytest.approx(restricted_maximum(b, v), rel=1e-6, abs=1e-9)
        w = 1 / (v + record["tau2"])
        mean = w @ b / w.sum()
        assert record["estimate"] == pytest.approx(special.expit(mean), abs=1e-9)
        half = stats.t.ppf(0.975, 3) * np.sqrt(record["tau2"] + 1 / w.sum())
        assert record["prediction_interval"] == pytest.approx(special.expit([mean - half, mean + half]), abs=1e-8)
        half = stats.t.ppf(0.975, 4) * np.sqrt(w @ (b - mean) ** 2 / 4 / w.sum())
        assert record["ci_hartung_knapp"] == pytest.approx(special.expit([mean - half, mean + half]), abs=1e-8)
    usual = heterogeneity.summarise(dl, ["a", "b"], heterogeneity.BINARY, **asked)
    assert usual["a"]["auc"]["tau2"] != pytest.approx(ours["a"]["auc"]["tau2"], rel=1e-3)
    assert usual["a"]["auc"]["q"] == pytest.approx(ours["a"]["auc"]["q"], abs=1e-7)
    assert "method" not in usual["a"]["auc"]


def test_two_sites_are_too_few(binary):
    ours = heterogeneity.summarise(
        PooledSites([*binary[:2], binary[5]]), ["a", "b"], heterogeneity.BINARY, minimum_count=5, minimum_sites=3
    )
    assert "2 sites with this figure, 3 are needed, each with 5 events" in ours["a"]["auc"]["undefined"]


def test_a_large_site_drowns_no_small_one(binary):
    """Weights are sent in units of about their size, so that fixed point serves large and small sites."""
    many = Scored(*(np.repeat(field, 200, axis=0) for field in binary[0]))
    sites = [many, *binary[1:5]]
    exact = heterogeneity.summarise(
        PooledSites(sites), ["a", "b"], heterogeneity.BINARY, minimum_count=5, minimum_sites=3
    )
    masked = heterogeneity.summarise(
        FixedPointSites(sites), ["a", "b"], heterogeneity.BINARY, minimum_count=5, minimum_sites=3
    )
    for figure in heterogeneity.BINARY:
        assert masked["a"][figure]["estimate"] == pytest.approx(exact["a"][figure]["estimate"], abs=1e-8)
        assert masked["a"][figure]["tau2"] == pytest.approx(exact["a"][figure]["tau2"], abs=1e-8)


def test_statistics_keep_their_contract(binary, survival, numbers):
    for rows, figures in ((binary[0], 3), (survival[0], 2), (numbers[0], 4)):
        at = np.full((figures, 2), 0.3)
        check(heterogeneity.able, rows, minimum_count=5, time_step=1.0)
        check(heterogeneity.sums, rows, rtol=1e-7, minimum_count=5, time_step=1.0, tau2=at, centre=at, unit=at + 9)
        check(
            heterogeneity.restricted, rows, rtol=1e-7, minimum_count=5, time_step=1.0, tau2=at, centre=at, unit=at + 9
        )


def test_an_outcome_that_is_predicted_exactly_has_no_weight(numbers):
    def exact(site):
        x, rounding = site.x.copy(), 1e-9 * np.sin(np.arange(len(site.x)))
        x[:, 1], x[:, 3], x[:, 5] = x[:, 0] + rounding, rounding, np.abs(rounding)
        return Matrix(x, site.group)

    asked = {"minimum_count": 5, "minimum_sites": 3, "error_sd": (1e-9, 1e5)}
    federation = PooledSites([exact(site) for site in numbers])
    ours = heterogeneity.summarise(federation, ["a", "b"], heterogeneity.CONTINUOUS, **asked)
    assert ours["a"]["rmse"]["undefined"] == "0 sites with this figure, 3 are needed, each with 5 patients"
    assert ours["b"]["rmse"]["sites"] == 5
