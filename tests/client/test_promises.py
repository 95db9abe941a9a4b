"""Promises to a hospital that no other test shows: its allow list, the smallest cell of its Table 1, its meter."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from cohortium.client.figures import FLOW, charge, numbers_of
from cohortium.client.guard import Guard
from cohortium.client.meter import Meter
from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.common.privacy_accountant import Accountant
from cohortium.common.study import load_study
from cohortium.simulation.simulate import SHIPPED
from cohortium.strategies.describe import FIRST_LEVEL, describe_part
from cohortium.strategies.levels import LevelCounts
from cohortium.strategies.rows import Matrix

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


# --- missing values are cells ---------------------------------------------------------------------------------

GROUPED = VIEW | {"group": "outcome"}
TABLES = ("levels.level_counts", "moments.power_sums", "quantiles.top_bytes")


def matrix(missing, known=40):
    """60 patients without and `missing` + `known` with the outcome, of which `missing` have no value."""
    x = np.concatenate([np.zeros(60), np.full(missing, np.nan), np.ones(known)])[:, None]
    return Matrix(x=x, group=(np.arange(len(x)) >= 60).astype(np.int64))


def refused(statistic, view, rows):
    try:
        guard("*").question(statistic, view, {}, rows)
    except SumRefused as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("statistic", TABLES)
@pytest.mark.parametrize(("missing", "known", "held_back"), [(0, 4, 0), (1, 40, 1), (4, 40, 1), (5, 40, 0), (9, 3, 1)])
def test_a_few_missing_values_of_a_group_are_a_small_cell(statistic, missing, known, held_back):
    told = refused(statistic, GROUPED, matrix(missing, known))
    assert bool(told) == bool(held_back)
    assert "fewer than minimum_count = 5 patients have a missing value or a known one" in told or not told


def test_what_leaves_beside_a_few_missing_values():
    """Levels with the missing values in the first one, and a continuous variable of all groups together."""
    few = matrix(2)
    assert refused("levels.level_counts", GROUPED | FIRST_LEVEL, few) == ""
    assert "counted as the first level and no other" in refused(
        "levels.level_counts", GROUPED | FIRST_LEVEL | {"fill": [1.0]}, few
    )
    assert refused("levels.level_counts", VIEW, few) != ""
    assert refused("moments.power_sums", VIEW, few) == ""  # what every model is standardised by


class Sites(PooledSites):
    """Sites whose guards look at every question, as at their doors."""

    def __init__(self, rows, view):
        super().__init__(rows)
        self.view = view

    def sum(self, what, *, bound=1.0, **parameters):
        for rows in self.sites:
            guard("*").question(what.name, self.view, parameters, rows)
            guard("*").cells(what.name, what.local(rows, **parameters))
        return super().sum(what, bound=bound, **parameters)


@pytest.mark.parametrize("few", [1, 2, 4])
def test_table_1_stays_useful_where_a_few_values_are_missing(few):
    """No figure of Table 1, nor a difference of two, is how many values of a group are missing at that site."""
    study = load_study(SHIPPED / "gastric")
    levels = {variable.name: len(variable.levels) for variable in study.variable}
    rng = np.random.default_rng(few)

    def ask(view):
        (block,) = view["blocks"]
        sites = []
        for site in range(3):
            group = np.repeat([0, 1], 200)
            x = [
                rng.integers(0, levels[term], 400) if levels[term] else rng.normal(60, 9, 400)
                for term in block["terms"]
            ]
            x = np.column_stack(x).astype(np.float64)
            if site == 0:
                x[200 : 200 + few] = np.nan
            if not view.get("group"):
                group[:] = 0
            sites.append(Matrix(x=np.nan_to_num(x) if "fill" in view else x, group=group))
        return Sites(sites, view)

    for entry in describe_part(ask, study, "train"):
        assert "withheld" not in entry
        assert set(entry["p"]) == {"withheld"}
        for name, group in entry["groups"].items():
            assert set(group["missing"]) == {"withheld"}
            if levels[entry["variable"]]:
                assert group["n"] == sum(group["levels"].values()) == 600
                assert next(iter(group["levels"])).endswith(" or missing")
            else:
                assert name == "all"
                assert set(group["n"]) == {"withheld"}
                assert group["mean"] == float(f"{group['mean']:.3g}")


# --- what finished figures cost -------------------------------------------------------------------------------


def test_numbers_of_finished_figures_are_charged_once(tmp_path):
    figures = {"n": 80, "auc": {"estimate": 0.8, "ci": [0.7, 0.9]}, "brier": {"withheld": "why"}, "good": True}
    assert numbers_of(figures) == 4
    site = SimpleNamespace(meter=Meter(tmp_path, "s", 9))
    charge(site, "figures.cohort", {"part": "external"}, figures)
    charge(site, "figures.cohort", {"part": "external"}, figures)
    assert site.meter.released() == 4
    charge(site, FLOW, {"given": 90}, {"given": 90})
    with pytest.raises(SumRefused, match=r"5 of released_numbers = 9 numbers .* asks for 5 more"):
        charge(site, "figures.cohort", {"part": "internal"}, [figures, 1])
    assert site.meter.released() == 5


def test_a_site_s_limit_counts_all_studies_on_its_patients(tmp_path):
    account, terms = Accountant(tmp_path, limit=0.25), {"statistic": "levels.level_counts", "rho": 0.1, "budget": 0.2}

    def answer(query, study, part="train"):
        account.answer(query, study=study, part=part, **terms, make=lambda: [np.zeros(1, np.int64)])

    answer(b"1", "a")
    answer(b"2", "b")
    answer(b"3", "b", part="external")  # other patients of that study
    with pytest.raises(SumRefused, match="gives to all studies together"):
        answer(b"4", "a")
    answer(b"1", "a")
    assert account.spent() == pytest.approx(0.2)
