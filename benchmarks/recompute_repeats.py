"""Recompute repeats: figures of every repeat of cross-validation, and what optimism is made of, for `recompute`.

The training figures of optimism are of fits without a fold on the patients they were fitted on. predictions.csv has no
scores of these, so there the differences alone are checked.
"""

import numpy as np
import pooled_binary as binary
import pooled_survival as survival
from recompute_table import EXACT
from sklearn.metrics import r2_score, root_mean_squared_error


def check(run, table, model, published):
    """``repeated`` and ``optimism`` of one model."""
    if not (published.keys() & {"repeated", "optimism"}):
        return
    endpoint = published["endpoint"]
    patients = run.cohort("cross_validated", endpoint)
    columns = ["score", *(f"repeat{r}" for r in range(2, published.get("repeated", {}).get("repeats", 1) + 1))]
    scores = [patients[f"{column}.{model}"].to_numpy() for column in columns]
    found = [_figures(run, endpoint, patients, score) for score in scores if not np.isnan(score).any()]
    for name, figure in published.get("repeated", {}).items():
        if name == "repeats":
            table.compare("repeats", model, figure, len(columns))
        elif "values" not in figure:
            table.compare(f"repeats: {name}", model, figure, None)
        else:
            values = [of[name] for of in found]
            table.compare(f"repeats: {name}", model, figure["values"], values, figure.get("bound", 0.0) + EXACT)
            spread = [np.mean(figure["values"]), np.std(figure["values"], ddof=1), *_ends(figure["values"])]
            table.compare("repeats: mean, SD, ends", model, [figure[k] for k in ("mean", "sd", "min", "max")], spread)
    for name, figure in published.get("optimism", {}).items():
        if "corrected" not in figure:
            table.compare(f"optimism: {name}", model, figure, None)
            continue
        apparent = _look_up(published["cohorts"]["train"], name)
        tested = published["repeated"][name]["mean"] if "repeated" in published else None
        tested = _look_up(published["cohorts"]["cross_validated"], name) if tested is None else tested
        optimism = figure["training"] - tested
        table.compare("optimism", model, [figure[k] for k in ("apparent", "tested")], [apparent, tested])
        table.compare("optimism", model, [figure["optimism"], figure["corrected"]], [optimism, apparent - optimism])


def _ends(values):
    return min(values), max(values)


def _figures(run, endpoint, patients, score):
    """Main figures of one score on all patients."""
    columns = [patients[name].to_numpy() for name in run.outcome(endpoint)]
    if run.kind(endpoint) == "continuous":
        return {"r_squared": r2_score(columns[0], score), "rmse": root_mean_squared_error(columns[0], score)}
    if run.kind(endpoint) == "survival":
        time = survival.coarse(columns[0], run.step(endpoint))
        return {"c_index": survival.c_index(time, columns[1].astype(int), binary.on_grid(score))[0]}
    y = columns[0].astype(int)
    lines = binary.recalibration(y, score)
    return {
        "auc": binary.auc(y, binary.on_grid(score))[0],
        "brier": ((y - score) ** 2).mean(),
        "calibration.intercept": lines["intercept"],
        "calibration.slope": lines["slope"],
    }


def _look_up(figures, name):
    """A figure of a cohort, its estimate where it has an interval."""
    for key in ("survival", *name.split(".")) if name == "c_index" else name.split("."):
        figures = figures[key]
    return figures["estimate"] if isinstance(figures, dict) else figures
