"""Gradient boosting: the trees of xgboost's hist on the same bins; sums add; bins are as full as promised."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import gradient_boosting as boosting
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split, take

SETTINGS = {"trees": 15, "max_depth": 3, "learning_rate": 0.3, "l2": 1.0, "min_child_weight": 5.0, "max_bin": 32}


@pytest.fixture(scope="module")
def rows():
    data = load_breast_cancer()
    x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return Labelled(x, data.target.astype(float), np.zeros(569, np.int64))


def xgboost_on(bins, rows):
    """xgboost 3.2.0, tree_method hist, trained on bin numbers as its features."""
    xgboost = pytest.importorskip("xgboost")
    options = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": 256,
        "base_score": rows.y.mean(),
        "nthread": 1,
        "max_depth": SETTINGS["max_depth"],
        "eta": SETTINGS["learning_rate"],
        "lambda": SETTINGS["l2"],
        "min_child_weight": SETTINGS["min_child_weight"],
    }
    return xgboost.train(options, xgboost.DMatrix(bins, rows.y), SETTINGS["trees"]), xgboost.DMatrix(bins)


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_trees_are_those_of_xgboost(rows, sites):
    federation = sites(split(rows, [200, 1, 68, 300]))
    fitted = boosting.fit(federation, **SETTINGS)
    assert federation.rounds <= 1 + SETTINGS["trees"] * SETTINGS["max_depth"]
    bins = np.column_stack([np.searchsorted(cut, rows.x[:, j], side="right") for j, cut in enumerate(fitted.cuts)])
    reference, matrix = xgboost_on(bins.astype(np.float32), rows)
    margin = boosting.linear_predictor(fitted.trees, fitted.base, rows.x)
    # xgboost's gradients and leaves are float32
    assert np.abs(margin - reference.predict(matrix, output_margin=True)).max() < 5e-6
    table = reference.trees_to_dataframe()
    for tree, nodes in table.groupby("Tree"):
        theirs = sorted(nodes.Feature[nodes.Feature != "Leaf"].str.removeprefix("f").astype(int))
        ours = fitted.trees.feature[tree]
        assert sorted(ours[ours != boosting.LEAF].tolist()) == theirs
    # every patient shares leaves with the same others, tree by tree
    ends = reference.predict(matrix, pred_leaf=True).astype(int)
    own = boosting.leaves(fitted.trees, rows.x)
    for tree in range(SETTINGS["trees"]):
        pairs = set(zip(own[tree].tolist(), ends[:, tree].tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_children_hold_as_many_patients_as_their_weight_says(rows):
    fitted = boosting.fit(PooledSites([rows]), **SETTINGS)
    for ends in boosting.leaves(fitted.trees, rows.x):
        assert min(np.bincount(ends)[np.unique(ends)]) >= 4 * SETTINGS["min_child_weight"]


def test_cuts_are_public_edges_of_about_equally_full_bins(rows):
    held = PooledSites(split(rows, [300, 269])).sum(boosting.occupancy)
    cuts = boosting.choose_cuts(held.patients, 10)
    assert np.isin(cuts[np.isfinite(cuts)], boosting.GRID).all()
    for column, cut in zip(rows.x.T, cuts, strict=True):
        sizes = np.bincount(np.searchsorted(cut[np.isfinite(cut)], column, side="right"))
        assert sizes.sum() == 569
        assert sizes.max() < 2.5 * 569 / 10
    assert boosting.bins(569, 3, 32) == 28
    assert boosting.bins(60, 3, 32) == 3
    assert boosting.bins(10, 6, 32) == 2


def test_a_rare_finding_can_be_split():
    rng = np.random.default_rng(2)
    rare = (np.arange(1000) < 60).astype(float)
    y = (rng.random(1000) < np.where(rare == 1, 0.9, 0.2)).astype(float)
    x = ((rare - rare.mean()) / rare.std())[:, None]
    fitted = boosting.fit(PooledSites([Labelled(x, y, np.zeros(1000, np.int64))]), **SETTINGS)
    assert fitted.cuts.shape == (1, 1)
    assert fitted.trees.feature[0, 0] == 0


def test_sums_add_over_rows(rows):
    fitted = boosting.fit(PooledSites([rows]), **SETTINGS)
    check(boosting.occupancy, rows)
    for level in range(3):
        check(boosting.histograms, rows, **fitted.trees._asdict(), base=fitted.base, cuts=fitted.cuts, level=level)
    one = boosting.fit(PooledSites(odd_sites(rows, rows.y)), **SETTINGS)
    np.testing.assert_array_equal(one.trees.feature, fitted.trees.feature)
    np.testing.assert_allclose(one.trees.value, fitted.trees.value, atol=1e-12)


def test_one_class_is_refused(rows):
    with pytest.raises(NotIdentifiable, match="with and without"):
        boosting.fit(PooledSites([take(rows, rows.y == 0)]), **SETTINGS)
