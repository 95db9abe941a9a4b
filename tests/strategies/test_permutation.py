"""Permutation: falls of the AUC of any score equal to scikit-learn's over all draws of the pooled rows."""

import itertools

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import explanation, permutation, shapley
from cohortium.strategies.permutation import Judged
from cohortium.strategies.rows import Matrix
from cohortium.strategies.scoring import linear_predictor
from tests.strategies.additivity import FixedPointSites, check, odd_sites, take
from tests.strategies.test_shapley import FITS, LINEAR

EXACT = np.arange(10_001)
WIDE = np.arange(0, 10_001, 400)
LEVELS = np.array([[0.4, -0.2], [1.5, -0.2], [0.4, 2.1]])  # reference, and one level or the other


def cohort(n=200, seed=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) @ (np.eye(5) + 0.3) + 0.2
    x[:, 1:3] = LEVELS[rng.integers(0, 3, n)]
    y = (rng.random(n) < special.expit(x @ [1.1, -0.6, 0.3, 0.8, -0.2])).astype(np.int64)
    return Judged(x, y, rng.integers(0, 2**64, n, dtype=np.uint64).view(np.int64))


def replacements(rows):
    """Three measured variables by their quantiles, and one of two levels that move together."""
    shares = (np.arange(25) + 0.5) / 25
    measured = [
        {"columns": np.array([j]), "values": np.quantile(rows.x[:, [j]], shares, axis=0), "weights": np.full(25, 0.04)}
        for j in (0, 3, 4)
    ]
    return [measured[0], {"columns": np.array([1, 2]), "values": LEVELS, "weights": [0.5, 0.3, 0.2]}, *measured[1:]]


def reference(fit, rows, asked, lower=EXACT):
    """AUC, and its falls over a patient with every value of the marginal, ranked together: scikit-learn."""

    def area(scores, weights):
        cells = np.searchsorted(lower, np.rint(1e4 * special.expit(np.concatenate(scores))), side="right")
        many = np.repeat(weights, len(rows.x))
        return roc_auc_score(np.tile(rows.outcome, len(scores)), cells, sample_weight=many)

    whole = area([linear_predictor(fit, rows.x)], [1.0])
    falls = []
    for one in asked:
        scores = []
        for value in one["values"]:
            x = rows.x.copy()
            x[:, one["columns"]] = value
            scores.append(linear_predictor(fit, x))
        falls.append(whole - area(scores, one["weights"]))
    return whole, falls


@pytest.mark.parametrize("lower", [EXACT, WIDE], ids=["exact", "binned"])
@pytest.mark.parametrize("kind", FITS)
def test_falls_are_scikit_learns_over_all_draws(kind, lower):
    rows = cohort()
    asked = replacements(rows)
    auc, falls = reference(FITS[kind], rows, asked, lower)
    parts = odd_sites(rows, rows.outcome)
    for sites in (PooledSites([rows]), PooledSites(parts), PooledSites(parts[::-1]), FixedPointSites(parts)):
        found = permutation.importance(sites, FITS[kind], lower, asked, 200)
        assert sites.rounds == 1
        assert found.patients == 200
        assert found.auc == pytest.approx(auc, abs=1e-11)  # 2**-40 a cell and site
        np.testing.assert_allclose(found.falls, falls, rtol=0, atol=1e-11)
    if kind == "linear":
        assert max(falls) > 0.02


def test_of_a_linear_score_it_is_the_figure_of_linear_models():
    rows = cohort()
    asked = replacements(rows)
    found = permutation.importance(PooledSites([rows]), LINEAR, WIDE, asked, 200)
    linear = PooledSites([Matrix(rows.x, rows.outcome)])
    auc, falls = explanation.permutation_importance(linear, LINEAR["coefficients"], WIDE, asked)
    assert found.auc == pytest.approx(auc, abs=1e-14)
    np.testing.assert_allclose(found.falls, falls, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["gradient_boosting", "mlp"])
def test_it_is_the_mean_over_shuffles_of_the_pooled_rows(kind):
    """The loop of scikit-learn's permutation_importance: shuffle a variable over all sites, score, take the AUC."""
    rows = cohort(500)
    rng = np.random.default_rng(1)
    asked = replacements(rows)
    shares = [(rows.x[:, 1:3] == level).all(axis=1).mean() for level in LEVELS]
    asked[1] = {**asked[1], "weights": shares}
    found = permutation.importance(PooledSites([rows]), FITS[kind], EXACT, asked, 500)
    for one, fall in zip(asked, found.falls, strict=True):
        drawn = []
        for _ in range(60):
            x = rows.x.copy()
            x[:, one["columns"]] = x[rng.permutation(500)][:, one["columns"]]
            drawn.append(found.auc - roc_auc_score(rows.outcome, linear_predictor(FITS[kind], x)))
        # Monte-Carlo error of the shuffles; 25 values for the marginal move less
        assert fall == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(60) + 0.003)


def test_shuffling_within_sites_would_understate_a_shifted_variable():
    """A marker that differs between sites and not within them: drawn from all sites it matters, within none."""
    rng = np.random.default_rng(8)
    site = np.repeat([0, 1], 300)
    x = np.zeros((600, 5))
    x[:, 0] = site * 4.0
    y = (rng.random(600) < np.where(site == 1, 0.8, 0.2)).astype(np.int64)
    rows = Judged(x, y, np.zeros(600, np.int64))
    asked = [{"columns": np.array([0]), "values": np.array([[0.0], [4.0]]), "weights": [0.5, 0.5]}]
    whole = PooledSites([take(rows, site == k) for k in (0, 1)])
    found = permutation.importance(whole, FITS["gradient_boosting"], EXACT, asked, 600)
    assert found.falls[0] == pytest.approx(found.auc - 0.5, abs=1e-12)
    assert found.auc > 0.75


def test_many_patients_are_halved_and_the_half_is_part_of_the_whole():
    assert permutation.MOST_REPLACED == 160_000
    assert [permutation.halvings(n, 100) for n in (0, 1600, 1601, 3202, 100_000)] == [0, 0, 1, 2, 6]
    rows = cohort(400)
    asked = {"fit": FITS["gradient_boosting"], "edges": [WIDE], "replacements": replacements(rows)}
    for k in range(3):
        part = take(rows, rows.key.view(np.uint64) % 2**k == 0)
        counts = permutation.replaced.local(rows, **asked, halvings=k).patients
        np.testing.assert_array_equal(counts, permutation.replaced.local(part, **asked, halvings=0).patients)
        assert abs(counts[0].sum() - 400 / 2**k) <= 4 * np.sqrt(400 / 2**k)  # a fair coin for each patient
        np.testing.assert_allclose(counts.sum(axis=(1, 2)), counts[0].sum(), rtol=1e-12)


@pytest.mark.parametrize("halvings", [0, 1, 3])
@pytest.mark.parametrize("kind", FITS)
def test_the_statistic_keeps_its_contract(kind, halvings):
    rows = cohort(60)
    check(
        permutation.replaced,
        rows,
        fit=FITS[kind],
        edges=[WIDE],
        replacements=replacements(rows)[:2],
        halvings=halvings,
    )


def test_odd_cases():
    """A variable of one value falls by nothing; one class and nobody have no AUC; all variables at once leave 0.5."""
    rows = cohort(80)
    kind = FITS["mlp"]
    same = rows._replace(x=np.column_stack([np.full(80, 0.7), rows.x[:, 1:]]))
    constant = {"columns": np.array([0]), "values": np.array([[0.7]]), "weights": [1.0]}
    found = permutation.importance(PooledSites([same]), kind, EXACT, [constant], 80)
    assert found.falls.tolist() == [0.0]
    values = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))
    whole = {"columns": np.arange(5), "values": values, "weights": np.full(32, 1 / 32)}
    found = permutation.importance(PooledSites([rows]), kind, EXACT, [whole], 80)
    assert found.auc - found.falls[0] == pytest.approx(0.5, abs=1e-12)
    for few in (take(rows, rows.outcome == 0), take(rows, slice(0, 0))):
        with pytest.raises(Undefined):
            permutation.importance(PooledSites([few]), kind, EXACT, [constant], 80)
    assert shapley.MOST_VARIABLES * 1600 == permutation.MOST_REPLACED
