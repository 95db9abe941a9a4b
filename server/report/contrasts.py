"""Contrasts: tables of one thing against another: models on the same patients, subgroups, a score and its updates."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from cohortium.server.report.grid import Cell, Grid
from cohortium.server.report.measures import look_up, whole_cohorts
from cohortium.server.report.text import absent, cohort_label, number, p_value, with_interval, words

Record = Mapping[str, Any]
IMPROVEMENTS = {
    "nri": "Net reclassification at the cut-offs",
    "nri_continuous": "Net reclassification, continuous",
    "idi": "Integrated discrimination improvement",
}
UPDATES = {"none": "score as it is", "intercept": "new intercept", "intercept_and_slope": "new intercept and slope"}
UPDATES |= {"refit": "new coefficients"}
TESTS = {
    "delong": ("AUC", "AUC: DeLong"),
    "concordance": ("C-index", "C-index: infinitesimal jackknife"),
    "absolute_error": ("mean absolute error", "mean absolute error: paired differences"),
}
FIGURES = {"auc": "AUC", "calibration.slope": "calibration slope"}


def comparisons_grid(entries: Sequence[Record]) -> Grid | None:
    """The test of each pair (DeLong's; of survival models, of their C), with p adjusted for the pairs of a cohort."""
    if not entries:
        return None
    several = any("p_holm" in entry and entry["p_holm"] != entry["p"] for entry in entries)
    tests = [test for test in TESTS if any(entry.get("test", "delong") == test for entry in entries)]
    measures, methods = ([TESTS[test][i] for test in tests] for i in (0, 1))
    if tests == ["delong"]:
        methods = ["DeLong"]
    grid = Grid(
        f"Paired comparison of models on the same patients ({'; '.join(methods)}).",
        ["Models", f"Difference of {' or '.join(measures)} (95% CI)", "z", "p"]
        + ["p, Holm", "p, Benjamini–Hochberg"] * several,
    )
    for cohort, group in groupby(entries, key=lambda entry: entry["cohort"]):
        grid.subheading(cohort_label(cohort))
        for entry in group:
            missing = absent(entry)
            cells = [
                grid.cell(entry if missing else _difference(entry), with_interval),
                grid.cell(None if missing else entry.get("z"), lambda z: number(z, 2)),
                grid.cell(None if missing else entry.get("p"), p_value),
            ]
            if several:
                cells += [grid.cell(entry.get(key), p_value) for key in ("p_holm", "p_bh")]
            grid.row(_pair(entry), cells)
    return grid


def improvements_grid(entries: Sequence[Record]) -> Grid | None:
    """NRI and IDI of each pair, or None where no entry has any."""
    known = [entry for entry in entries if any(name in entry for name in IMPROVEMENTS)]
    if not known:
        return None
    grid = Grid(
        "Reclassification by the first model against the second (estimate with 95% CI, p): among patients with the "
        "event upwards and among the others downwards is right.",
        ["Models", *IMPROVEMENTS.values()],
    )
    for cohort, group in groupby(known, key=lambda entry: entry["cohort"]):
        grid.subheading(cohort_label(cohort))
        for entry in group:
            grid.row(_pair(entry), [_tested(grid, entry.get(name)) for name in IMPROVEMENTS])
    return grid


def interactions_grid(entries: Sequence[Record]) -> Grid | None:
    """Tests of a figure between the levels of a subgroup."""
    if not entries:
        return None
    grid = Grid(
        "Tests of interaction: does a model do as well in every level of a subgroup? Difference is second less first "
        "level.",
        ["", "Levels", "Difference (95% CI)", "χ²", "df", "p", "p, Holm"],
    )
    for cohort, group in groupby(entries, key=lambda entry: entry["cohort"]):
        grid.subheading(cohort_label(cohort))
        for entry in group:
            cells = [
                Cell(text=", ".join(entry["levels"]) or "–"),
                grid.cell(_difference(entry) if "difference" in entry else None, with_interval),
                grid.cell(entry["chi2"], lambda q: number(q, 2)),
                grid.cell(entry["df"], lambda df: f"{df:g}"),
                grid.cell(entry["p"], p_value),
                grid.cell(entry.get("p_holm"), p_value),
            ]
            figure = FIGURES.get(entry["figure"], words(entry["figure"]))
            grid.row(f"{words(entry['model'])}: {figure} by {words(entry['variable'])}", cells)
    return grid


def updating_grid(cohorts: Record, caption: str) -> Grid | None:
    """Which update of the score each cohort calls for, by the closed test; None where no cohort has one."""
    names = [name for name in whole_cohorts(cohorts) if "updating" in cohorts[name]]
    names += [name for name in cohorts if "/site:" in name and name.count("/") == 1 and "updating" in cohorts[name]]
    if not names:
        return None
    refitted = any(not absent(cohorts[n]["updating"]) and "refit" in cohorts[n]["updating"]["models"] for n in names)
    last = ["p, intercept and slope"] * refitted  # each against the refit where there is one
    grid = Grid(caption, ["", "Needed", "Intercept", "Slope", "p, as it is", "p, intercept alone", *last])
    for name in names:
        found = cohorts[name]["updating"]
        if absent(found):
            grid.row(cohort_label(name), [grid.cell(found, str), *["–"] * (4 + refitted)])
            continue
        model = found["models"][found["chosen"]]
        against_refit = found["tests"][0].get("alternative") == "refit"
        ps: list[Any] = [p_value(test["p"]) for test in found["tests"][: 3 if against_refit else 2]]
        if refitted and not against_refit:
            ps.append(grid.cell(found["models"].get("refit"), str))
        grid.row(
            cohort_label(name),
            [
                UPDATES[found["chosen"]],
                *(number(model[key], 3) if key in model else "–" for key in ("intercept", "slope")),
                *ps,
            ],
        )
    return grid


def refit_grid(cohorts: Record, caption: str) -> Grid | None:
    """Coefficients of the model refitted on the patients of each cohort, in study units; None where there are none."""
    found = {name: look_up(figures, "updating.models.refit") for name, figures in cohorts.items()}
    fits = {name: refit for name, refit in found.items() if refit is not None and not absent(refit)}
    if not fits:
        return None
    grid = Grid(caption, ["", "Estimate", "Standard error"])
    for name, refit in fits.items():
        grid.subheading(cohort_label(name))
        for row in refit["coefficients"]:
            grid.row(words(row["term"]), [number(row["estimate"]), number(row["se"])])
    return grid


def _pair(entry: Record) -> str:
    return f"{words(entry['a'])} against {words(entry['b'])}"


def _difference(entry: Record) -> Any:
    difference = entry.get("difference")
    return difference if absent(difference) else {"estimate": difference, "ci": entry.get("ci")}


def _tested(grid: Grid, figure: Any) -> Cell:
    def write(of: Any) -> str:
        p = of.get("p")
        return with_interval(of) if absent(p) or p is None else f"{with_interval(of)}, p {p_value(p)}"

    return grid.cell(figure, write)
