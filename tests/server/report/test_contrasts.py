"""Contrasts: the tables of comparisons, reclassification, interactions and updates say what results.json says."""

from cohortium.server.report import contrasts, population

PAIR = {"cohort": "internal", "a": "full_model", "b": "age", "test": "delong", "difference": 0.08, "ci": [0.03, 0.13]}
NONE = {"undefined": "no variance"}


def texts(grid):
    return {row.head: [cell.text for cell in row.cells] for row in grid.rows}


def test_comparisons_show_adjusted_p_only_where_there_are_several():
    one = PAIR | {"z": 2.9, "p": 0.004, "p_holm": 0.004, "p_bh": 0.004}
    assert texts(contrasts.comparisons_grid([one]))["full model against age"] == [
        "0.080 (0.030–0.130)",
        "2.90",
        "0.004",
    ]
    two = [one | {"p_holm": 0.008}, PAIR | {"b": "sex", "ci": NONE, "z": NONE, "p": NONE}]
    grid = contrasts.comparisons_grid(two)
    assert grid.columns[-2:] == ["p, Holm", "p, Benjamini–Hochberg"]
    assert texts(grid)["full model against age"][-2:] == ["0.008", "0.004"]
    assert list(grid.notes)
    assert contrasts.comparisons_grid([]) is None


def test_improvements():
    assert contrasts.improvements_grid([PAIR]) is None
    found = {"estimate": 0.2, "ci": [0.1, 0.3], "z": 4.0, "p": 1e-5, "events": 0.1, "nonevents": 0.1, "se": 0.05}
    row = texts(contrasts.improvements_grid([PAIR | {"nri": NONE, "nri_continuous": found, "idi": found}]))
    assert row["full model against age"][1:] == ["0.200 (0.100–0.300), p <0.001"] * 2


def test_interactions():
    entry = {"cohort": "internal", "variable": "sex", "model": "full_model", "figure": "auc", "test": "wald"}
    known = {"levels": ["0", "1"], "chi2": 4.0, "df": 1, "p": 0.046, "p_holm": 0.091, "p_bh": 0.0455}
    absent = {"levels": ["1"], "chi2": NONE, "df": NONE, "p": NONE}
    rows = texts(
        contrasts.interactions_grid(
            [
                entry | known | {"difference": -0.05, "ci": [-0.1, -0.01]},
                entry | {"figure": "calibration.slope"} | absent,
            ]
        )
    )
    assert rows["full model: AUC by sex"] == ["0, 1", "−0.050 (−0.100 to −0.010)", "4.00", "1", "0.046", "0.091"]
    assert rows["full model: calibration slope by sex"][0] == "1"
    assert contrasts.interactions_grid([]) is None


def test_updating():
    models = {"none": {"intercept": 0.0, "slope": 1.0}, "intercept": {"intercept": 0.34, "slope": 1.0}}
    tests = [{"p": 0.0001}, {"p": 0.3}, {"p": 0.001}]
    found = {"updating": {"chosen": "intercept", "models": models, "tests": tests}}
    cohorts = {
        "internal": found,
        "external": {"updating": NONE},
        "external/site:north": found,
        "train/subgroup:s=1": found,
    }
    rows = texts(contrasts.updating_grid(cohorts, "Updating"))
    assert rows["Internal validation"] == ["new intercept", "0.340", "1.000", "<0.001", "0.30"]
    assert list(rows) == ["Internal validation", "External validation", "External validation, site north"]
    assert contrasts.updating_grid({"internal": {}}, "") is None


def test_table_one_shows_standardised_differences_where_there_are_any():
    group = {"n": 10, "missing": 0, "mean": 3.0, "sd": 1.0}
    entry = {"variable": "age", "kind": "continuous", "cohort": "train", "groups": {"0": group, "1": group}, "p": 0.4}
    grid = population.table_one(
        [entry | {"standardised_difference": -0.21}, entry | {"variable": "weight"}], "Table 1."
    )
    assert grid.columns[-2:] == ["p", "SMD"]
    assert [row.cells[-1].text for row in grid.rows] == ["−0.21", ""]
    assert population.table_one([entry], "Table 1.").columns[-1] == "p"
