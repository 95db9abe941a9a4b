"""Site effects: dummies of statsmodels, a pooled quadrature by scipy, and the edge where sites do not differ."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import integrate, optimize
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import site_effects
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, take


@pytest.fixture(scope="module")
def rows() -> Labelled:
    data = load_breast_cancer()
    x = data.data[:, [1, 4, 8]]
    return Labelled((x - x.mean(0)) / x.std(0, ddof=1), 1.0 - data.target, np.zeros(569, dtype=np.int64))


@pytest.fixture(scope="module")
def sites(rows) -> list[Labelled]:
    """Six sites that hold more and more patients with the outcome."""
    rng = np.random.default_rng(5)
    where = np.minimum(rng.integers(0, 6, 569) + rows.y * rng.integers(0, 2, 569), 5)
    return [take(rows, where == site) for site in range(6)]


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_fixed_effects_equal_dummies(sites, kind):
    federation = kind(sites)
    ours = site_effects.fit_fixed(federation, 3)
    dummies = np.repeat(np.eye(6), [len(part.y) for part in sites], axis=0)
    design = np.column_stack([np.concatenate([part.x for part in sites]), dummies])
    y = np.concatenate([part.y for part in sites])
    theirs = sm.Logit(y, design).fit(disp=0, method="newton", tol=1e-14)
    np.testing.assert_allclose(ours.coefficients, theirs.params[:3], atol=1e-12)
    np.testing.assert_allclose(ours.standard_errors, theirs.bse[:3], rtol=1e-9)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-12)
    assert ours.mean_intercept == pytest.approx(dummies.mean(0) @ theirs.params[3:], abs=1e-10)
    assert (ours.sites, ours.patients) == (6, 569)
    assert federation.rounds <= 8


def test_a_site_with_one_class_adds_nothing(rows):
    shares = odd_sites(rows, rows.y)
    with_them = site_effects.fit_fixed(PooledSites(shares), 3, minimum_sites=2)
    without = site_effects.fit_fixed(PooledSites(shares[-2:]), 3, minimum_sites=2)
    np.testing.assert_allclose(with_them.coefficients, without.coefficients, atol=1e-12)
    with pytest.raises(NotIdentifiable, match="2 sites have both classes"):
        site_effects.fit_fixed(PooledSites(shares), 3)


def test_fixed_effects_name_what_they_cannot_fit(sites):
    flat = [part._replace(x=np.column_stack([part.x, np.full(len(part.y), i)])) for i, part in enumerate(sites)]
    with pytest.raises(NotIdentifiable, match="predictor 3 has one value in each site"):
        site_effects.fit_fixed(PooledSites(flat), 4)
    marked = [part._replace(x=np.column_stack([part.x, part.y])) for part in sites]
    with pytest.raises(NotIdentifiable, match="marker separates"):
        site_effects.fit_fixed(PooledSites(marked), 4, names=["a", "b", "c", "marker"])


def marginal_likelihood(parameters: np.ndarray, sites: list[Labelled]) -> float:
    """Minus the log-likelihood by adaptive integration (quadpack) of each site's integrand, over pooled patients."""
    total = 0.0
    for part in sites:
        fixed, sd = parameters[0] + part.x @ parameters[1:-1], np.exp(parameters[-1])

        def log_integrand(u: float, fixed=fixed, sd=sd, y=part.y) -> float:
            eta = fixed + sd * u
            return float(y @ eta - np.logaddexp(0, eta).sum() - u * u / 2)

        mode = optimize.minimize_scalar(lambda u, f=log_integrand: -f(u), bracket=(-1, 1), tol=1e-10)
        value, _ = integrate.quad(
            lambda u, f=log_integrand, m=mode: np.exp(f(u) + m.fun),
            mode.x - 9,
            mode.x + 9,
            epsrel=1e-13,
            points=[mode.x],
        )
        total += np.log(value) - mode.fun - np.log(2 * np.pi) / 2
    return -total


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_random_intercept_equals_pooled_integration(sites, kind):
    federation = kind(sites)
    ours = site_effects.fit_random(federation, 3)
    at = np.append(ours.coefficients, np.log(ours.sd))
    assert ours.log_likelihood == pytest.approx(-marginal_likelihood(at, sites), abs=2e-11)
    theirs = optimize.minimize(marginal_likelihood, at + 0.05, args=(sites,), method="BFGS", options={"gtol": 1e-4})
    assert ours.log_likelihood >= -theirs.fun - 1e-10
    np.testing.assert_allclose(at, theirs.x, atol=1e-5)  # of the differences that its gradient is made of
    assert ours.sd > 0.1
    assert 0 < ours.heterogeneity.p < 0.5
    assert federation.rounds <= 16


def test_gradient_and_information_are_those_of_the_likelihood(sites):
    at, h = np.array([-0.5, 0.8, 0.5, 0.2, -0.7]), 1e-4
    terms = PooledSites(sites).sum(site_effects.marginal, coefficients=at[:-1], log_sd=at[-1])
    from cohortium.strategies.triangle import symmetric

    for k, e in enumerate(np.eye(5) * h):
        up, down = (
            PooledSites(sites).sum(site_effects.marginal, coefficients=(at + s * e)[:-1], log_sd=(at + s * e)[-1])
            for s in (1, -1)
        )
        assert terms.gradient[k] == pytest.approx((up.log_likelihood - down.log_likelihood) / (2 * h), abs=1e-5)
        np.testing.assert_allclose(
            symmetric(terms.information)[k], (down.gradient - up.gradient) / (2 * h), atol=1e-5 * 569
        )


def test_sites_that_do_not_differ_are_on_the_edge(rows):
    """The likelihood falls as the variance leaves zero: patients were dealt to sites at random, evenly by class."""
    order = np.argsort(rows.y, kind="stable")
    where = np.empty(569, dtype=int)
    where[order] = np.arange(569) % 5
    ours = site_effects.fit_random(FixedPointSites([take(rows, where == site) for site in range(5)]), 3)
    theirs = sm.Logit(rows.y, sm.add_constant(rows.x)).fit(disp=0, method="newton", tol=1e-14)
    assert ours.sd == 0
    np.testing.assert_allclose(ours.coefficients, theirs.params, rtol=1e-9)
    assert ours.heterogeneity.p == 1
    assert ours.median_odds_ratio == 1


def test_statistics_keep_their_contract(rows):
    b = np.array([0.4, -0.2, 0.1])
    check(site_effects.profile, rows, coefficients=b)
    check(site_effects.intercept, rows, coefficients=b, patients=569)
    check(site_effects.marginal, rows, rtol=1e-11, coefficients=np.append(0.3, b), log_sd=-0.5)
