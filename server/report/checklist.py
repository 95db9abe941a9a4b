"""Checklist: where this page answers TRIPOD+AI, and what its authors still have to write.

Items after Collins et al., TRIPOD+AI statement, BMJ 2024;385:e078378.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Record = Mapping[str, Any]


class Item(NamedTuple):
    """One item of the checklist.

    Attributes
    ----------
    number : str
        As in the statement.
    topic : str
    answer : str
        What the page says to it.
    anchor : str
        Section of the page; empty where the authors must write.
    """

    number: str
    topic: str
    answer: str
    anchor: str


def checklist(results: Record, study: Record) -> list[Item]:
    """Answer the items that a run of a study can answer, and name the others."""
    sites = results.get("sites") or []
    ours = [
        Item("5a, 6a", "Sources of data and setting", f"{len(sites)} sites, named with their roles", "patients"),
        Item("7", "Data preparation", _preparation(study), "methods"),
        Item("8a", "Outcome", _outcomes(study), "methods"),
        Item("9a", "Predictors", _predictors(study), "models"),
        Item("10", "Sample size", "patients and events of every cohort; no prior calculation is implied", "models"),
        Item("11", "Missing data", _missing(study), "methods"),
        Item("12a–c", "Use of data, predictors and model type", _split(study), "methods"),
        Item("12e", "Performance measures", "discrimination, calibration and clinical utility", "models"),
        Item("14", "Fairness", _subgroups(study), "models"),
        Item("20a, b", "Participants", "flow of patients; Table 1 by outcome", "patients"),
        Item("22", "Full model", "coefficients here; weights and preprocessing in the models folder", "models"),
        Item("23a, b", "Performance with intervals, and between sites", "by cohort, site and subgroup", "models"),
    ]
    authors = [
        Item("1–4", "Title, abstract, background, objectives", "", ""),
        Item("8b, c; 9b, c", "How outcome and predictors were assessed, and by whom", "", ""),
        Item("17", "Ethical approval", "", ""),
        Item("18a–f", "Funding, interests, protocol, registration, data and code", "", ""),
        Item("19", "Patient and public involvement", "", ""),
        Item("25–27", "Interpretation, limitations, usability", "", ""),
    ]
    return ours + authors


def _preparation(study: Record) -> str:
    parts = [f"{len(study[table])} {word}" for table, word in (("image", "images"), ("features", "feature sets"))
             if study.get(table)]  # fmt: skip
    harmonised = " harmonised between sites" if study.get("harmonise") else ""
    return ("study file: " + ", ".join(parts) + harmonised) if parts else "variables used as recorded"


def _outcomes(study: Record) -> str:
    return "; ".join(f"{name.replace('_', ' ')} ({e.get('kind')})" for name, e in (study.get("endpoint") or {}).items())


def _predictors(study: Record) -> str:
    return f"{len(study.get('variable') or ())} variables; predictors, selection and estimates by model"


def _missing(study: Record) -> str:
    rules: dict[str, list[str]] = {}
    for variable in study.get("variable") or ():
        rules.setdefault(variable.get("missing", "refuse"), []).append(variable["name"].replace("_", " "))
    names = {"refuse": "excluded if missing", "indicator": "missing indicator", "chained": _chained(study)}
    if not rules:
        return "no tabular variables"
    return "; ".join(f"{names.get(rule, rule)}: {', '.join(variables)}" for rule, variables in rules.items())


def _chained(study: Record) -> str:
    several = (study.get("imputation") or {}).get("imputations", 1)
    return f"chained equations, {several} imputations" if several > 1 else "chained equations"


def _split(study: Record) -> str:
    split = study.get("split") or {}
    parts = []
    if split.get("folds"):
        times = f", repeated {split['repeats']} times" if split.get("repeats", 1) > 1 else ""
        parts.append(f"{split['folds']}-fold cross-validation{times}")
    if split.get("internal_fraction"):
        parts.append(f"internal fraction {split['internal_fraction']:g} of each training site")
    if split.get("part_column"):
        parts.append("parts given by a column")
    if split.get("external"):
        parts.append(f"external: {', '.join(split['external'])}")
    return "; ".join(parts) or "training only"


def _subgroups(study: Record) -> str:
    subgroups = (study.get("validation") or {}).get("subgroups")
    return f"figures by {', '.join(subgroups)}" if subgroups else "no subgroup was declared in the study file"
