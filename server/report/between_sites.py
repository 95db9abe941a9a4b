"""Between sites: how a model does at sites it has not seen, on average and at the next one: table and forest plot."""

from collections.abc import Mapping
from typing import Any

from cohortium.server.report.canvas import Picture
from cohortium.server.report.forest import Line, forest
from cohortium.server.report.grid import Grid
from cohortium.server.report.measures import look_up
from cohortium.server.report.text import absent, estimate, interval, limits, number, p_value, with_interval

Record = Mapping[str, Any]
COHORT = "leave_one_site_out"
BINARY = {"auc": "AUC", "calibration.intercept": "Calibration intercept", "calibration.slope": "Calibration slope"}
CONTINUOUS = {
    "r_squared": "Explained variance (R²)",
    "rmse": "Root mean squared error",
    "mean_difference": "Mean error",
    "calibration.slope": "Calibration slope",
}
SURVIVAL = {"c_index": "C-index", "calibration_slope": "Calibration slope"}


def between_sites(cohorts: Record, label: str) -> tuple[Grid, Picture | None] | None:
    """Make the table of heterogeneity and the forest of discrimination; None where no site was left out.

    The forest has the sites' own figures where the study shows them (``by_site``), then their mean with its interval,
    and where the next site is expected.
    """
    record = cohorts.get(COHORT)
    if record is None or absent(record):
        return None
    binary, survival = record.get("heterogeneity"), look_up(record, "survival.heterogeneity")
    found, titles, figure = (binary, BINARY, "auc") if binary else (survival, SURVIVAL, "c_index")
    if binary and "rmse" in binary:
        titles, figure = CONTINUOUS, "r_squared"
    if not isinstance(found, Mapping) or absent(found):
        return None
    scale = "R² and error on a logarithmic" if titles is CONTINUOUS else "AUC and C-index pooled on the logit"
    method = ", variance between sites by REML" if _by_reml(found) else ""
    grid = Grid(
        f"Model {label}: performance at training sites that the model had not seen (random-effects means{method}; "
        f"{scale} scale).",
        ["", "Sites", "Mean (95% CI)", "95% CI, Hartung–Knapp", "95% prediction interval", "τ²", "I²", "Q, p"],
    )
    for name, title in titles.items():
        of = found.get(name)
        if absent(of) or of is None:
            grid.row(title, [grid.cell(of, str), *["–"] * 6])
            continue
        cells = [
            f"{of['sites']:g}",
            with_interval(of),
            limits(*of["ci_hartung_knapp"]),
            limits(*of["prediction_interval"]),
            number(of["tau2"], 3),
            f"{100 * of['i2']:.0f}%",
            f"{number(of['q'], 2)}, p {p_value(of['p'])}",
        ]
        grid.row(title, [grid.cell(cell, str) for cell in cells])
    return grid, _forest(cohorts, found.get(figure), figure, titles[figure], label)


def _by_reml(found: Record) -> bool:
    return any(isinstance(of, Mapping) and of.get("method") == "REML" for of in found.values())


def _forest(cohorts: Record, pooled: Any, figure: str, title: str, label: str) -> Picture | None:
    if pooled is None or absent(pooled):
        return None
    path = f"survival.{figure}" if figure in SURVIVAL else figure
    lines = []
    for name, record in cohorts.items():
        own = look_up(record, path) if name.startswith(f"{COHORT}/site:") else None
        value = None if own is None or absent(own) else estimate(own)
        if value is not None:
            lines.append(Line(name.partition("/site:")[2], value, interval(own)))
    mean = float(pooled["estimate"])
    low, high = pooled["prediction_interval"]
    lines += [Line("Mean of the sites", mean, interval(pooled)), Line("Expected at the next site", mean, (low, high))]
    return forest(
        lines,
        x_label=title,
        caption=f"Model {label}: {title} at sites that the model had not seen, their mean, and the 95% prediction "
        "interval for another site.",
        no_effect=mean,
    )
