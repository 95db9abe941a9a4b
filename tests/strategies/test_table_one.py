"""Table 1: equal to pandas and scipy on pooled rows; what does not exist says so."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer

from cohortium.common.federation import PooledSites
from cohortium.strategies import table_one
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, odd_sites

GROUPS = ["0", "1"]


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Four features, one of them without a value in class 1, 8 % missing."""
    data = load_breast_cancer()
    x = data.data[:, :5].copy()
    x[np.random.default_rng(5).random(x.shape) < 0.08] = np.nan
    x[data.target == 0, 3] = np.nan
    x[:, 4] = 7.0
    return Matrix(x=x, group=1 - data.target)


def continuous_entries(described: table_one.Continuous) -> list[dict]:
    return [
        table_one.continuous_entry(described, j, variable=f"v{j}", unit="mm", cohort="train", groups=GROUPS)
        for j in range(5)
    ]


def test_continuous_variables_equal_pandas_and_scipy(rows):
    federation = FixedPointSites(odd_sites(rows, rows.group))
    entries = continuous_entries(table_one.continuous(federation, 5))
    for j in range(3):
        by_group = pd.Series(rows.x[:, j]).groupby(rows.group)
        expected = by_group.describe()
        for g, name in enumerate(GROUPS):
            figures, theirs = entries[j]["groups"][name], expected.loc[g]
            assert figures["n"] == theirs["count"]
            assert figures["missing"] == (rows.group == g).sum() - theirs["count"]
            assert [figures["mean"], figures["sd"]] == pytest.approx([theirs["mean"], theirs["std"]], rel=1e-12)
            quartiles = [figures["q1"], figures["median"], figures["q3"]]
            assert quartiles == pytest.approx(theirs[["25%", "50%", "75%"]].tolist(), rel=2**-20)  # 32 bits
        overall, column = entries[j]["overall"], pd.Series(rows.x[:, j])
        assert [overall["n"], overall["missing"]] == [column.count(), column.isna().sum()]
        assert [overall["mean"], overall["sd"]] == pytest.approx([column.mean(), column.std()], rel=1e-12)
        known = [values.dropna() for _, values in by_group]
        assert entries[j]["p"] == pytest.approx(stats.ttest_ind(*known).pvalue, rel=1e-10)
        assert entries[j]["test"] == "t"
    assert federation.rounds == 6


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_mann_whitney_lies_within_its_bounds(rows, sites):
    federation = sites(odd_sites(rows, rows.group))
    entries = continuous_entries(table_one.continuous(federation, 5, ranks=True))
    for j in range(3):
        known = [rows.x[(rows.group == g) & ~np.isnan(rows.x[:, j]), j] for g in (0, 1)]
        theirs = stats.mannwhitneyu(*known, method="asymptotic").pvalue
        least, most = entries[j]["p_mann_whitney_bounds"]
        assert least <= theirs <= most
        assert least <= entries[j]["p_mann_whitney"] <= most
        # 105 bins: log p moves by a few per cent where p is that of a difference of many standard errors
        assert np.log(entries[j]["p_mann_whitney"]) == pytest.approx(np.log(theirs), rel=0.01)
    for j in (3, 4):
        assert "undefined" in entries[j]["p_mann_whitney"]
    assert federation.rounds == 8


def test_mann_whitney_of_bins_equals_scipy(rows):
    # a few values far apart: every bin that holds patients holds one value
    whole = np.round(stats.zscore(load_breast_cancer().data[:, :5]) / 2) * 2
    entries = continuous_entries(table_one.continuous(PooledSites([rows._replace(x=whole)]), 5, ranks=True))
    for j in range(5):
        theirs = stats.mannwhitneyu(whole[rows.group == 0, j], whole[rows.group == 1, j], method="asymptotic")
        assert entries[j]["p_mann_whitney"] == pytest.approx(theirs.pvalue, rel=1e-9)


def test_mann_whitney_of_values_with_few_digits_is_exact(rows):
    # half of the values are 0, the others whole years: bins close about single values
    random = np.random.default_rng(8)
    years = random.integers(40, 60, len(rows.x)).astype(float)
    halves = np.where(random.random(len(years)) < 0.5, 0.0, random.integers(1, 8, len(years)) / 2)
    x = np.column_stack([years, -years, halves, halves + rows.group, years])
    entries = continuous_entries(table_one.continuous(PooledSites([rows._replace(x=x)]), 5, ranks=True))
    for j in range(5):
        theirs = stats.mannwhitneyu(x[rows.group == 0, j], x[rows.group == 1, j], method="asymptotic").pvalue
        assert entries[j]["p_mann_whitney"] == pytest.approx(theirs, rel=1e-9)
        assert entries[j]["p_mann_whitney_bounds"] == pytest.approx([theirs, theirs], rel=1e-9)


def test_what_does_not_exist_says_so(rows):
    entries = continuous_entries(table_one.continuous(PooledSites([rows]), 5))
    absent = entries[3]["groups"]["1"]
    assert (absent["n"], absent["missing"]) == (0, 212)
    assert all("undefined" in absent[key] for key in ("mean", "sd", "median", "q1", "q3"))
    assert "undefined" in entries[3]["p"]
    assert "undefined" in entries[4]["p"]  # constant
    assert "NaN" not in json.dumps(entries)


def test_three_groups_are_compared_by_analysis_of_variance():
    rng = np.random.default_rng(8)
    groups = [rng.normal(0.2 * g, 1, 20 + g) for g in range(3)]
    n, mean, sd = np.array([[len(v), v.mean(), v.std(ddof=1)] for v in groups]).T
    ours = table_one.analysis_of_variance(n.astype(np.int64), mean, sd)
    assert ours == pytest.approx(stats.f_oneway(*groups).pvalue, rel=1e-10)


def test_levels_equal_pandas_and_scipy():
    rng = np.random.default_rng(2)
    group = rng.integers(0, 2, 400)
    x = np.column_stack([rng.integers(0, 3, 400), (rng.random(400) < 0.3 + 0.2 * group)]).astype(np.float64)
    x[rng.random(x.shape) < 0.05] = np.nan
    rows = Matrix(x=x, group=group)
    described = table_one.categorical(FixedPointSites(odd_sites(rows, group)), most_levels=3)
    for column, names in enumerate((["I", "II", "III"], ["no", "yes"])):
        entry = table_one.categorical_entry(
            described, column, variable="stage", kind="categorical", level_names=names, cohort="train", groups=GROUPS
        )
        theirs = pd.crosstab(group, x[:, column])
        for g, name in enumerate(GROUPS):
            assert list(entry["groups"][name]["levels"].values()) == theirs.loc[g].tolist()
            assert entry["groups"][name]["n"] + entry["groups"][name]["missing"] == (group == g).sum()
        assert entry["p"] == pytest.approx(stats.chi2_contingency(theirs, correction=False).pvalue, rel=1e-12)
        assert entry["test"] == "chi2"
        json.dumps(entry)


def test_fishers_tea():
    """Fisher, The Design of Experiments, 1935: 3 of 4 cups right on both sides; two-sided p = 0.4857."""
    assert table_one.independence(np.array([[3, 1], [1, 3]])) == ("fisher", pytest.approx(0.4857, abs=5e-5))


def test_tables_without_a_test():
    for table in ([[5, 0], [7, 0]], [[5, 9], [0, 0]], [[0, 0], [0, 0]]):
        assert np.isnan(table_one.independence(np.array(table))[1])
