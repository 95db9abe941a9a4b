"""Explanations: the table ranks variables; the nomogram draws every axis and nothing where there is none."""

from cohortium.server.report import explanations

NONE = {"undefined": "the score is not a linear function of the model's columns"}
SHAP = [{"variable": "age", "mean_absolute": 0.2}, {"variable": "chest_pain", "mean_absolute": 0.9}]
FALL = {"auc": 0.8, "variables": [{"variable": "age", "fall": 0.01}, {"variable": "chest_pain", "fall": 0.1}]}
NOMOGRAM = {
    "axes": [
        {"variable": "age", "points": [[33.57, 0.0], [74.0, 52.3]]},
        {"variable": "chest_pain", "points": [["1", 15.0], ["2", 0.0], ["3", 17.0], ["4", 100.0]]},
    ],
    "points_per_unit": 32.0,
    "lowest": -4.8,
    "highest_total": 152.3,
    "risk": [[8.0, 0.01], [61.0, 0.05], [62.0, 0.06], [128.0, 0.3]],
    "percentiles": [0.01, 0.99],
}


def test_the_most_important_variable_comes_first():
    grid = explanations.importance_grid({"shap": SHAP, "permutation": FALL}, "Importance")
    assert [(row.head, [cell.text for cell in row.cells]) for row in grid.rows] == [
        ("chest pain", ["0.900", "0.100"]),
        ("age", ["0.200", "0.010"]),
    ]
    assert explanations.importance_grid({"nomogram": NOMOGRAM}, "") is None


def test_a_model_without_an_explanation_says_why():
    grid = explanations.importance_grid({"shap": NONE, "permutation": NONE}, "Importance")
    assert NONE["undefined"] in " ".join(grid.notes)
    mixed = explanations.importance_grid({"shap": SHAP, "permutation": NONE}, "Importance")
    assert mixed.rows[0].cells[0].text == "0.900"
    assert mixed.notes
    assert explanations.nomogram({"nomogram": NONE}, caption="") is None
    assert explanations.nomogram({}, caption="") is None


def test_the_nomogram_names_its_axes():
    drawn = explanations.nomogram({"nomogram": NOMOGRAM}, caption="Nomogram")
    assert drawn.source.startswith("data:image/svg")
    assert "age 52; chest pain 100" in drawn.alt
    assert explanations.nomogram({"nomogram": NOMOGRAM | {"points_per_unit": 0.0}}, caption="") is None
    ticks = [(61.0, "5%"), (62.0, "6%"), (8.0, "1%"), (30.0, "2%")]
    assert explanations._thinned(ticks) == [(8.0, "1%"), (30.0, "2%"), (62.0, "6%")]
    assert explanations._joined([(17.0, "3"), (15.0, "1"), (0.0, "2")]) == [(0.0, "2"), (15.0, "1, 3")]
