"""Shapley: sampled values equal to their definition, to the shap library, and to linear SHAP of a linear score."""

import itertools
import math

import numpy as np
import pytest

from cohortium.common.federation import PooledSites
from cohortium.strategies import explanation, shapley
from cohortium.strategies.rows import Matrix
from cohortium.strategies.scoring import linear_predictor
from cohortium.strategies.shapley import Background, Keyed
from tests.strategies.additivity import FixedPointSites, check, odd_sites

GROUP = np.array([0, 1, 1, 2, 3])  # the second variable has two columns
NETWORK = {"hidden": [3], "weights": np.sin(np.arange(1.0, 23.0)) * 1.5}
MACHINE = {"kernel": [0.3, 40, 7], "coefficients": np.cos(np.arange(41.0))}
HEAD = {"head": [4], "weights": np.sin(np.arange(29)).astype(np.float32)}
TREES = {
    "base": -0.2,
    "trees": {
        "feature": np.array([[0, 1, 3, -1, -1, -1, -1], [4, 0, -1, -1, -1, -1, -1]]),
        "threshold": np.array([[0.1, -0.4, 0.6, 0, 0, 0, 0], [0.0, 0.3, 0, 0, 0, 0, 0]]),
        "value": np.array([[0, 0, 0, 0.4, -0.7, 0.9, 0.2], [0, 0, 0.5, -0.3, 0.8, 0, 0]]),
    },
}
LINEAR = {"coefficients": np.array([-0.4, 1.1, -0.6, 0.3, 0.8, -0.2])}
FITS = {"mlp": NETWORK, "rff_svm": MACHINE, "network": HEAD, "gradient_boosting": TREES, "linear": LINEAR}


def cohort(n=60, seed=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) @ (np.eye(5) + 0.3) + 0.2
    return Keyed(x, rng.integers(0, 2**64, n, dtype=np.uint64).view(np.int64))


def background(rows=shapley.BACKGROUND, seed=2):
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(4), (rows, 1)), axis=1)
    return Background(GROUP, rng.normal(size=(rows, 5)), orders)


def by_definition(fit, x, group, rows):
    """Shapley values of one patient over all coalitions of variables; absent ones come from each background row."""
    groups = int(group.max()) + 1
    worth = {
        s: linear_predictor(fit, np.where(np.isin(group, s), x, rows)).mean()
        for k in range(groups + 1)
        for s in itertools.combinations(range(groups), k)
    }
    values = np.zeros(groups)
    for j in range(groups):
        for k in range(groups):
            weight = math.factorial(k) * math.factorial(groups - k - 1) / math.factorial(groups)
            for s in itertools.combinations([i for i in range(groups) if i != j], k):
                values[j] += weight * (worth[tuple(sorted((*s, j)))] - worth[s])
    return values


@pytest.mark.parametrize("kind", FITS)
def test_all_permutations_give_the_definition(kind):
    """Each of 24 orders with each of five rows: nothing is left to chance."""
    rows, x = background(5).rows, cohort(6).x
    orders = np.array(list(itertools.permutations(range(4))))
    every = Background(GROUP, np.repeat(rows, 24, axis=0), np.tile(orders, (5, 1)))
    found = shapley.contributions(FITS[kind], x, every)
    expected = [by_definition(FITS[kind], patient, GROUP, rows) for patient in x]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)  # rounding of scores of order 1


@pytest.mark.parametrize("kind", FITS)
def test_sampled_permutations_are_near_the_definition(kind):
    """A pair of orders a row: means over patients within 3 %, single patients within the spread of the walks."""
    sampled, x = background(), cohort(40).x
    found = shapley.contributions(FITS[kind], x, sampled)
    expected = np.array([by_definition(FITS[kind], patient, GROUP, sampled.rows) for patient in x])
    size = np.abs(expected).mean(axis=0)
    np.testing.assert_allclose(np.abs(found).mean(axis=0), size, atol=0.03 * size.max())
    # the error of a mean of walks, four times: antithetic pairs only lower it
    one = [
        shapley.contributions(FITS[kind], x, Background(GROUP, sampled.rows[i : i + 1], sampled.orders[i : i + 1]))
        for i in range(shapley.BACKGROUND)
    ]
    spread = np.std(one, axis=0) / np.sqrt(shapley.BACKGROUND)
    assert (np.abs(found - expected) <= 4 * spread + 1e-12).all()


def test_the_values_of_the_shap_library():
    """shap 0.51.0, numpy 2.4.6: ExactExplainer(f, maskers.Independent(rows))(x), f a tanh network on numpy alone."""
    fit = {"hidden": [3], "weights": (np.sin(np.arange(1, 23)) * 1.5)[:19]}
    rows = np.cos(np.arange(20.0)).reshape(5, 4) * 1.3
    x = np.sin(np.arange(12.0) * 0.7).reshape(3, 4) * 1.7
    orders = np.array(list(itertools.permutations(range(4))))
    every = Background(np.arange(4), np.repeat(rows, 24, axis=0), np.tile(orders, (5, 1)))
    expected = [
        [-0.243593783571, -0.155373622452, 0.532425083086, -0.331842172230],
        [0.121215352702, -0.068490303326, -0.127141979497, 0.372234395052],
        [-0.075866179966, -0.050103875761, 0.541105256070, 0.092554924092],
    ]
    np.testing.assert_allclose(shapley.contributions(fit, x, every), expected, atol=1e-12)  # as many digits are given
    assert linear_predictor(fit, rows).mean() == pytest.approx(-0.18370316669, abs=1e-11)


def test_a_linear_score_has_linear_shap_values():
    rows, sampled = cohort(), background()
    parts = (rows.x - sampled.rows.mean(axis=0)) * LINEAR["coefficients"][1:]
    expected = parts @ np.eye(4)[GROUP]
    np.testing.assert_allclose(shapley.contributions(LINEAR, rows.x, sampled), expected, rtol=0, atol=1e-13)
    # against the patients themselves: the figure of linear models
    own = Background(GROUP, rows.x, background(len(rows.x)).orders)
    found = shapley.sampled(PooledSites([rows]), LINEAR, own, len(rows.x))
    matrix = Matrix(rows.x, np.zeros(len(rows.x), np.int64))
    linear, _ = explanation.mean_absolute_shap(PooledSites([matrix]), LINEAR["coefficients"][1:], GROUP)
    np.testing.assert_allclose(found.mean_absolute, linear, rtol=1e-12)


@pytest.mark.parametrize("kind", FITS)
def test_contributions_add_up_to_the_score(kind):
    """For each patient and over all sites, whatever few permutations were drawn."""
    rows, few = cohort(), background(3)
    found = shapley.contributions(FITS[kind], rows.x, few)
    score = linear_predictor(FITS[kind], rows.x)
    gap = found.sum(axis=1) - (score - linear_predictor(FITS[kind], few.rows).mean())
    np.testing.assert_allclose(gap, 0, atol=1e-13)
    sites = FixedPointSites(odd_sites(rows, rows.key % 2))
    sums = shapley.sampled(sites, FITS[kind], few, 60)
    assert sites.rounds == 1
    assert sums.patients == 60
    assert sums.expected + sums.mean.sum() == pytest.approx(sums.score, abs=1e-11)  # 5 fields, 6 sites, 2**-40 each
    assert sums.score == pytest.approx(score.mean(), abs=1e-11)


@pytest.mark.parametrize("kind", FITS)
def test_sites_do_not_matter(kind):
    rows, few = cohort(50), background(4)
    whole = shapley.sampled(PooledSites([rows]), FITS[kind], few, 50)
    parts = odd_sites(rows, rows.key % 2)
    for sites in (PooledSites(parts), PooledSites(parts[::-1]), FixedPointSites(parts)):
        found = shapley.sampled(sites, FITS[kind], few, 50)
        for one, other in zip(whole, found, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-11)  # 2**-40 a site


@pytest.mark.parametrize("halvings", [0, 1, 3])
@pytest.mark.parametrize("kind", ["mlp", "gradient_boosting"])
def test_the_statistic_keeps_its_contract(kind, halvings):
    few = background(2)
    asked = {"group": few.group, "background": few.rows, "orders": few.orders, "halvings": halvings}
    check(shapley.values, cohort(), fit=FITS[kind], **asked)


def test_many_patients_are_halved_and_the_half_is_part_of_the_whole():
    assert [shapley.halvings(n, 10) for n in (0, 2000, 2001, 4001, 9000)] == [0, 0, 1, 1, 3]
    assert shapley.halvings(1000, 20) == 0
    rows, few = cohort(400), background(1)
    asked = {"fit": TREES, "group": few.group, "background": few.rows, "orders": few.orders}
    counted = [int(shapley.values.local(rows, **asked, halvings=k).patients) for k in range(4)]
    assert counted[0] == 400
    for k, n in enumerate(counted):
        assert abs(n - 400 / 2**k) <= 4 * math.sqrt(400 / 2**k)  # a fair coin for each patient


def test_one_variable_has_the_whole_difference():
    rows = cohort(5)
    alone = Background(np.zeros(5, np.int64), background(7).rows, np.zeros((7, 1), np.int64))
    found = shapley.contributions(TREES, rows.x, alone)
    expected = linear_predictor(TREES, rows.x) - linear_predictor(TREES, alone.rows).mean()
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-14)


def test_background_rows_have_the_marginals_and_no_more():
    level = {"columns": np.array([1, 2]), "values": np.array([[0, 0], [1, 0], [0, 1.0]]), "weights": [0.5, 0.3, 0.2]}
    measured = [
        {"columns": np.array([j]), "values": np.arange(25.0)[:, None], "weights": np.full(25, 0.04)} for j in (0, 3, 4)
    ]
    marginals = [measured[0], level, *measured[1:]]
    drawn = shapley.draw(marginals, GROUP, np.random.default_rng(5))
    for column in (0, 3, 4):
        np.testing.assert_array_equal(np.bincount(drawn.rows[:, column].astype(int)), np.full(25, 4))
    assert drawn.rows[:, 1].sum() == 30
    assert drawn.rows[:, 2].sum() == 20
    assert not (drawn.rows[:, 1] * drawn.rows[:, 2]).any()
    assert np.abs(np.corrcoef(drawn.rows[:, [0, 3, 4]].T)[np.triu_indices(3, 1)]).max() < 0.3  # 3 / sqrt(100)
    np.testing.assert_array_equal(np.sort(drawn.orders, axis=1), np.tile(np.arange(4), (100, 1)))
    again = shapley.draw(marginals, GROUP, np.random.default_rng(5))
    for one, other in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(one, other)
