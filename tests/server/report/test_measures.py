"""Tables of measures: units of times, cohorts in order, and no table of what a model cannot have."""

import pytest

from cohortium.server.report.cutoff_note import cutoff_note
from cohortium.server.report.measures import cutoff_grid, measures_grid, parts_grid

WITHHELD = {"withheld": "too few patients"}


def written(grid):
    return {row.head: [cell.text for cell in row.cells] for row in grid.rows if row.cells}


@pytest.mark.parametrize(
    ("unit", "median", "mean"), [("days", "4", "3"), ("months", "3.6", "2.9"), ("years", "3.56", "2.91")]
)
def test_times_have_decimals_where_the_unit_is_long(unit, median, mean):
    survival = {"median": {"low": 3.556}, "rmst_at": {"4": {"low": {"estimate": 2.911, "ci": [2.911, 2.911]}}}}
    rows = written(measures_grid({"train": {"n": 9, "survival": survival}}, "", unit))
    assert rows[f"Median survival, low risk ({unit})"] == [median]
    assert rows[f"Restricted mean survival by risk group to 4 {unit}"] == [f"low {mean} ({mean}\u2013{mean})"]


def test_a_survival_model_has_no_table_at_a_cut_off_though_a_cohort_is_withheld():
    assert cutoff_grid({"train": {"n": 9, "survival": {}}, "leave_one_site_out": WITHHELD}, "") is None


def test_sites_of_a_cohort_stand_together():
    names = [f"{part}/site:{site}" for site in "ab" for part in ("train", "external")]
    grid, _ = parts_grid({name: {"n": 9} for name in names}, "")
    assert [row.head for row in grid.rows] == [
        "Training",
        "site a",
        "site b",
        "External validation",
        "site a",
        "site b",
    ]


def test_a_cut_off_says_on_which_scores_it_was_chosen():
    test = {"cutoff": 0.1, "candidates": 9, "chi2": 4.0, "p": 0.04, "p_corrected": 0.2}
    assert "on cross-validated scores" in cutoff_note(test, cross_validated=True)[0]
    assert "on scores of the training cohort" in cutoff_note(test, cross_validated=False)[0]
