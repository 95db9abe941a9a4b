"""Measures: the tables of a model's performance, by cohort, from its record in results.json."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from cohortium.server.report.forest import Line
from cohortium.server.report.grid import Grid
from cohortium.server.report.text import (
    COHORTS,
    absent,
    cohort_label,
    count,
    estimate,
    interval,
    limits,
    number,
    p_value,
    with_interval,
    words,
)

Record = Mapping[str, Any]


def look_up(record: Any, path: str) -> Any:
    """Follow a dotted path; a figure that is absent on the way stands for everything under it.

    A number beside its interval (``slope``, ``slope_ci``) comes back as one figure.

    >>> look_up({"survival": {"undefined": "no events"}}, "survival.c_index")
    {'undefined': 'no events'}
    >>> look_up({"calibration": {"slope": 0.9, "slope_ci": [0.8, 1.0]}}, "calibration.slope")
    {'estimate': 0.9, 'ci': [0.8, 1.0]}
    """
    holder, key = None, ""
    for key in path.split("."):
        if absent(record):
            return record
        holder, record = record, record.get(key) if isinstance(record, Mapping) else None
    if isinstance(record, int | float) and isinstance(holder, Mapping) and f"{key}_ci" in holder:
        return {"estimate": record, "ci": holder[f"{key}_ci"]}
    return record


def whole_cohorts(cohorts: Record) -> list[str]:
    """Names of the cohorts that are no site's and no subgroup's, in a reader's order."""
    known = [name for name in COHORTS if name in cohorts]
    return known + [name for name in cohorts if "/" not in name and name not in COHORTS]


def _chi2(test: Any) -> str:
    return f"{number(test['chi2'], 2)}, {test['df']:g} df, p {p_value(test['p'])}"


def _spiegelhalter(test: Any) -> str:
    return f"{number(test['z'], 2)}, p {p_value(test['p'])}"


def _limits(of: Any) -> str:
    return limits(*of)


def _parts_of_brier(parts: Any) -> str:
    return "; ".join(number(parts[name], 3) for name in ("reliability", "resolution", "uncertainty"))


def _agreement(limits: Any) -> str:
    small = abs(limits["mean_difference"]) < 1e-9 * limits["sd"]  # in training it is zero but for rounding
    figures = (0.0 if small else limits["mean_difference"], limits["lower"], limits["upper"])
    mean, lower, upper = map(number, figures)
    return f"{mean} [{lower} to {upper}]"


def _log_rank(test: Any) -> str:
    return f"{number(test['chi2'], 2)}, p {p_value(test['p'])}"


def _median(figure: Any, digits: int) -> str:
    """A median, whose upper limit is often not reached.

    >>> _median({"estimate": 800.0, "ci": [710.0, {"undefined": "stays above"}]}, 0)
    '800 (710–not reached)'
    """
    limits = figure.get("ci") if isinstance(figure, Mapping) else None
    if isinstance(limits, list) and not absent(limits[0]) and absent(limits[1]):
        return f"{with_interval(figure, digits)} ({number(limits[0], digits)}–not reached)"
    return with_interval(figure, digits)


def _observed_to_expected(calibration: Any) -> str:
    ratio = with_interval(calibration["observed_to_expected"], 2)
    return f"{number(calibration['observed'], 3)} / {number(calibration['expected'], 3)} = {ratio}"


def _of_groups(at: Any, digits: int) -> str:
    """Both risk groups, and high less low where there is a difference."""
    said = []
    for name in ("low", "high", "difference"):
        missing = absent(at.get(name))
        if name in at and not (name == "difference" and missing):
            said.append(f"{name} {missing.kind if missing else with_interval(at[name], digits)}")
    return "; ".join(said)


def _hazard_ratio(ratio: Any) -> str:
    return f"{with_interval(ratio, 2)}, p {p_value(ratio.get('p'))}"


MEASURES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "n": ("Patients", count),
    "events": ("Events", count),
    "auc": ("AUC (95% CI)", with_interval),
    "auc.folds_mean": ("Mean AUC of the folds", with_interval),
    "auc.bound": ("AUC, largest error by binned scores", partial(with_interval, digits=4)),
    "auc.bootstrap_ci": ("AUC, bootstrap 95% CI", _limits),
    "average_precision": ("Average precision (95% CI)", with_interval),
    "average_precision_bootstrap_ci": ("Average precision, bootstrap 95% CI", _limits),
    "brier": ("Brier score", with_interval),
    "brier_scaled": ("Scaled Brier score", with_interval),
    "brier_parts": ("Brier: reliability, resolution, uncertainty", _parts_of_brier),
    "log_loss": ("Logarithmic score", with_interval),
    "calibration.intercept": ("Calibration intercept", with_interval),
    "calibration.slope": ("Calibration slope", with_interval),
    "calibration.observed_to_expected": ("Observed to expected events", with_interval),
    "calibration.ici": ("Integrated calibration index", with_interval),
    "calibration.e50": ("E50, median calibration error", with_interval),
    "calibration.e90": ("E90 of the calibration error", with_interval),
    "calibration.ece": ("Expected calibration error", with_interval),
    "calibration.spiegelhalter": ("Spiegelhalter’s z", _spiegelhalter),
    "calibration.hosmer_lemeshow": ("Hosmer–Lemeshow χ²", _chi2),
    "r_squared": ("R²", with_interval),
    "rmse": ("Root mean squared error", with_interval),
    "mae": ("Mean absolute error (95% CI)", with_interval),
    "correlation": ("Correlation of prediction and outcome (95% CI)", with_interval),
    "bland_altman": ("Mean difference, prediction less outcome [95% limits of agreement]", _agreement),
    "survival.c_index": ("C-index (95% CI)", with_interval),
    "survival.c_index.bound": ("C-index, largest error by binned scores", partial(with_interval, digits=4)),
    "survival.median.low": ("Median survival, low risk", with_interval),
    "survival.median.high": ("Median survival, high risk", with_interval),
    "survival.hazard_ratio": ("Hazard ratio, high against low risk", _hazard_ratio),
    "survival.log_rank": ("Log-rank χ²", _log_rank),
    "survival.log_rank_within_sites": ("Log-rank χ², stratified by site", _log_rank),
    "survival.competing_risks.competing": ("Patients with a competing event (censored in the rows above)", count),
    "survival.competing_risks.gray": ("Gray's test χ², beside competing events", _log_rank),
    "survival.uno_c": ("Uno's C (95% CI), to the last horizon", with_interval),
    "survival.calibration_slope": ("Calibration slope of the score (95% CI)", with_interval),
    "survival.calibration_slope_within_sites": ("Calibration slope, stratified by site (95% CI)", with_interval),
    "survival.integrated_brier": ("Integrated Brier score", with_interval),
    "survival.integrated_brier.scaled": ("Integrated Brier score, gain over the null model", with_interval),
}
AT_TIMES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "survival.auc_at": ("AUC at", with_interval),
    "survival.brier_at": ("Brier score at", with_interval),
    "survival.scaled_brier_at": ("Index of prediction accuracy at", with_interval),
    "survival.calibration_at": ("Observed / expected risk at", _observed_to_expected),
    "survival.survival_at": ("Survival by risk group at", partial(_of_groups, digits=3)),
    "survival.rmst_at": ("Restricted mean survival by risk group to", partial(_of_groups, digits=2)),
}
DIGITS_OF_TIME = {"days": 0, "weeks": 1, "months": 1, "years": 2}
SHOWN_ELSEWHERE = {"roc", "pr", "decision_curve", "at_cutoff", "calibration", "survival", "privacy"}
SHOWN_ELSEWHERE |= {"average_precision_ci", "updating", "heterogeneity", "mae_ci", "correlation_ci"}
COUNTS = ("tp", "fp", "tn", "fn")
AT_CUTOFF = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "accuracy": "Accuracy",
    "f1": "F1 score",
    "positive_likelihood_ratio": "Positive likelihood ratio",
    "negative_likelihood_ratio": "Negative likelihood ratio",
    "diagnostic_odds_ratio": "Diagnostic odds ratio",
}


def measures_grid(cohorts: Record, caption: str, time_unit: str) -> Grid:
    """Make the table of all measures, a column each whole cohort; rows that no cohort has are left out."""
    names = whole_cohorts(cohorts)
    grid = Grid(caption, ["", *map(cohort_label, names)])
    others = {key for name in names for key in cohorts[name] if not absent(cohorts[name])}
    others -= SHOWN_ELSEWHERE | {path.split(".")[0] for path in MEASURES}
    stratified = [look_up(cohorts[name], "survival.log_rank_stratified") for name in names]
    strata = {key: None for tests in stratified if tests and not absent(tests) for key in tests}
    rows = dict(MEASURES) | {
        f"survival.log_rank_stratified.{key}": (f"Log-rank χ², stratified by {words(key)}", _log_rank) for key in strata
    }
    rows |= {key: (words(key).capitalize(), with_interval) for key in sorted(others)}
    for path, (label, write) in rows.items():
        figures = [look_up(cohorts[name], path) for name in names]
        if any(figure is not None and not absent(figure) for figure in figures) or path in cohorts.get(names[0], ()):
            if path.startswith("survival.median"):
                label, write = f"{label} ({time_unit})", partial(_median, digits=DIGITS_OF_TIME.get(time_unit, 2))
            grid.row(label, [grid.cell(figure, write) for figure in figures])
    for path, (label, write) in AT_TIMES.items():
        if path == "survival.rmst_at":
            write = partial(_of_groups, digits=DIGITS_OF_TIME.get(time_unit, 2))
        tables = [look_up(cohorts[name], path) for name in names]
        by_time = [_with_limits(at_times(table), look_up(cohorts[name], f"{path}_ci"))
                   for name, table in zip(names, tables, strict=True)]  # fmt: skip
        for time in sorted({time for known in by_time for time in known}):
            cells = [
                grid.cell(table if absent(table) else known.get(time), write)
                for table, known in zip(tables, by_time, strict=True)
            ]
            grid.row(f"{label} {time:g} {time_unit}", cells)
    return grid


def _with_limits(figures: dict[float, Any], limits: Any) -> dict[float, Any]:
    """Figures at times, each with its interval where there is one."""
    known = at_times(limits)
    return {
        time: {"estimate": figure, "ci": known[time]} if time in known and not absent(figure) else figure
        for time, figure in figures.items()
    }


def at_times(table: Any) -> dict[float, Any]:
    """Read figures at times: a record by time, pairs, or records with a ``time``."""
    if not table or absent(table):
        return {}
    if isinstance(table, Mapping):
        return {float(time): figure for time, figure in table.items()}
    if isinstance(table[0], Mapping):
        return {float(row["time"]): row for row in table}
    return {float(time): figure for time, figure, *_ in table}


def cutoff_grid(cohorts: Record, caption: str) -> Grid | None:
    """Make the table of what a fixed cut-off does, or None where no cohort has one."""
    names = [name for name in whole_cohorts(cohorts) if look_up(cohorts[name], "at_cutoff") is not None]
    if all(absent(cohorts[name]) for name in names):  # a survival model has none, in whichever cohort
        return None
    grid = Grid(caption, ["", *map(cohort_label, names)])
    for key, label in AT_CUTOFF.items():
        figures = [look_up(cohorts[name], f"at_cutoff.{key}") for name in names]
        if any(figure is not None for figure in figures):
            grid.row(label, [grid.cell(figure, with_interval) for figure in figures])
    return grid


def confusion_matrices(cohorts: Record) -> list[dict[str, Any]]:
    """Counts at the cut-off, a cohort each, with the share of its class that each count is."""
    matrices = []
    for name in whole_cohorts(cohorts):
        at = look_up(cohorts[name], "at_cutoff")
        if absent(at) or not isinstance(at, Mapping) or not all(isinstance(at.get(key), int) for key in COUNTS):
            continue
        with_event, without = at["tp"] + at["fn"], at["tn"] + at["fp"]
        matrices.append(
            {
                "cohort": cohort_label(name),
                "counts": {key: count(at[key]) for key in COUNTS},
                "shares": {
                    key: at[key] / whole if whole else 0.0
                    for key, whole in (("tp", with_event), ("fn", with_event), ("tn", without), ("fp", without))
                },
            }
        )
    return matrices


def cutoff_sentence(cohorts: Record) -> str:
    """Say what the cut-off is and where it comes from; empty where there is none."""
    for name in whole_cohorts(cohorts):
        at = look_up(cohorts[name], "at_cutoff")
        if at is not None and not absent(at) and "cutoff" in at:
            rule = {"youden": "Youden's index", "median": "the median score"}.get(str(at.get("rule")), "the study file")
            source = "cross-validated scores" if "cross_validated" in cohorts else "the training cohort"
            origin = f"by {rule} in {source}" if at.get("rule") in ("youden", "median") else f"given by {rule}"
            optimism = (
                " Figures of the patients that it was chosen on are too good: read those of the other cohorts."
                if at.get("rule") == "youden"
                else ""
            )
            return f"High risk is a score of at least {number(at['cutoff'], 4)}, {origin}.{optimism}"
    return ""


def parts_grid(cohorts: Record, caption: str) -> tuple[Grid, dict[str, list[Line]]] | None:
    """Make the table of sites, subgroups and secondary analyses, and the lines of its forest plots, by measure.

    The forest leaves training out where there is anything else: apparent figures are no finding.
    """
    parts = list(COHORTS)
    names = sorted((name for name in cohorts if "/" in name), key=lambda name: parts.index(name.partition("/")[0]))
    if not names:
        return None
    titles = {"n": "Patients", "events": "Events", "auc": "AUC (95% CI)", "survival.c_index": "C-index (95% CI)"}
    titles |= {"r_squared": "R²", "rmse": "RMSE", "mae": "MAE (95% CI)"}
    figures = {name: {path: look_up(cohorts[name], path) for path in titles} for name in names}
    present = [path for path in titles if any(of[path] and not absent(of[path]) for of in figures.values())] or ["n"]
    grid = Grid(caption, ["", *(titles[path] for path in present)])
    lines: dict[str, list[Line]] = {"auc": [], "survival.c_index": []}
    drawn = [name for name in names if not name.startswith("train/")] or names
    for part, group in groupby(names, key=lambda name: name.partition("/")[0]):
        grid.subheading(cohort_label(part))
        for name in group:
            write = {path: count if path in ("n", "events") else with_interval for path in present}
            cells = [grid.cell(figures[name][path], write[path]) for path in present]
            grid.row(cohort_label(name).partition(", ")[2], cells)
    for name in drawn:
        for path, kept in lines.items():
            figure = figures[name][path]
            value = None if absent(figure) else estimate(figure)
            if value is not None:
                kept.append(Line(cohort_label(name), value, interval(figure)))
    return grid, lines
