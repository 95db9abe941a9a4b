"""Promises to a hospital that no other test shows: its allow list, and the smallest cell of its Table 1."""

from typing import NamedTuple

import numpy as np
import pytest

from cohortium.client.guard import Guard
from cohortium.common.errors import SumRefused
from cohortium.common.study import load_study
from cohortium.simulation.simulate import SHIPPED
from cohortium.strategies.levels import LevelCounts

VIEW = {"kind": "matrix", "rows": {"part": "train"}, "blocks": []}


class Sums(NamedTuple):
    """An answer that is no table."""

    counts: np.ndarray


def guard(*allow):
    return Guard(load_study(SHIPPED / "gastric"), "valley", allow)


@pytest.mark.parametrize(
    ("statistic", "allow"), [("moments.power_sums", "logistic.*"), ("logistic.terms", "moments.*")]
)
def test_a_statistic_that_the_site_does_not_allow(statistic, allow):
    with pytest.raises(SumRefused, match="not on the allow list of site valley"):
        guard(allow).admit(statistic, VIEW, None)
    guard(allow, statistic).admit(statistic, VIEW, None)


@pytest.mark.parametrize(("cell", "held_back"), [(0, False), (1, True), (4, True), (5, False)])
def test_a_small_cell_holds_table_1_back(cell, held_back):
    table = LevelCounts(patients=np.array([40, 30]), counts=np.array([[[20, 20]], [[30 - cell, cell]]]))
    if held_back:
        with pytest.raises(SumRefused, match="a cell with fewer than minimum_count = 5 patients"):
            guard("*").cells("levels.level_counts", table)
    else:
        guard("*").cells("levels.level_counts", table)
    guard("*").cells("logistic.terms", Sums(np.array([cell])))  # of other sums the study says how fine they are
