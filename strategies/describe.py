"""Describe: Table 1 of one part of a study, by outcome, over whoever holds the part (see `table_one`).

What a site holds back because a group has a few missing values is asked once more, coarser: levels with missing values
counted as the first level, a continuous variable for all groups together (client/cells.py says why).
"""

from collections.abc import Callable, Mapping
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.common.study import Study
from cohortium.common.study_data import Variable, level_text
from cohortium.strategies import table_one

Ask = Callable[[Mapping[str, Any]], Federation]
Entry = dict[str, Any]
FIRST_LEVEL = {"fill": [0.0], "centre": [0.0], "scale": [1.0]}
"""What a view of level codes is given to count missing values as the first level."""


def describe_part(ask: Ask, study: Study, part: str) -> list[Entry]:
    """Entries of results.json's ``table_one``, in the order of the study file.

    Each variable is asked for by itself. One that has a small cell at some site is withheld as a whole, so that no
    margin gives the cell away.
    """
    groups, primary = outcome_groups(study), study.study.primary
    view = {"kind": "matrix", "rows": {"part": part, "endpoint": primary}}
    least = study.privacy.minimum_count

    def rows(variable: Variable, **more: Any) -> Federation:
        return ask(view | {"blocks": [{"terms": [variable.name]}]} | more)

    def continuous(variable: Variable) -> Entry:
        named = {"variable": variable.name, "unit": variable.unit, "cohort": part}
        try:
            described = table_one.continuous(rows(variable, group=primary), 1, len(groups))
            return table_one.continuous_entry(described, 0, groups=groups, **named)
        except SumRefused:
            described = table_one.continuous(rows(variable), 1, 1)
            return table_one.ungrouped_entry(described, minimum_count=least, **named)

    def counted(variable: Variable) -> Entry:
        names = [level_text(level) for level in variable.levels]
        named = {"variable": variable.name, "kind": variable.kind, "cohort": part, "groups": groups}
        try:
            described = table_one.categorical(rows(variable, group=primary), len(names), len(groups))
            return table_one.categorical_entry(described, 0, level_names=names, **named)
        except SumRefused:
            coarser = rows(variable, group=primary, **FIRST_LEVEL)
            described = table_one.categorical(coarser, len(names), len(groups))
            return table_one.merged_entry(described, level_names=names, **named)

    def entry(variable: Variable) -> Entry:
        try:
            return continuous(variable) if variable.kind == "continuous" else counted(variable)
        except SumRefused as refusal:
            return {"variable": variable.name, "kind": variable.kind, "cohort": part, "withheld": refusal.why}

    everyone = ask(view | {"blocks": [{"terms": [variable.name for variable in study.variable]}]})
    return everyone.together([lambda variable=variable: entry(variable) for variable in study.variable])


def outcome_groups(study: Study) -> tuple[str, str]:
    """Names of the groups that Table 1 compares: without and with the primary endpoint."""
    primary = study.endpoint[study.study.primary]
    name = primary.column if primary.kind == "binary" else primary.event
    return f"no {name}", name
