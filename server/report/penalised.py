"""Penalised: what the page says of LASSO and elastic-net models, and of averages of local fits beside the exact fit."""

from collections.abc import Mapping, Sequence
from typing import Any

from cohortium.server.report.text import number

Record = Mapping[str, Any]
NUMBER = "A number is predicted, not a class: there is no cut-off, no ROC and no decision curve."


def reported_kind(kind: str, outcome: str) -> str:
    """Kind of a model as the page names it: a LASSO of a survival endpoint is a Cox model, of a number a linear one."""
    if kind == "lasso" and outcome == "continuous":
        return "lasso_linear"
    return "lasso_cox" if kind == "lasso" and outcome == "survival" else kind


def penalised_note(kind: str, model: Record) -> str:
    """Say how a penalised model was fitted; `kind` as reported."""
    mixing = model.get("mixing", 1.0)
    net = (
        f" Elastic net: {mixing:g} of the penalty is of absolute, the rest of squared coefficients."
        if mixing < 1
        else ""
    )
    if kind == "lasso_linear":
        return (
            "Penalised least squares over all training patients, equal to the pooled fit; columns and outcome are "
            "divided by their standard deviations, and lambda is on that scale. Coefficients are shrunk towards zero "
            f"on purpose and have no standard errors.{net} {NUMBER}"
        )
    likelihood = (
        "Penalised partial likelihood over all training patients, Breslow ties, stratified by site: every site has a "
        "baseline hazard of its own. Lambda is chosen by the cross-validated partial likelihood."
        if kind == "lasso_cox"
        else "Penalised likelihood over all training patients, equal to the pooled fit."
    )
    return f"{likelihood} Coefficients are shrunk towards zero on purpose and have no standard errors.{net}"


def average_note(notes: Record, sites: int) -> list[str]:
    """Say how far an average of local fits lies from the exact fit.

    Parameters
    ----------
    notes : mapping
        The model's notes in results.json.
    sites : int
        That train.
    """
    found = notes.get("fedavg")
    if not found:
        return []
    sentences = [
        f"{found['sites']} of {sites} training sites could fit the model alone ({found['patients']} patients)."
    ]
    if "relative_error" in found:
        sentences.append(
            f"The averaged coefficients differ from the exact ones by {100 * found['relative_error']:.0f}% of the "
            "length of the exact ones (standardised, without intercept), at most by "
            f"{number(found['largest_difference'])}."
        )
    if found["nonzero"] != found["nonzero_exact"] or found["nonzero_both"] != found["nonzero"]:
        sentences.append(
            f"{found['nonzero']} are not zero, against {found['nonzero_exact']} of the exact fit; "
            f"{found['nonzero_both']} of them are the same."
        )
    return [" ".join(sentences)]


def beside_exact(coefficients: Sequence[Record], notes: Record) -> Sequence[Record]:
    """Rows of a coefficient table with the exact estimate beside each, where there is one."""
    exact = {row["term"]: row["estimate"] for row in (notes.get("fedavg") or {}).get("exact", ())}
    if not exact:
        return coefficients
    rows = [{**row, "exact": exact.get(row["term"], 0.0)} for row in coefficients]
    named = {row["term"] for row in coefficients}
    return rows + [{"term": t, "estimate": 0.0, "exact": value} for t, value in exact.items() if t not in named]
