"""Resampling: the tables of repeated cross-validation and of figures corrected for optimism."""

from collections.abc import Mapping, Sequence
from typing import Any

from cohortium.server.report.grid import Cell, Grid
from cohortium.server.report.text import absent, number

LABELS = {
    "auc": "AUC",
    "brier": "Brier score",
    "calibration.intercept": "Calibration-in-the-large",
    "calibration.slope": "Calibration slope",
    "c_index": "C-index",
    "r_squared": "Explained variance (R²)",
    "rmse": "Root mean squared error",
}
REPEATED = {"mean": "Mean", "sd": "SD", "min": "Smallest", "max": "Largest"}
OPTIMISM = {
    "apparent": "Apparent",
    "training": "Without a fold, patients fitted on",
    "tested": "Cross-validated",
    "optimism": "Optimism",
    "corrected": "Corrected",
}


def resampling_grids(model: Mapping[str, Any], label: str) -> list[Grid]:
    """Make the tables of what results.json has of a model under ``repeated`` and ``optimism``."""
    grids = []
    if repeated := model.get("repeated"):
        draws = f"over {repeated['repeats']} draws of the folds"
        caption = (
            f"Model {label}: cross-validated figures {draws}, which share the patients: the SD is no standard error."
        )
        grids.append(_grid(caption, repeated, REPEATED))
    if optimism := model.get("optimism"):
        caption = f"Model {label}: apparent figures corrected for optimism, by cross-validation."
        grids.append(_grid(caption, optimism, OPTIMISM))
    return grids


def _grid(caption: str, figures: Mapping[str, Any], columns: Mapping[str, str]) -> Grid:
    grid = Grid(caption, ["", *columns.values()])
    for name, label in LABELS.items():
        if name in figures:
            grid.row(label, _cells(grid, figures[name], list(columns)))
    return grid


def _cells(grid: Grid, figure: Mapping[str, Any], keys: Sequence[str]) -> list[str | Cell]:
    if absent(figure):
        return [grid.cell(figure, str), *["–"] * (len(keys) - 1)]
    return [number(figure[key]) for key in keys]
