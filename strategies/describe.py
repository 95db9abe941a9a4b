"""Describe: Table 1 of one part of a study, by outcome, over whoever holds the part (see `table_one`)."""

from collections.abc import Callable, Mapping
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.common.study import Study
from cohortium.common.study_data import Variable, level_text
from cohortium.strategies import table_one

Ask = Callable[[Mapping[str, Any]], Federation]
Entry = dict[str, Any]


def describe_part(ask: Ask, study: Study, part: str) -> list[Entry]:
    """Entries of results.json's ``table_one``, in the order of the study file.

    A table whose cells are too small at some site is withheld as a whole, so that no margin gives a cell away.
    """
    groups = outcome_groups(study)
    view = {"kind": "matrix", "rows": {"part": part, "endpoint": study.study.primary}, "group": study.study.primary}
    measured = [variable for variable in study.variable if variable.kind == "continuous"]
    counted = [variable for variable in study.variable if variable.kind != "continuous"]
    everyone = ask(view | {"blocks": [{"terms": [variable.name for variable in study.variable]}]})

    def continuous() -> list[Entry]:
        try:
            rows = ask(view | {"blocks": [{"terms": [variable.name for variable in measured]}]})
            described = table_one.continuous(rows, len(measured), len(groups))
        except SumRefused as refusal:
            return [_withheld(variable, part, refusal) for variable in measured]
        return [
            table_one.continuous_entry(
                described, column, variable=variable.name, unit=variable.unit, cohort=part, groups=groups
            )
            for column, variable in enumerate(measured)
        ]

    def categorical(variable: Variable) -> list[Entry]:
        try:
            rows = ask(view | {"blocks": [{"terms": [variable.name]}]})
            described = table_one.categorical(rows, len(variable.levels), len(groups))
        except SumRefused as refusal:
            return [_withheld(variable, part, refusal)]
        names = [level_text(level) for level in variable.levels]
        return [
            table_one.categorical_entry(
                described, 0, variable=variable.name, kind=variable.kind, level_names=names, cohort=part, groups=groups
            )
        ]

    tasks = [lambda variable=variable: categorical(variable) for variable in counted]
    found = everyone.together(([continuous] if measured else []) + tasks)
    by_name = {entry["variable"]: entry for entries in found for entry in entries}
    return [by_name[variable.name] for variable in study.variable]


def outcome_groups(study: Study) -> tuple[str, str]:
    """Names of the groups that Table 1 compares: without and with the primary endpoint."""
    primary = study.endpoint[study.study.primary]
    name = primary.column if primary.kind == "binary" else primary.event
    return f"no {name}", name


def _withheld(variable: Variable, part: str, refusal: SumRefused) -> Entry:
    return {"variable": variable.name, "kind": variable.kind, "cohort": part, "withheld": refusal.why}
