"""Explanation: linear SHAP equal to Shapley values by enumeration; permutation importance to scikit-learn's."""

import itertools
import math

import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import explanation
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites

BETA = np.array([-0.4, 1.1, -0.6, 0.3])
EXACT = np.arange(10_001)


def cohort(n=400, seed=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) @ np.array([[1, 0.4, 0], [0, 1, 0.2], [0, 0, 1]]) + [0.2, -0.1, 0.5]
    y = (rng.random(n) < special.expit(BETA[0] + x @ BETA[1:])).astype(np.int64)
    return Matrix(x, y)


def shapley(beta, x, background):
    """Shapley values of a linear predictor by their definition: all coalitions, absent columns from the background."""
    p = len(beta)
    worth = {
        s: (np.where(np.isin(np.arange(p), s), x, background) @ beta).mean()
        for k in range(p + 1)
        for s in itertools.combinations(range(p), k)
    }
    values = np.zeros(p)
    for j in range(p):
        for k in range(p):
            weight = math.factorial(k) * math.factorial(p - k - 1) / math.factorial(p)
            for s in itertools.combinations([i for i in range(p) if i != j], k):
                values[j] += weight * (worth[tuple(sorted((*s, j)))] - worth[s])
    return values


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_mean_absolute_shap_is_that_of_shapley_values(sites):
    rows = cohort(60)
    federation = sites(odd_sites(rows, rows.group))
    found, sums = explanation.mean_absolute_shap(federation, BETA[1:], np.arange(3))
    assert federation.rounds == 2
    assert int(sums.patients) == 60
    values = np.array([shapley(BETA[1:], x, rows.x) for x in rows.x])
    np.testing.assert_allclose(found, np.abs(values).mean(0), rtol=1e-10)
    together, _ = explanation.mean_absolute_shap(federation, BETA[1:], np.array([0, 1, 1]))
    np.testing.assert_allclose(together[1], np.abs(values[:, 1] + values[:, 2]).mean(), rtol=1e-10)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_permutation_importance_is_the_mean_over_permutations(sites):
    rows = cohort(600)
    risk = lambda x: special.expit(BETA[0] + x @ BETA[1:])  # noqa: E731
    shares = (np.arange(explanation.VALUES) + 0.5) / explanation.VALUES
    replacements = [
        {
            "columns": np.array([j]),
            "values": np.quantile(rows.x[:, [j]], shares, axis=0),
            "weights": np.full(len(shares), 1 / len(shares)),
        }
        for j in range(3)
    ]
    federation = sites(odd_sites(rows, rows.group))
    auc, falls = explanation.permutation_importance(federation, BETA, EXACT, replacements)
    assert federation.rounds == 1
    whole = metrics.roc_auc_score(rows.group, np.round(risk(rows.x), 4))
    assert auc == pytest.approx(whole, abs=1e-9)
    rng = np.random.default_rng(1)
    for j in range(3):
        drawn = []
        for _ in range(100):
            x = rows.x.copy()
            x[:, j] = rng.permutation(x[:, j])
            drawn.append(whole - metrics.roc_auc_score(rows.group, risk(x)))
        # Monte-Carlo error of the permutations; 25 values for the marginal move less
        assert falls[j] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 10 + 0.003)


def test_the_expected_auc_is_that_of_every_pair_of_draws():
    """One column with two values: by hand over all patients and draws."""
    rows = cohort(30, seed=9)
    values, weights = np.array([[-1.0], [2.0]]), np.array([0.3, 0.7])
    asked = [{"columns": np.array([0]), "values": values, "weights": weights}]
    auc, falls = explanation.permutation_importance(PooledSites([rows]), BETA, EXACT, asked)
    rest = BETA[0] + rows.x[:, 1:] @ BETA[2:]
    scores = np.concatenate([np.round(special.expit(rest + BETA[1] * v), 4) for v in values[:, 0]])
    weighted = np.repeat(weights, 30)
    expected = metrics.roc_auc_score(np.tile(rows.group, 2), scores, sample_weight=weighted)
    assert auc - falls[0] == pytest.approx(expected, abs=1e-12)


def test_the_statistics_keep_their_contract():
    rows = cohort(50)
    group = np.array([0, 0, 1])
    check(explanation.contributions, rows, coefficients=BETA[1:], centre=np.ones(3), group=group)
    one = {"columns": np.array([1, 2]), "values": np.ones((4, 2)), "weights": np.full(4, 0.25)}
    check(explanation.replaced, rows, coefficients=BETA, edges=[np.arange(0, 10_001, 500)], replacements=[one])


def test_one_class_is_undefined():
    rows = cohort(20)._replace(group=np.zeros(20, np.int64))
    with pytest.raises(Undefined, match="one patient with"):
        explanation.permutation_importance(PooledSites([rows]), BETA, EXACT, [])
