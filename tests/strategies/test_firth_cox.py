"""Firth's Cox: equal to a pooled maximiser of the penalised partial likelihood, written out here death by death."""

import numpy as np
import pytest
from lifelines import datasets
from scipy import optimize

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, firth_cox
from cohortium.strategies.rows import Survival
from tests.strategies.additivity import FixedPointSites, check, split, take

SIZES = [60, 50, 9, 1, 0]


@pytest.fixture(scope="module")
def rows() -> Survival:
    """120 of the rossi convicts; a marker without which nobody was: its likelihood has no maximum."""
    frame = datasets.load_rossi()[100:220]
    marker = (frame.arrest == 1) | (np.arange(120) % 3 == 0)
    x = np.column_stack([frame.age, frame.prio, marker]).astype(float)
    return Survival((x - x.mean(0)) / x.std(0), frame.week.to_numpy(float), frame.arrest.to_numpy(float))


def penalised(b: np.ndarray, strata: list[Survival], ties: str) -> float:
    """Minus the partial likelihood, less half the log determinant of its information."""
    value, information = 0.0, np.zeros((len(b), len(b)))
    for rows in strata:
        w = np.exp(rows.x @ b)
        for t in np.unique(rows.time[rows.event == 1]):
            died = (rows.time == t) & (rows.event == 1)
            for j in range(died.sum()):
                share = w * (rows.time >= t) * (1 - (j / died.sum() if ties == "efron" else 0) * died)
                mean = share @ rows.x / share.sum()
                apart = rows.x - mean
                information += apart.T @ (apart * share[:, None]) / share.sum()
                value -= np.log(share.sum())
            value += (rows.x[died] @ b).sum()
    return -(value + np.linalg.slogdet(information)[1] / 2)


def slope(b: np.ndarray, strata: list[Survival], ties: str) -> np.ndarray:
    """Its gradient, by central differences of fourth order: good to 1e-9."""
    h, found = 1e-3, np.zeros(len(b))
    for k, e in enumerate(np.eye(len(b)) * h):
        f = [penalised(b + step * e, strata, ties) for step in (-2, -1, 1, 2)]
        found[k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    return found


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", ["none", "site"])
def test_equals_a_pooled_maximiser(rows, strata, ties, kind):
    shares = split(rows, SIZES)
    federation = kind(shares)
    with pytest.raises(NotIdentifiable, match='penalty = "firth"'):
        cox.fit(PooledSites(shares), 3, ties=ties, strata=strata)
    ours = firth_cox.fit(federation, 3, ties=ties, strata=strata)
    pooled = [rows] if strata == "none" else shares
    np.testing.assert_allclose(slope(ours.coefficients, pooled, ties), 0, atol=1e-7)
    theirs = optimize.root(slope, ours.coefficients + 0.05, args=(pooled, ties), tol=1e-10).x
    np.testing.assert_allclose(ours.coefficients, theirs, atol=1e-7)  # of the differences
    assert ours.log_likelihood == pytest.approx(-penalised(ours.coefficients, pooled, ties), rel=1e-11)
    assert ours.null_log_likelihood == pytest.approx(-penalised(np.zeros(3), pooled, ties), rel=1e-11)
    assert (ours.baseline is None) == (strata == "site")
    assert federation.rounds <= 30


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_golden_profile_of_firthmodels(rows, kind):
    """FirthCoxPH of firthmodels 0.8.2 (Breslow ties) on these columns: conf_int(method="pl"), lrt."""
    frame = datasets.load_rossi()[100:220]
    marker = (frame.arrest == 1) | (np.arange(120) % 3 == 0)
    sd = np.column_stack([frame.age, frame.prio, marker]).astype(float).std(0)
    _, found = firth_cox.fit_with_profile(kind(split(rows, SIZES)), np.diag(1 / sd), ties="breslow")
    np.testing.assert_allclose(found.low, [-0.04508656, -0.08768136, 2.29225991], atol=2e-8)
    np.testing.assert_allclose(found.high, [0.07299926, 0.22543797, 9.10802873], atol=2e-7)  # its stopping rule
    np.testing.assert_allclose(found.p, [5.75469367e-01, 3.52173123e-01, 4.50503023e-10], rtol=1e-6)


@pytest.mark.parametrize("strata", ["none", "site"])
def test_at_the_ends_of_a_profile_the_likelihood_has_lost_enough(rows, strata):
    shares = split(rows, SIZES)
    fitted, found = firth_cox.fit_with_profile(FixedPointSites(shares), np.eye(3), strata=strata)
    assert (
        fitted.coefficients.tolist() == firth_cox.fit(FixedPointSites(shares), 3, strata=strata).coefficients.tolist()
    )
    pooled = [rows] if strata == "none" else shares
    for k in (0, 2):
        others = [j for j in range(3) if j != k]
        for end in (found.low[k], found.high[k]):

            def held(b: np.ndarray, k=k, end=end, others=others) -> np.ndarray:
                return slope(np.insert(b, k, end), pooled, "efron")[others]

            theirs = np.insert(optimize.root(held, fitted.coefficients[others], tol=1e-9).x, k, end)
            lost = fitted.log_likelihood + penalised(theirs, pooled, "efron")
            assert 2 * lost == pytest.approx(3.841458820694124, rel=1e-7)


def test_a_column_held_at_zero(rows):
    reduced = firth_cox.fit(PooledSites([rows]), 3, zero=[2])
    assert reduced.coefficients[2] == 0
    np.testing.assert_allclose(slope(reduced.coefficients, [rows], "efron")[:2], 0, atol=1e-7)


def test_what_cannot_be_fitted_is_named(rows):
    for strata in ("none", "site"):
        with pytest.raises(NotIdentifiable, match="combination"):
            firth_cox.fit(PooledSites([rows._replace(x=rows.x[:, [0, 1, 1]])]), 3, strata=strata)
        with pytest.raises(NotIdentifiable, match="no patient had the event"):
            firth_cox.fit(PooledSites([rows._replace(event=np.zeros(120))]), 3, strata=strata)
    with pytest.raises(ValueError, match="common time grid"):
        firth_cox.fit(PooledSites([rows]), 3, time_step=None)


def test_statistics_keep_their_contract(rows):
    rng = np.random.default_rng(4)
    b, covariance = rng.normal(size=3) / 4, np.diag([0.1, 0.2, 0.3])
    check(firth_cox.stratum, rows, rtol=1e-11, coefficients=b, covariance=covariance, ties="efron")
    points, deaths = np.unique(take(rows, rows.event == 1).time.astype(np.int64), return_counts=True)
    total = int(deaths.sum())
    drawn = {"points": points, "deaths": deaths, "denominators": 50 + rng.random(total), "ties": "efron"}
    mean_x = rng.normal(size=(total, 3)) / 3
    check(
        firth_cox.moments,
        rows,
        rtol=1e-11,
        coefficients=b,
        covariance=covariance,
        mean_x=mean_x,
        time_step=1.0,
        **drawn,
    )
