"""Inference: what the page says of a regression beside its coefficients: tests, criteria, sites, hazards."""

from collections.abc import Mapping, Sequence
from typing import Any

from cohortium.server.report.coefficients import term_label
from cohortium.server.report.grid import Cell, Grid
from cohortium.server.report.text import number, p_value

Record = Mapping[str, Any]
GENERALISED = "of a variable of several terms the generalised factor (Fox & Monette)"


def fitted_note(kind: str, model: Record) -> str:
    """Say how a logistic or Cox model was fitted where it was not plain maximum likelihood; empty where it was."""
    if model.get("penalty") == "firth":
        likelihood = "Partial likelihood" if kind == "cox" else "Likelihood"
        where = ", one intercept for all sites"
        if kind == "cox":
            ties = {"efron": "Efron", "breslow": "Breslow"}.get(model.get("ties", "efron"), "")
            own = model.get("strata", "site") == "site"
            where = f", {ties} ties; {'every site has' if own else 'all sites share'} a baseline hazard"
        said = f"{likelihood} with Firth's penalty over all training patients{where}. Estimates stay finite where "
        if model.get("intervals") == "profile":
            return (
                f"{said}predictors separate the outcome; intervals are of the profile penalised likelihood, p of its "
                "ratio test, standard errors of Wald's kind."
            )
        return (
            f"{said}predictors separate the outcome; standard errors are of Wald's kind, and the penalised "
            "likelihood-ratio test is to be preferred to them."
        )
    if model.get("aggregation") == "meta":
        method = "REML" if model.get("tau2") == "reml" else "DerSimonian-Laird"
        return (
            f"Each site fitted the model alone; coefficients are their random-effects means ({method}), not "
            "those of a pooled fit. Scores use the pooled intercept."
        )
    if model.get("site_effects") == "fixed":
        return (
            "Maximum likelihood over all training patients in which every site has an intercept of its own (equal to "
            "dummy variables); effects compare patients of one site. Scores use the mean intercept over patients, as "
            "a hospital outside would."
        )
    if model.get("site_effects") == "random":
        return (
            "Maximum likelihood with an intercept of its own for every site, drawn from a normal distribution "
            "(adaptive Gauss-Hermite quadrature); effects compare patients of one site. Scores use the middle "
            "intercept, as a hospital outside would."
        )
    return ""


def inference_notes(found: Record) -> list[str]:
    """Sentences of a model's notes in results.json."""
    return [line for line in (_whole(found), _least_squares(found), _sites(found), _meta(found)) if line]


def _least_squares(found: Record) -> str:
    if "r_squared" not in found:
        return ""
    said = f"R² {number(found['r_squared'], 3)}, residual standard deviation {number(found['residual_sd'])}"
    if "adjusted_r_squared" in found:
        said = f"Adjusted R² {number(found['adjusted_r_squared'], 3)}, {said}"
    if test := found.get("f_test"):
        said += f"; F {number(test['f'], 2)} on {test['df']} and {test['df_residual']} df, p {p_value(test['p'])}"
    return f"{said}."


def _whole(found: Record) -> str:
    test = found.get("likelihood_ratio")
    if not test:
        return ""
    name = "Penalised likelihood-ratio test" if found.get("penalty") == "firth" else "Likelihood-ratio test"
    parts = [f"{name} of the whole model: {_written(test)}"]
    if score := found.get("score_test"):
        parts.append(f"score test: {_written(score)}")
    if "aic" in found:
        parts.append(f"AIC {number(found['aic'], 1)}, BIC {number(found['bic'], 1)}")
    return "; ".join(parts) + "."


def _written(test: Record) -> str:
    return f"chi-squared {number(test['chi2'], 2)} on {test['df']} df, p {p_value(test['p'])}"


def _sites(found: Record) -> str:
    effects = found.get("site_effects")
    if not effects:
        return ""
    if effects["kind"] == "fixed":
        return f"{effects['sites']} sites have an intercept; their mean is {number(effects['mean_intercept'])}."
    if effects["on_the_edge"]:
        return "Sites do not differ more than chance explains: the standard deviation of their intercepts is zero."
    return (
        f"The sites' intercepts have a standard deviation of {number(effects['sd'])} (median odds ratio "
        f"{number(effects['median_odds_ratio'], 2)}, intraclass correlation "
        f"{number(effects['intraclass_correlation'], 2)}); likelihood-ratio test of no difference, p "
        f"{p_value(effects['heterogeneity']['p'])}."
    )


def _meta(found: Record) -> str:
    meta = found.get("meta_analysis")
    return f"{meta['sites']} sites could fit the model alone ({found['patients']} patients)." if meta else ""


def variable_grid(found: Record, caption: str) -> Grid | None:
    """Tests of whole variables and their variance inflation, or None where there are neither."""
    tests = {test["variable"]: test for test in (found.get("likelihood_ratio") or {}).get("variables", ())}
    factors = {entry["variable"]: entry for entry in found.get("variance_inflation", ())}
    if not tests and not factors:
        return None
    titles = [*(["Chi-squared", "df", "p"] if tests else []), *(["Variance inflation"] if factors else [])]
    grid = Grid(caption, ["Variable", *titles])
    for name in tests or factors:
        cells: list[str | Cell] = []
        if test := tests.get(name):
            cells += [number(test["chi2"], 2), str(test["df"]), p_value(test["p"])]
        if factor := factors.get(name):
            text = number(factor["gvif"], 2)
            cells.append(grid.noted(text, GENERALISED) if factor["terms"] > 1 else text)
        elif factors:
            cells.append("")
        grid.row(term_label(name), cells)
    return grid


def heterogeneity_grid(found: Record, caption: str) -> Grid | None:
    """How far the sites' coefficients differ, or None where no meta-analysis was done."""
    terms: Sequence[Record] = (found.get("meta_analysis") or {}).get("terms", ())
    if not terms:
        return None
    grid = Grid(caption, ["Term", "Q (df)", "p", "I\u00b2", "tau\u00b2", "95% prediction interval"])
    for term in terms:
        ends = term["prediction_interval"]
        known = all(isinstance(end, int | float) for end in ends)
        cells = [
            f"{number(term['q'], 2)} ({term['df']})",
            p_value(term["p"]),
            f"{100 * term['i2']:.0f}%",
            number(term["tau2"]),
            f"{number(ends[0])} to {number(ends[1])}" if known else "of three sites or more",
        ]
        grid.row(term_label(term["term"]), [grid.cell(cell, str) for cell in cells])
    return grid


def hazards_grid(found: Record, caption: str) -> Grid | None:
    """The test of proportional hazards, or None where the study did not ask for it."""
    test = found.get("proportional_hazards")
    if not test:
        return None
    against = "the logarithm of time" if test["transform"] == "log" else "time"
    grid = Grid(f"{caption} (scaled Schoenfeld residuals against {against}).", ["Term", "Chi-squared", "df", "p"])
    for row in (*test["terms"], {"term": "all terms", **test["global"]}):
        cells = [number(row["chi2"], 2), str(row["df"]), p_value(row["p"])]
        grid.row(term_label(row["term"]), [grid.cell(cell, str) for cell in cells])
    return grid
