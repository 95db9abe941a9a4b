"""Recompute explanations: mean |SHAP|, permutation importance and nomograms once more, from the sites' tables.

Reads OUT/sites/*/prepared/*/table.parquet, where the patients' values stand beside each other, and the published
coefficients in study units; imports nothing of the package. Of models whose terms are study variables only.

Permutation importance is published for 25 values that stand for a variable's marginal, and for binned scores. Here
every patient is given every patient's value, and the unbinned scores are ranked: `ROUGH` is allowed between the two.
"""

import numpy as np
import pandas as pd
from recompute_table import EXACT
from scipy import special, stats

ROUGH = 0.01
MOST = 1000
"""Values of a variable that stand in, about."""
ORDER_STATISTIC = 1e-6
"""Quantiles are found to 32 bits of their place between neighbours."""


def filled_table(out, study, endpoint):
    """Patients with a known outcome, gaps filled by the training part's pooled median, mean or mode; None if others."""
    paths = sorted(out.glob("sites/*/prepared/*/table.parquet"))
    frame = pd.concat([pd.read_parquet(path).assign(site=path.parts[-4]) for path in paths], ignore_index=True)
    known = [name for name in frame if name.startswith(f"endpoint.{endpoint}")]
    frame = frame[frame[known].notna().all(axis=1)].reset_index(drop=True)
    fills = {"median": pd.Series.median, "mean": pd.Series.mean, "mode": lambda x: x.mode()[0]}
    for variable in study["variable"]:
        name, rule = variable["name"], variable.get("missing", "refuse")
        if name in frame and frame[name].isna().any():
            if rule not in fills:
                return None
            frame[name] = frame[name].fillna(fills[rule](frame.loc[frame["part"] == "train", name]))
    return frame


def training_table(out, study, endpoint):
    """Training patients of `filled_table`."""
    frame = filled_table(out, study, endpoint)
    return None if frame is None else frame[frame["part"] == "train"].reset_index(drop=True)


def check(run, out, table, model, published):
    """Explanations of one model, where its coefficients are those of study variables."""
    explained, terms = published.get("explanation"), published["coefficients"]
    if not explained or "harmonise" in run.study:
        return
    frame = training_table(out, run.study, published["endpoint"])
    named = [v for v in run.study["variable"] if v.get("levels") not in (None, [], [0, 1])]
    levels = {v["name"]: [str(x) for x in v["levels"]] for v in named}
    parts = None if frame is None else _contributions(frame, terms, levels)
    if not parts:  # nor of scores that no coefficients give
        return
    intercept = sum(t["estimate"] for t in terms if t["term"] == "(Intercept)")
    if isinstance(explained.get("shap"), list):
        ours = {of["variable"]: of["mean_absolute"] for of in explained["shap"]}
        theirs = {name: np.abs(part - part.mean()).mean() for name, part in parts.items()}
        table.compare("mean |SHAP|", model, [ours[name] for name in parts], [theirs[name] for name in parts])
    if "axes" in explained.get("nomogram", {}):
        _nomogram(table, model, explained["nomogram"], frame, terms, levels, intercept)
    if "variables" in explained.get("permutation", {}):
        y = frame[f"endpoint.{published['endpoint']}"].to_numpy() == 1
        _permutation(table, model, explained["permutation"], y, parts, intercept)


def _contributions(frame, terms, levels):
    """Contribution of each variable to the linear predictor, (n,); None where a term is no study variable."""
    parts = {}
    for term in terms:
        name, _, level = term["term"].partition("=")
        if name == "(Intercept)":
            continue
        if name not in frame:
            return None
        x = frame[name] == levels[name].index(level) if level else frame[name]
        parts[name] = parts.get(name, 0.0) + term["estimate"] * x.to_numpy(float)
    return parts


def _permutation(table, model, published, y, parts, intercept):
    """AUC when a variable has the value of each training patient in turn, all of these ranked together."""
    whole = intercept + sum(parts.values())
    apparent = _area(y, whole[:, None])
    table.compare("permutation: apparent AUC", model, published["auc"], apparent, ROUGH)
    for of in published["variables"]:
        part = parts[of["variable"]]
        values = np.sort(part)[:: -(-len(part) // MOST)]
        fall = apparent - _area(y, (whole - part)[:, None] + values)
        table.compare("permutation: fall of the AUC", model, of["fall"], fall, ROUGH)


def _area(y, scores):
    """AUC of patients each of whom stands at the scores of a row, (n, k)."""
    cases, others = scores[y].ravel(), scores[~y].ravel()
    rank = stats.rankdata(np.concatenate([cases, others]))[: len(cases)].sum()
    return (rank - len(cases) * (len(cases) + 1) / 2) / len(cases) / len(others)


def _nomogram(table, model, published, frame, terms, levels, intercept):
    """Points, by hand from the coefficients: 100 for the widest axis, 0 at the least contribution of each."""
    slopes = {t["term"]: t["estimate"] for t in terms}
    axes = {}
    for axis in published["axes"]:
        name = axis["variable"]
        if name in levels:
            axes[name] = {level: slopes.get(f"{name}={level}", 0.0) for level in levels[name]}
        else:
            ends = [value for value, _ in axis["points"]]
            if set(frame[name]) - {0.0, 1.0}:
                found = frame[name].quantile(published["percentiles"]).to_list()
                table.compare("nomogram: ends of axes", model, ends, found, ORDER_STATISTIC)
            axes[name] = {value: slopes[name] * value for value in ends}
    unit = 100 / max(max(of.values()) - min(of.values()) for of in axes.values())
    table.compare("nomogram", model, published["points_per_unit"], unit)
    for axis in published["axes"]:
        of = axes[axis["variable"]]
        points = [unit * (of[value] - min(of.values())) for value, _ in axis["points"]]
        table.compare("nomogram", model, [p for _, p in axis["points"]], points)
    if published.get("risk"):
        lowest = intercept + sum(min(of.values()) for of in axes.values())
        table.compare("nomogram", model, published["lowest"], lowest)
        totals, risks = np.array(published["risk"]).T
        table.compare("nomogram", model, special.expit(lowest + totals / unit), risks, EXACT)
