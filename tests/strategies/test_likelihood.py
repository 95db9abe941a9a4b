"""Likelihood: tests, criteria and variance inflation equal to statsmodels and lifelines on the pooled patients."""

import numpy as np
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter, datasets
from scipy import stats
from sklearn.datasets import load_breast_cancer
from statsmodels.stats.outliers_influence import variance_inflation_factor

from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, likelihood, logistic
from cohortium.strategies.rows import Labelled, Survival
from tests.strategies.additivity import FixedPointSites, odd_sites, split

KINDS = pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])


@pytest.fixture(scope="module")
def rows() -> Labelled:
    data = load_breast_cancer()
    x = data.data[:, [1, 4, 8, 9]]
    return Labelled((x - x.mean(0)) / x.std(0, ddof=1), 1.0 - data.target, np.zeros(569, dtype=np.int64))


@KINDS
def test_logistic_criteria_equal_statsmodels(rows, kind):
    ours = logistic.fit(kind(odd_sites(rows, rows.y)), 4)
    theirs = sm.Logit(rows.y, sm.add_constant(rows.x)).fit(disp=0, method="newton", tol=1e-14)
    assert ours.null_log_likelihood == pytest.approx(theirs.llnull, rel=1e-9)  # which they find by iteration
    assert ours.likelihood_ratio.chi2 == pytest.approx(theirs.llr, rel=1e-9)
    assert ours.likelihood_ratio.p == pytest.approx(theirs.llr_pvalue, rel=1e-7)
    assert ours.likelihood_ratio.df == 4
    assert ours.aic == pytest.approx(theirs.aic, rel=1e-12)
    assert ours.bic == pytest.approx(theirs.bic, rel=1e-12)


@KINDS
def test_variance_inflation_equals_statsmodels(rows, kind):
    ours = logistic.fit(kind(odd_sites(rows, rows.y)), 4)
    factors = likelihood.variance_inflation(likelihood.correlation_of(ours.gram), {str(k): [k] for k in range(4)})
    design = sm.add_constant(rows.x)
    theirs = [variance_inflation_factor(design, k) for k in range(1, 5)]
    np.testing.assert_allclose(list(factors.values()), theirs, rtol=1e-9)


def test_generalised_inflation_of_a_variable_does_not_depend_on_its_coding():
    """Fox & Monette 1992: the same for any three contrasts of a factor of four levels, and R's car::vif by hand."""
    rng = np.random.default_rng(2)
    level = rng.integers(0, 4, 300)
    other = rng.standard_normal(300) + 0.5 * level
    dummies = (level[:, None] == [1, 2, 3]).astype(float)
    found = []
    for coded in (dummies, dummies @ rng.standard_normal((3, 3))):
        design = np.column_stack([np.ones(300), coded, other])
        correlation = likelihood.correlation_of(design.T @ design)
        found.append(likelihood.variance_inflation(correlation, {"level": [0, 1, 2], "other": [3]}))
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    r2 = sm.OLS(other, sm.add_constant(dummies)).fit().rsquared
    # of two groups each factor is 1 / (1 - R^2) of the single column on the others
    assert found[0]["level"] == pytest.approx(1 / (1 - r2), rel=1e-10)
    assert found[0]["other"] == pytest.approx(1 / (1 - r2), rel=1e-10)


@KINDS
@pytest.mark.parametrize("strata", ["none", "site"])
def test_cox_tests_equal_lifelines(strata, kind):
    frame = datasets.load_rossi()
    x = frame.drop(columns=["week", "arrest"]).to_numpy(float)
    rows = Survival((x - x.mean(0)) / x.std(0), frame.week.to_numpy(float), frame.arrest.to_numpy(float))
    shares = split(rows, [200, 130, 102])
    ours = cox.fit(kind(shares), 7, strata=strata)
    frame["site"] = np.repeat(range(3), [200, 130, 102])
    theirs = CoxPHFitter().fit(
        frame if strata == "site" else frame.drop(columns="site"),
        "week",
        "arrest",
        strata="site" if strata == "site" else None,
        fit_options={"precision": 1e-12},
    )
    test = theirs.log_likelihood_ratio_test()
    assert ours.likelihood_ratio.chi2 == pytest.approx(test.test_statistic, rel=1e-9)
    assert ours.likelihood_ratio.p == pytest.approx(test.p_value, rel=1e-7)
    assert ours.aic == pytest.approx(theirs.AIC_partial_, rel=1e-11)
    assert ours.score.chi2 == pytest.approx(score_test(shares if strata == "site" else [rows]), rel=1e-9)


def score_test(strata: list[Survival]) -> float:
    """Rao's test at zero, Efron ties, statsmodels' score and curvature of each stratum added up."""
    gradient, curvature = np.zeros(7), np.zeros((7, 7))
    for rows in strata:
        model = sm.PHReg(rows.time, rows.x, status=rows.event, ties="efron")
        gradient += model.score(np.zeros(7))
        curvature -= model.hessian(np.zeros(7))
    return float(gradient @ np.linalg.solve(curvature, gradient))


def test_a_test_of_nothing():
    assert likelihood.ratio_test(-10.0, -10.0 + 1e-12, 0) == likelihood.ChiSquared(chi2=0.0, df=0, p=1.0)
    assert likelihood.ratio_test(-10.0, -12.0, 1).p == pytest.approx(stats.chi2.sf(4.0, 1))
