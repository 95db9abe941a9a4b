"""Subsets: subgroups whose figures, beside those of other cohorts of the study, would be those of a few patients.

A cohort less a large subset of it is its small rest. So of the subsets that a study names, of the whole, and of nobody,
no two may differ by fewer than minimum_count patients at a site; nor may the whole and all levels together that are
asked of a variable. Patients without a value of the variable are in the rest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.common.study_data import level_text
from cohortium.strategies import views

SCORED = ("scored", "scored_survival", "scored_competing", "predicted")
"""Kinds of view that a figure of a subgroup is made of; no model is fitted in one."""
Subset = tuple[str, float]
"""A variable and the index of one of its levels."""


def named_subsets(study: Study) -> list[Subset]:
    """Every subset that a study has figures of, in its order."""
    subgroups = [
        (name, float(index))
        for name in (*study.validation.subgroups, *study.validation.logrank_strata)
        for index in range(len(study.variables[name].levels))
    ]
    analyses = [
        (name, float(study.variables[name].level_index[level_text(level)]))
        for analysis in study.validation.analysis
        for name, level in analysis.where.items()
    ]
    return list(dict.fromkeys(subgroups + analyses))


def check_scored(statistic: str, view: Mapping[str, Any]) -> None:
    """Refuse a question about a subset that no figure of one asks: of its columns, or of it without a fold.

    Sums without each fold of many repeats are held against the patients of the whole part, of which a subset is a few.

    Raises
    ------
    SumRefused
        Names the rule.
    """
    if view["kind"] not in SCORED or view["rows"].get("without"):
        raise SumRefused(
            statistic,
            "of a subgroup only scores are judged, and in all of its patients; no fit of the study needs more",
        )


def check_named(study: Study, where: Any) -> None:
    """Refuse a subset that the study does not name; `SumRefused`."""
    variable, level = where
    if (variable, level) not in named_subsets(study):
        raise SumRefused("subgroup", "the study names no such subgroup; ask for those that the sites approved")


def check_subset(study: Study, rows: Mapping[str, Any], context: views.Context) -> None:
    """Refuse a subset that the study does not name, or that would tell of a few patients of this site.

    Parameters
    ----------
    rows : mapping
        Of the view, with ``where``.

    Raises
    ------
    SumRefused
        Names the rule; holds nothing of the patients.
    """
    check_named(study, rows["where"])
    variable, level = rows["where"]
    named, least = named_subsets(study), study.privacy.minimum_count

    def patients(subset: Subset | None) -> NDArray[np.bool_]:
        return views.selected(context, {**rows, "where": list(subset) if subset else None})

    def few(chosen: NDArray[np.bool_]) -> bool:
        return 0 < int(chosen.sum()) < least

    whole, levels = patients(None), [subset for subset in named if subset[0] == variable]
    if any(few(patients(subset)) for subset in levels):
        raise SumRefused(
            f"subgroups of {variable}", f"a site holds fewer than minimum_count = {least} patients of one of them"
        )
    rest = whole & ~np.logical_or.reduce([patients(subset) for subset in levels])
    if few(rest) and (variable, level) == levels[-1]:  # the others may leave: their rest is this one and more
        raise SumRefused(
            f"subgroups of {variable}",
            f"a site holds fewer than minimum_count = {least} patients of none of them, which the whole less all of "
            "them would be; the last one is held back",
        )
    before = named[: named.index((variable, level))]
    if any(few(patients(subset) ^ patients((variable, level))) for subset in before):
        raise SumRefused(
            f"subgroups of {variable}",
            f"at a site one of them differs from another subset of the study by fewer than minimum_count = {least} "
            "patients",
        )
