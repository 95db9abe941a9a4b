"""Coefficients: a model's terms as odds or hazard ratios, in a table and in a forest plot."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cohortium.server.report.canvas import Picture
from cohortium.server.report.forest import Line, forest
from cohortium.server.report.grid import Grid
from cohortium.server.report.text import absent, interval, limits, number, p_value, with_interval, words

Record = Mapping[str, Any]
MOST_NAMED = 12


def ratio_name(kind: str) -> str:
    """Name what the exponential of a model's coefficient is."""
    return "Hazard ratio" if kind in ("cox", "lasso_cox") else "Odds ratio"


def term_label(term: str) -> str:
    """Write a term for a reader.

    >>> term_label("chest_pain=2"), term_label("features.radiomics/ct/tumour/original_firstorder_Mean")
    ('chest pain = 2', 'ct · tumour · original firstorder Mean')
    """
    if term.startswith("features."):
        return words(" · ".join(term.split("/")[1:]))
    if term.startswith("model."):
        return f"score of {words(term.removeprefix('model.'))}"
    return words(term).replace("=", " = ")


def kept_terms(terms: Sequence[str]) -> str:
    """List the terms that a model kept; a feature set that left many is counted instead.

    >>> kept_terms(["age", *(f"features.deep/ct/tumour/{i:04d}" for i in range(128))])
    'age, 128 features of deep'
    """
    sets = Counter(_feature_set(term) for term in terms)
    parts = dict.fromkeys(
        f"{sets[_feature_set(term)]} features of {words(_feature_set(term))}"
        if _feature_set(term) and sets[_feature_set(term)] > MOST_NAMED
        else term_label(term)
        for term in terms
    )
    return ", ".join(parts)


def _feature_set(term: str) -> str:
    return term.removeprefix("features.").partition("/")[0] if term.startswith("features.") else ""


def coefficients_grid(coefficients: Sequence[Record], kind: str, caption: str) -> Grid | None:
    """Make the table of coefficients, or None where the model has none."""
    if not coefficients:
        return None
    profiled = "profile_ci" in coefficients[0]
    coefficients = [_profiled(row) for row in coefficients]
    # Penalised estimates have none of these anywhere: a note says so, not three columns of it.
    keys = ("exact", "se", "ratio", "p", "wald_ci", "wald_p")
    shown = [key for key in keys if any(isinstance(row.get(key), int | float | list) for row in coefficients)]
    by = ", profile" if profiled else ""
    titles = {"exact": "Exact fit", "se": "SE", "ratio": f"{ratio_name(kind)} (95% CI{by})", "p": "p"}
    titles |= {"wald_ci": "95% CI, Wald", "wald_p": "p, Wald"}
    write = {"exact": number, "se": number, "ratio": _written_ratio, "p": p_value, "wald_p": p_value}
    write |= {"wald_ci": lambda ci: limits(ci[0], ci[1], 2)}
    first = "Coefficient (95% CI)" if kind == "linear" else "Coefficient"
    grid = Grid(caption, ["Term", first, *(titles[key] for key in shown)])
    for row in coefficients:
        # a coefficient without a ratio is the effect itself: it has the interval
        effect = row if kind == "linear" or absent(row) else row.get("estimate")
        estimate = grid.cell(effect, with_interval if kind == "linear" else number)
        others = [grid.cell(_ratio(row) if key == "ratio" else row.get(key), write[key]) for key in shown]
        grid.row(term_label(row["term"]), [estimate, *others])
    missing = absent(coefficients[0].get("se"))
    if missing and "se" not in shown:
        grid.noted("", f"standard error and p {missing.kind}: {missing.reason}")
    return grid


def _profiled(row: Record) -> Record:
    """Profile interval and test where there are any, Wald's beside them; else the row as it is."""
    if "profile_ci" not in row:
        return row
    wald = {"wald_ci": row.get("ratio_ci"), "wald_p": row.get("p")}
    return {**row, "ratio_ci": row.get("profile_ratio_ci"), "p": row["profile_p"], **wald}


def _ratio(row: Record) -> Any:
    if row.get("ratio") is None or row["term"] == "(Intercept)":
        return None
    return row["ratio"] if absent(row["ratio"]) else {"ratio": row["ratio"], "ratio_ci": row.get("ratio_ci")}


def _written_ratio(row: Record) -> str:
    ci = interval(row, "ratio_ci")
    return number(row["ratio"], 2) + (f" ({limits(*ci, 2)})" if ci else "")


def coefficients_forest(coefficients: Sequence[Record], kind: str, caption: str) -> Picture | None:
    """Draw the ratios; the intercept, which is no effect, is left out, and so are models of one term."""
    lines = [
        Line(term_label(row["term"]), float(row["ratio"]), interval(row, "ratio_ci"))
        for row in map(_profiled, coefficients)
        if isinstance(row.get("ratio"), int | float) and row["term"] != "(Intercept)"
    ]
    if len(lines) < 2:
        return None
    return forest(lines, x_label=f"{ratio_name(kind)} (log scale)", caption=caption, no_effect=1.0, scale="log")
