"""Describe: Table 1 of one part of a study, by outcome, over whoever holds the part (see `table_one`).

What a site holds back because a group has a few missing values is asked once more, coarser: levels with missing values
counted as the first level, a continuous variable for all groups together (client/cells.py says why). Levels of which a
group has few patients are asked for all groups together, too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.common.study import Study
from cohortium.common.study_data import Variable, level_text
from cohortium.strategies import table_one

Ask = Callable[[Mapping[str, Any]], Federation]
Entry = dict[str, Any]
BLOCK = 50
"""Continuous variables that are asked for together: fewer questions, and not all asked again for a few of them."""
FIRST_LEVEL = {"fill": [0.0], "centre": [0.0], "scale": [1.0]}
"""What a view of level codes is given to count missing values as the first level."""


def describe_part(ask: Ask, study: Study, part: str) -> list[Entry]:
    """Entries of results.json's ``table_one``, in the order of the study file.

    A variable with levels is asked for by itself; continuous ones in blocks, and a block that a site holds back once
    more each by itself. A variable that has a small cell at some site is withheld as a whole, so that no margin gives
    the cell away.
    """
    groups, primary = outcome_groups(study), study.study.primary
    view = {"kind": "matrix", "rows": {"part": part, "endpoint": primary}}
    least = study.privacy.minimum_count

    def rows(*variables: Variable, **more: Any) -> Federation:
        return ask(view | {"blocks": [{"terms": [variable.name for variable in variables]}]} | more)

    everyone = rows(*study.variable)

    def measured(variables: Sequence[Variable]) -> list[Entry]:
        named = [{"variable": variable.name, "unit": variable.unit, "cohort": part} for variable in variables]
        try:
            described = table_one.continuous(
                rows(*variables, group=primary), len(variables), len(groups), ranks=study.ranks_table_one
            )
        except SumRefused:
            if len(variables) > 1:
                apart = everyone.together([lambda variable=variable: measured([variable]) for variable in variables])
                return [entry for entries in apart for entry in entries]
            described = table_one.continuous(rows(*variables), 1, 1)
            told = {} if len(groups) > 1 else {"p": table_one.ONE_GROUP}
            return [table_one.ungrouped_entry(described, minimum_count=least, **named[0]) | told]
        return [table_one.continuous_entry(described, i, groups=groups, **name) for i, name in enumerate(named)]

    def counted(variables: Sequence[Variable]) -> list[Entry]:
        (variable,) = variables
        names = [level_text(level) for level in variable.levels]
        named: dict[str, Any] = {"variable": variable.name, "kind": variable.kind, "cohort": part, "groups": groups}
        try:
            described = table_one.categorical(rows(variable, group=primary), len(names), len(groups))
            return [table_one.categorical_entry(described, 0, level_names=names, **named)]
        except SumRefused as refusal:
            why = refusal.why
        try:
            coarser = rows(variable, group=primary, **FIRST_LEVEL)
            described = table_one.categorical(coarser, len(names), len(groups))
            return [table_one.merged_entry(described, level_names=names, **named)]
        except SumRefused:
            if len(groups) == 1:
                raise
        named = named | {"groups": (table_one.EVERYONE,)}
        described = table_one.categorical(rows(variable), len(names), 1)
        entry = table_one.categorical_entry(described, 0, level_names=names, **named)
        return [entry | {"p": {"withheld": f"by outcome, {why}"}}]

    def entries(variables: Sequence[Variable]) -> list[Entry]:
        try:
            return measured(variables) if variables[0].kind == "continuous" else counted(variables)
        except SumRefused as refusal:
            names = [{"variable": variable.name, "kind": variable.kind, "cohort": part} for variable in variables]
            return [name | {"withheld": refusal.why} for name in names]

    asked = [*batched([v for v in study.variable if v.kind == "continuous"], BLOCK)]
    asked += [(variable,) for variable in study.variable if variable.kind != "continuous"]
    found = everyone.together([lambda variables=variables: entries(variables) for variables in asked])
    by_name = {entry["variable"]: entry for block in found for entry in block}
    return [by_name[variable.name] for variable in study.variable]


def batched(items: Sequence[Variable], size: int) -> Iterator[tuple[Variable, ...]]:
    """Items in tuples of `size`, the last one shorter."""
    return (tuple(items[i : i + size]) for i in range(0, len(items), size))


def outcome_groups(study: Study) -> tuple[str, ...]:
    """Names of the groups that Table 1 compares: without and with the primary endpoint; one, if that is a number."""
    primary = study.endpoint[study.study.primary]
    if primary.kind == "continuous":
        return (table_one.EVERYONE,)
    name = primary.column if primary.kind == "binary" else primary.event
    return f"no {name}", name
