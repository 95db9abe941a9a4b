"""Levels: equal to pooled counting, and to scikit-learn's most frequent level."""

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer

from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import levels
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split


@pytest.fixture(scope="module")
def rows() -> Matrix:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 4, (300, 5)).astype(np.float64)
    x[:, 2] = np.tile([2, 1], 150)  # a tie: the first level wins
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 2] = np.tile([2, 1], 150)
    x[:, 4] = np.nan
    return Matrix(x=x, group=rng.integers(0, 2, 300))


def test_equal_pooled_counts_by_group(rows):
    federation = FixedPointSites(odd_sites(rows, rows.group))
    ours = levels.fit_groups(federation, levels=4, groups=2)
    assert federation.rounds == 1
    for column in range(4):
        theirs = pd.crosstab(rows.group, rows.x[:, column]).reindex(columns=range(4), fill_value=0)
        np.testing.assert_array_equal(ours[:, column], theirs)
    assert not ours[:, 4].any()


def test_mode_as_in_scikit_learn(rows):
    ours = levels.mode(levels.fit(PooledSites(split(rows, [299, 0, 1])), levels=4))
    theirs = SimpleImputer(strategy="most_frequent").fit(rows.x[:, :4]).statistics_
    np.testing.assert_array_equal(ours[:4], theirs)
    assert ours[2] == 1


def test_a_value_that_is_no_code_is_refused_without_telling_it(rows):
    for wrong in (7.0, -1.0, 0.5):
        with pytest.raises(SumRefused, match="none of the 4 level codes") as refusal:
            levels.fit(PooledSites([rows._replace(x=np.full((300, 1), wrong))]), levels=4)
        assert str(wrong) not in str(refusal.value)


def test_local_half_adds_over_rows(rows):
    check(levels.level_counts, rows, levels=4, groups=1)
    check(levels.level_counts, rows, levels=5, groups=2)
