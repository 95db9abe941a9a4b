"""Odd federations: every algorithm gives what other software gives of the pooled rows, or says why it cannot."""

from functools import cache

import numpy as np
import pytest
import statsmodels.api as sm
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index
from scipy import special, stats
from sklearn.metrics import roc_auc_score
from statsmodels.duration.hazard_regression import PHReg

from cohortium.common.errors import NotIdentifiable, Undefined
from cohortium.strategies import (
    combat,
    cox,
    discrimination,
    gradient_boosting,
    lasso,
    logistic,
    mlp,
    moments,
    quantiles,
    rank_tests,
    score_bins,
    screening,
    survival,
    validation,
)
from cohortium.strategies.rows import Labelled, Matrix, Scored, ScoredSurvival, Survival
from cohortium.strategies.validation_settings import Settings
from tests.strategies.odd_federations import FEDERATIONS, Odd

EXACT = Settings(score_resolution="exact")
FOLDS = 3
MILLION = "a million at one site, ten at another"
MODELS = [name for name in FEDERATIONS if name != MILLION]  # others take seconds a fit, and no other path
ONE_CLASS = "one class, no events"
WIDE = "more columns than patients"
GONE = ("all values missing", "a constant column")


@cache
def odd(name: str) -> Odd:
    return FEDERATIONS[name]()


def everywhere(function):
    return pytest.mark.parametrize("name", FEDERATIONS)(function)


def but_for_the_million(function):
    return pytest.mark.parametrize("name", MODELS)(function)


def matrix(of: Odd):
    return of.sites(Matrix, x=of.raw, group=of.group)


def labelled(of: Odd):
    return of.sites(Labelled, x=of.x, y=of.group.astype(float), fold=np.arange(of.n) % FOLDS)


# --- describing -----------------------------------------------------------------------------------------------


@everywhere
def test_moments_and_quantiles_are_those_of_numpy(name):
    of = odd(name)
    sites, p = matrix(of), of.raw.shape[1]
    found, quartiles = moments.fit(sites, p), quantiles.fit(sites, (0.25, 0.5, 0.75))
    known = ~np.isnan(of.raw)
    np.testing.assert_array_equal(found.n, known.sum(0))
    for j in range(p):
        values = of.raw[known[:, j], j]
        if not len(values):
            assert np.isnan(quartiles[j]).all()  # the mean of nobody is 0, with n = 0 beside it
            continue
        assert found.mean[j] == pytest.approx(values.mean(), rel=1e-12)
        assert found.sd[j] == pytest.approx(values.std(ddof=1), rel=1e-11, abs=1e-12)
        np.testing.assert_allclose(quartiles[j], np.quantile(values, [0.25, 0.5, 0.75]), rtol=2**-20)  # 32 bits


@everywhere
def test_t_tests_are_those_of_scipy(name):
    of = odd(name)
    found = screening.t_test(matrix(of), of.raw.shape[1])
    for j in range(of.raw.shape[1]):
        one, zero = (of.raw[(of.group == g) & ~np.isnan(of.raw[:, j]), j] for g in (1, 0))
        if min(len(one), len(zero)) < 2 or np.ptp(np.r_[one, zero]) == 0:
            assert np.isnan(found.p[j])
        elif np.ptp(one) == 0 and np.ptp(zero) == 0:
            assert found.p[j] == 0
        else:
            expected = stats.ttest_ind(one, zero)
            assert found.t[j] == pytest.approx(expected.statistic, rel=1e-10)
            assert found.p[j] == pytest.approx(expected.pvalue, rel=1e-8, abs=1e-300)


@but_for_the_million
def test_rank_screening_keeps_what_scipy_keeps(name):
    of = odd(name)
    columns = [j for j in range(of.raw.shape[1]) if np.ptp(of.x[:, j]) > 0]
    one, zero = of.x[of.group == 1], of.x[of.group == 0]
    kept = rank_tests.screen(of.sites(Matrix, x=of.x, group=of.group), of.raw.shape[1], 0.05).kept
    expected = []
    if len(one) and len(zero):
        p = stats.mannwhitneyu(one[:, columns], zero[:, columns], method="asymptotic").pvalue
        expected = np.array(columns)[p < 0.05]
    np.testing.assert_array_equal(kept, expected)


# --- models ---------------------------------------------------------------------------------------------------

REFUSED = {
    ONE_CLASS: "no patient has the outcome",
    WIDE: "determine|separate|combination",
    "separation": "separate",
    "all values missing": "predictor 1",
    "a constant column": "predictor 1",
}


@everywhere
def test_logistic_regression_is_the_maximum_or_says_why_there_is_none(name):
    of = odd(name)
    if name in REFUSED:
        with pytest.raises(NotIdentifiable, match=REFUSED[name]):
            logistic.fit(labelled(of), of.raw.shape[1])
        return
    fit = logistic.fit(labelled(of), of.raw.shape[1])
    design = sm.add_constant(of.x)
    if name == MILLION:  # where other software takes its time
        risk = special.expit(design @ fit.coefficients)
        covariance = np.linalg.inv(design.T @ (design * (risk * (1 - risk))[:, None]))
        np.testing.assert_allclose(covariance @ (design.T @ (of.group - risk)), 0, atol=1e-11)
        np.testing.assert_allclose(fit.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-8)
        return
    theirs = sm.Logit(of.group, design).fit(disp=0, method="newton", tol=1e-14)
    np.testing.assert_allclose(fit.coefficients, theirs.params, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(fit.standard_errors, theirs.bse, rtol=1e-8)


@but_for_the_million
def test_lasso_is_optimal_or_says_why_there_is_none(name):
    """By the conditions of an optimum, written out from the objective."""
    of, p = odd(name), odd(name).raw.shape[1]
    if name == ONE_CLASS:
        with pytest.raises(NotIdentifiable, match="outcome"):
            lasso.fit(labelled(of), p, n_lambda=10, folds=FOLDS)
        return
    path = lasso.fit(labelled(of), p, n_lambda=10, folds=FOLDS)
    assert np.isfinite(path.cv_deviance).all()
    for penalty, (intercept, *slopes) in zip(path.lambdas, path.coefficients, strict=True):
        residual = special.expit(intercept + of.x @ slopes) - of.group
        gradient = of.x.T @ residual / of.n
        violated = np.where(
            np.array(slopes) != 0,
            np.abs(gradient + np.sign(slopes) * penalty),
            np.maximum(np.abs(gradient) - penalty, 0),
        )
        assert max(abs(residual.mean()), violated.max()) < 2e-10
    if name in GONE:
        assert not path.coefficients[:, 2].any()


COX_REFUSED = {
    ONE_CLASS: "event",
    WIDE: "combination|separate|finite|determine",
    "separation": "separate",
    "all values missing": "combination|one value|constant",
    "a constant column": "combination|one value|constant",
}


@but_for_the_million
@pytest.mark.parametrize("strata", ["none", "site"])
def test_cox_is_the_maximum_or_says_why_there_is_none(name, strata):
    of, p = odd(name), odd(name).raw.shape[1]
    sites = of.sites(Survival, x=of.x, time=of.time, event=of.event)
    if name in COX_REFUSED:
        with pytest.raises(NotIdentifiable, match=COX_REFUSED[name]):
            cox.fit(sites, p, strata=strata)
        return
    fit = cox.fit(sites, p, strata=strata)
    by = of.site if strata == "site" else np.zeros(of.n)
    model = PHReg(of.time, of.x, status=of.event, strata=by, ties="efron")
    np.testing.assert_allclose(model.score(fit.coefficients), 0, atol=1e-6)
    np.testing.assert_allclose(
        fit.standard_errors, np.sqrt(np.diag(np.linalg.inv(-model.hessian(fit.coefficients)))), rtol=1e-7
    )


@but_for_the_million
@pytest.mark.parametrize("kind", ["boosting", "network"])
def test_trees_and_networks_do_not_depend_on_how_patients_are_dealt(name, kind):
    """Of one site they equal xgboost and torch (test_gradient_boosting, test_mlp)."""
    of = odd(name)

    def fit(federation):
        if kind == "network":
            settings = {"iterations": 15, "l2": 0.01, "optimizer": "adam", "learning_rate": 0.05, "seed": 1}
            return mlp.fit(federation, of.raw.shape[1], hidden=[3], **settings).weights
        settings = {"trees": 4, "max_depth": 2, "learning_rate": 0.3, "l2": 1.0, "min_child_weight": 2.0, "max_bin": 16}
        found = gradient_boosting.fit(federation, **settings)
        return gradient_boosting.linear_predictor(found.trees, found.base, of.x)

    whole = Odd(raw=of.raw, group=of.group, time=of.time, event=of.event, score=of.score, sizes=(of.n,))
    if name == ONE_CLASS:
        with pytest.raises(NotIdentifiable, match="with and without the outcome"):
            fit(labelled(of))
        return
    np.testing.assert_allclose(fit(labelled(of)), fit(labelled(whole)), atol=1e-9)


@but_for_the_million
def test_combat_has_the_grand_mean_and_variance_of_least_squares_with_site_dummies(name):
    of = odd(name)
    protect = of.group[:, None].astype(float)
    sites = of.sites(Matrix, x=np.column_stack([of.raw, protect]), group=np.zeros(of.n, np.int64))
    p = of.raw.shape[1]
    if name == ONE_CLASS:
        with pytest.raises(NotIdentifiable, match="constant inside every site"):
            combat.fit(sites, p, 1)
        return
    fitted = combat.fit(sites, p, 1)
    dummies = (of.site[:, None] == np.unique(of.site)).astype(float)
    for j in range(p):
        known = ~np.isnan(of.raw[:, j])
        if not known.any():
            continue
        design = np.column_stack([dummies[:, dummies[known].any(0)], protect])[known]
        fit, *_ = np.linalg.lstsq(design, of.raw[known, j], rcond=None)
        residual = of.raw[known, j] - design @ fit
        assert fitted.pooled_variance[j] == pytest.approx((residual**2).mean(), rel=1e-8, abs=1e-12)
        if np.ptp(of.raw[known, j]) > 0 and (residual**2).mean() > 1e-12:
            assert fitted.protect_coefficients[0, j] == pytest.approx(fit[-1], rel=1e-7, abs=1e-9)
    for s in np.unique(of.site):
        mine = of.site == s
        done = combat.harmonise(of.raw[mine], protect[mine], np.ones(mine.sum(), dtype=bool), fitted)
        np.testing.assert_array_equal(np.isnan(done), np.isnan(of.raw[mine]))


# --- validation -----------------------------------------------------------------------------------------------


@everywhere
def test_auc_is_that_of_scikit_learn(name):
    of = odd(name)
    sites = of.sites(Scored, score=of.score[:, None], y=of.group.astype(float), fold=np.zeros(of.n, np.int64))
    edges = score_bins.edges(sites, 1, scale="probability", resolution="exact")
    counts = sites.sum(discrimination.histogram, edges=edges, folds=1).patients.sum(0)[0]
    if name == ONE_CLASS:
        with pytest.raises(Undefined, match="with"):
            discrimination.auc(counts, edges[0])
        return
    assert discrimination.auc(counts, edges[0]).estimate == pytest.approx(roc_auc_score(of.group, of.score), abs=1e-12)


@but_for_the_million
def test_calibration_is_that_of_statsmodels(name):
    of = odd(name)
    sites = of.sites(Scored, score=of.score[:, None], y=of.group.astype(float), fold=np.zeros(of.n, np.int64))
    found = validation.validate_binary(sites, ["m"], EXACT)["m"]["calibration"]
    if name == ONE_CLASS:
        assert "undefined" in found["slope"]
        assert "undefined" in found["intercept"]
        return
    z = special.logit(of.score)
    offset = sm.GLM(of.group, np.ones(of.n), family=sm.families.Binomial(), offset=z).fit(tol=1e-14)
    assert found["intercept"] == pytest.approx(offset.params[0], abs=1e-9)
    if name == "separation":
        assert "undefined" in found["slope"]
        return
    slope = sm.Logit(of.group, sm.add_constant(z)).fit(disp=0, tol=1e-14).params[1]
    assert found["slope"] == pytest.approx(slope, rel=1e-8)


@everywhere
def test_kaplan_meier_is_that_of_lifelines(name):
    of = odd(name)
    total = survival.timeline(of.sites(Survival, x=of.x, time=of.time, event=of.event), 1.0)
    at_risk = survival.at_risk(total.exits)
    ours = survival.kaplan_meier(np.arange(len(at_risk), dtype=float), total.events, at_risk)
    theirs = KaplanMeierFitter().fit(of.time, of.event).survival_function_.iloc[:, 0]
    for time, value in zip(ours.time, ours.survival, strict=True):
        assert value == pytest.approx(theirs.loc[:time].iloc[-1], abs=1e-12)


@but_for_the_million
def test_concordance_is_that_of_lifelines(name):
    of = odd(name)
    sites = of.sites(ScoredSurvival, score=of.score[:, None], time=of.time, event=of.event)
    found = validation.validate_survival(sites, ["m"], EXACT)["m"]["c_index"]
    if name == ONE_CLASS:
        assert "undefined" in found
        return
    assert found["estimate"] == pytest.approx(concordance_index(of.time, -of.score, of.event), abs=1e-12)
