"""Mann-Whitney tests of Table 1: they open bins of its variables, not the search that cuts cells down to one value."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.common.errors import SumRefused
from cohortium.common.study_data import TableOne
from cohortium.strategies import mann_whitney, moments, rank_tests

TRAIN = {"part": "train", "endpoint": "outcome", "patients": 180}


@pytest.fixture
def view(raw_design):
    return {"kind": "matrix", "rows": TRAIN, "group": "outcome", **raw_design}


@pytest.fixture
def tested(victims):
    """The study, its Table 1 with rank tests."""
    return victims.study.model_copy(update={"table_one": TableOne(rank_tests=True)})


def test_a_search_by_halves_ends_at_a_patient(victims, tested, view):
    """The third largest marker and its outcome, from counts of two cells at a time; `split` is refused to Table 1."""
    federation = victims.sums(view)
    values = np.concatenate([rows.x[:, 1] for rows in victims.rows(view)])
    outcomes = np.concatenate([rows.group for rows in victims.rows(view)])
    third = np.argsort(values)[-3]

    def above(cut):
        asked = {"columns": np.array([1]), "edges": np.array([[-np.inf, cut, np.inf]])}
        return federation.sum(rank_tests.split, **asked).counts[:, 0, 1], asked

    low, high = values.mean() - 1e3, values.mean() + 1e3
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle)[0].sum() >= 3 else (low, middle)
    assert low == pytest.approx(values[third], abs=1e-8)
    inside, asked = above(low)
    assert (inside - above(high)[0]).tolist() == [1 - outcomes[third], outcomes[third]]
    for study in (victims.study, tested):
        with pytest.raises(SumRefused, match="names no selection by ranks"):
            disclosure.check(study, rank_tests.split.name, view, asked, victims.rows(view)[0])


def test_what_rank_tests_of_table_one_open(victims, tested, view):
    """Without the key no bins at all; with it as many as one for five patients by outcome, 256 without it."""
    rows = victims.rows(view)[0]
    allowed = {
        rank_tests.occupancy.name: {"grid": np.linspace(-4, 4, 257)},
        rank_tests.histogram.name: {"edges": np.zeros((2, 180 // 5 + 3))},
    }
    finer = {
        rank_tests.occupancy.name: {"grid": np.linspace(-4, 4, 258)},
        rank_tests.histogram.name: {"edges": np.zeros((2, 180 // 5 + 4))},
    }
    for name, asked in allowed.items():
        disclosure.check(tested, name, view, asked, rows)
        with pytest.raises(SumRefused, match="names no selection by ranks"):
            disclosure.check(victims.study, name, view, asked, rows)
        with pytest.raises(SumRefused, match="at most"):
            disclosure.check(tested, name, view, finer[name], rows)


def test_the_test_itself_asks_for_bins_of_several_patients(victims, view):
    """The two sums of an honest coordinator: bins hold five patients on average, so that few lie alone in one."""
    federation, asked = victims.sums(view), []

    def watched(what, **parameters):
        asked.append((what.name, federation.sum(what, **parameters)))
        return asked[-1][1]

    known = moments.fit(federation, 2)
    mann_whitney.compare(cast(Any, SimpleNamespace(sum=watched)), known.mean, known.sd)
    names = [name for name, _ in asked]
    assert names == [rank_tests.occupancy.name, rank_tests.histogram.name]
    patients = asked[1][1].counts.sum(axis=0)  # (columns, bins)
    assert patients.shape[1] == patients.sum(axis=1).max() // 5
    assert (patients == 1).sum(axis=1).max() <= patients.shape[1] // 5
