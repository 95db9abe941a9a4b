"""Recompute refits: the closed test of updating that ends with new coefficients, once more, for `recompute`.

From the sites' tables, as explanations are: the score is the published coefficients on the patients' values, the four
likelihoods are statsmodels'. A model whose columns are not study variables (features, harmonised values, other models'
scores) cannot be refitted from these tables; such tests are counted as not seen. Imports nothing of the package.
"""

import re

import numpy as np
import statsmodels.api as sm
from recompute_explained import ORDER_STATISTIC, filled_table
from recompute_table import EXACT
from scipy import stats


def check(run, out, table, model, published):
    """All tests of one model that end with a refit."""
    cohorts = {
        name: figures["updating"]
        for name, figures in published["cohorts"].items()
        if figures.get("updating", {}).get("tests", [{}])[0].get("alternative") == "refit"
    }
    if not cohorts:
        return
    frame, terms = filled_table(out, run.study, published["endpoint"]), published["coefficients"]
    design = None if frame is None or "harmonise" in run.study else _design(frame, terms, run.study)
    if design is None:
        table.unseen += len(cohorts)
        return
    y = frame[f"endpoint.{published['endpoint']}"].to_numpy()
    score = design @ np.array([term["estimate"] for term in terms])
    gaps = any(v.get("missing") == "median" for v in run.study["variable"])
    for name, figures in cohorts.items():
        part = re.match(r"\w+", name)[0]
        at = ((frame["part"] == part) & frame["site"].isin(run.results["held_by"][name])).to_numpy()
        _check(table, f"{model}, {name}", figures, y[at], score[at], design[at], ORDER_STATISTIC if gaps else EXACT)


def _design(frame, terms, study):
    """Columns of the terms, the intercept first; None where one is no study variable."""
    levels = {v["name"]: [str(x) for x in v.get("levels", ())] for v in study["variable"]}
    columns = []
    for term in terms:
        name, _, level = term["term"].partition("=")
        if name != "(Intercept)" and name not in levels:
            return None
        whole = np.ones(len(frame)) if name == "(Intercept)" else frame[name].to_numpy(float)
        columns.append((whole == levels[name].index(level)).astype(float) if level else whole)
    return np.column_stack(columns)


def _check(table, where, figures, y, score, design, allowed):
    large = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=score).fit(tol=1e-14)
    both, new = (
        sm.Logit(y, of).fit(method="newton", tol=1e-14, maxiter=100, disp=False)
        for of in (sm.add_constant(score), design)
    )
    known = (y * score - np.logaddexp(0, score)).sum()
    values = {"none": known, "intercept": large.llf, "intercept_and_slope": both.llf, "refit": new.llf}
    models = figures["models"]
    ours = [models[name]["log_likelihood"] for name in values]
    table.compare("refit: log likelihoods", where, ours, list(values.values()), allowed)
    both_ours = models["intercept_and_slope"]
    recalibrated = [models["intercept"]["intercept"], both_ours["intercept"], both_ours["slope"]]
    table.compare("refit: recalibrations", where, recalibrated, [large.params[0], *both.params], allowed)
    for key, reference in (("estimate", new.params), ("se", new.bse)):
        rows = [row[key] for row in models["refit"]["coefficients"]]
        table.compare(f"refit: coefficients, {key}", where, rows, reference, allowed)
    for test, df in zip(figures["tests"], np.arange(design.shape[1], design.shape[1] - 3, -1), strict=True):
        chi2 = 2 * (new.llf - values[test["null"]])
        table.compare("refit: tests", where, [test["chi2"], test["df"]], [chi2, df], allowed)
        table.compare("refit: tests, p", where, test["p"], stats.chi2.sf(chi2, df), allowed)
