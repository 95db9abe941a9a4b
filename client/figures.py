"""Finished figures: a cohort that this site holds alone, validated here; what leaves is what a paper prints."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation, PooledSites
from cohortium.strategies import views
from cohortium.strategies.cohort_figures import CohortSpec, cohort_figures, study_settings
from cohortium.strategies.describe import describe_part

if TYPE_CHECKING:
    from cohortium.client.standing import Standing

COHORT = "figures.cohort"
TABLE = "figures.table_one"
"""Names of finished figures on an allow list."""


def finished_figures(standing: "Standing", spec: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of each cohort that is asked for, or why the guard withholds them.

    The same server halves that run over sums run here over this site's rows. How fine the figures are is the study's
    word as this site approved it, whatever the request says.
    """
    settings = study_settings(standing.study)

    def ask(view: Mapping[str, Any]) -> Federation:
        return PooledSites([views.build(view, standing.context)])

    found: dict[str, Any] = {"cohorts": {}, "table_one": []}
    for name, plain in spec["cohorts"].items():
        cohort = CohortSpec.read(plain)
        kept = {key: cohort.settings[key] for key in ("folds", "cohort")}
        cohort = replace(cohort, settings=settings | kept)
        try:
            standing.guard.finished(COHORT, cohort.rows(cohort.models[0].endpoint), standing.context)
            figures, comparisons = cohort_figures(ask, cohort)
        except SumRefused as refusal:
            figures, comparisons = {model.name: {"withheld": refusal.why} for model in cohort.models}, []
        found["cohorts"][name] = [figures, comparisons]
    for part in spec["table_one"] if standing.study.variable else ():
        try:
            standing.guard.finished(TABLE, {"part": part}, standing.context)
            entries = [standing.guard.table_entry(entry) for entry in describe_part(ask, standing.study, part)]
        except SumRefused as refusal:
            entries = [
                {"variable": variable.name, "kind": variable.kind, "cohort": part, "withheld": refusal.why}
                for variable in standing.study.variable
            ]
        found["table_one"] += entries
    return found
