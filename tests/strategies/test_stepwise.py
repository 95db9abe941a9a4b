"""Stepwise: the same way as the same search with statsmodels over the pooled patients, in few sums."""

from collections.abc import Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import logistic, stepwise
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, split

COLUMNS = {"texture": [0], "smooth": [1], "symmetry": [2], "fractal": [3], "grade": [4, 5], "noise": [6]}
"""Grade has three levels: its two columns come and go together."""


@pytest.fixture(scope="module")
def rows() -> Labelled:
    data = load_breast_cancer()
    rng = np.random.default_rng(11)
    grade = rng.integers(0, 3, 569)
    x = np.column_stack([data.data[:, [1, 4, 8, 9]], grade == 1, grade == 2, rng.standard_normal(569)]).astype(float)
    return Labelled((x - x.mean(0)) / x.std(0), 1.0 - data.target, np.zeros(569, dtype=np.int64))


def columns_of(names: frozenset[str]) -> list[int]:
    return sorted(column for name in names for column in COLUMNS[name])


def federated(kind: type[PooledSites], rows: Labelled) -> stepwise.Fits:
    def fit(sets: Sequence[frozenset[str]]) -> list[stepwise.Fitted]:
        found = []
        for names in sets:
            at = columns_of(names)
            shares = split(rows._replace(x=rows.x[:, at]), [249, 171, 100, 49])
            fitted = logistic.fit(kind(shares), len(at))
            found.append(stepwise.Fitted(fitted.log_likelihood, len(at) + 1))
        return found

    return fit


def pooled(rows: Labelled, names: frozenset[str]) -> tuple[float, int]:
    design = np.column_stack([np.ones(569), rows.x[:, columns_of(names)]])
    return sm.Logit(rows.y, design).fit(disp=0, method="newton", tol=1e-12).llf, design.shape[1]


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
def test_aic_goes_the_way_of_the_pooled_search(rows, direction, kind):
    ours = stepwise.by_aic(federated(kind, rows), list(COLUMNS), direction)
    current = set() if direction == "forward" else set(COLUMNS)

    def aic(names: set[str]) -> float:
        value, parameters = pooled(rows, frozenset(names))
        return 2 * parameters - 2 * value

    best, steps = aic(current), []
    while True:
        tried = []
        for name in COLUMNS:
            if name in current and direction != "forward":
                tried.append((aic(current - {name}), "remove", name))
            if name not in current and direction != "backward":
                tried.append((aic(current | {name}), "add", name))
        lowest = min(tried)
        if lowest[0] >= best - 1e-7:
            break
        best = lowest[0]
        current ^= {lowest[2]}
        steps.append({lowest[1]: lowest[2], "aic": pytest.approx(best, rel=1e-11)})
    assert list(ours.steps) == steps
    assert set(ours.variables) == current
    assert steps
    assert "texture" in current


@pytest.mark.parametrize(("enter", "remove"), [(0.05, 0.1), (0.5, 0.6), (1e-4, 1e-3)])
def test_p_goes_the_way_of_the_pooled_search(rows, enter, remove):
    ours = stepwise.by_p(federated(FixedPointSites, rows), list(COLUMNS), enter=enter, remove=remove)
    current, steps = set(), []

    def p(name: str) -> float:
        one, other = pooled(rows, frozenset(current)), pooled(rows, frozenset(current ^ {name}))
        return stats.chi2.sf(2 * abs(one[0] - other[0]), abs(one[1] - other[1]))

    while True:
        leaving = [(p(name), name) for name in current if p(name) > remove]
        entering = [(p(name), name) for name in COLUMNS if name not in current and p(name) < enter]
        if leaving:
            value, name = max(leaving)
            steps.append({"remove": name, "p": pytest.approx(value, rel=1e-7)})
        elif entering:
            value, name = min(entering)
            steps.append({"add": name, "p": pytest.approx(value, rel=1e-7)})
        else:
            break
        current ^= {name}
    assert list(ours.steps) == steps
    assert set(ours.variables) == current


def test_a_variable_that_comes_and_goes_again():
    """p of made-up likelihoods: `a` is best alone, and says nothing once `b` and `c` are there."""
    gains = {"": 0, "a": 10, "b": 6, "c": 6, "ab": 14, "ac": 13, "bc": 30, "abc": 30.1}

    def fit(sets: Sequence[frozenset[str]]) -> list[stepwise.Fitted]:
        return [stepwise.Fitted(gains["".join(sorted(names))], 1 + len(names)) for names in sets]

    found = stepwise.by_p(fit, ["a", "b", "c"], enter=0.05, remove=0.1)
    assert [next(iter(step.items())) for step in found.steps] == [
        ("add", "a"),
        ("add", "b"),
        ("add", "c"),
        ("remove", "a"),
    ]
    assert found.variables == ("b", "c")


def test_a_candidate_without_a_finite_fit_is_named_not_taken():
    def fit(sets: Sequence[frozenset[str]]) -> list[stepwise.Fitted | None]:
        return [None if "b" in names else stepwise.Fitted(-10.0 + 5 * len(names), 1 + len(names)) for names in sets]

    found = stepwise.by_aic(fit, ["a", "b"], "forward")
    assert (found.variables, found.unfit) == (("a",), ("b",))
    with pytest.raises(NotIdentifiable, match='direction = "forward"'):
        stepwise.by_aic(fit, ["a", "b"])
