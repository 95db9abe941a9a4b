"""Finished figures: a cohort that this site holds alone, validated here; what leaves is what a paper prints."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cohortium.client.left_out import COHORT
from cohortium.client.terms import check_terms
from cohortium.common.errors import SumRefused
from cohortium.common.federation import DEFAULT_BOUND, Federation, PooledSites, Statistic, Sums
from cohortium.strategies import views
from cohortium.strategies.cohort_figures import CohortSpec, cohort_figures, study_settings
from cohortium.strategies.describe import describe_part

if TYPE_CHECKING:
    from cohortium.client.standing import Standing

TABLE = "figures.table_one"
"""Beside `COHORT`, the names of finished figures on an allow list."""
FLOW = "flow"
"""Declared counts, on the site's meter."""


def finished_figures(standing: "Standing", spec: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of each cohort that is asked for, or why the guard withholds them.

    The same server halves that run over sums run here over this site's rows. How fine the figures are is the study's
    word as this site approved it, whatever the request says. Their numbers are charged to the site's meter, each
    question once.
    """
    settings = study_settings(standing.study)

    def ask(view: Mapping[str, Any]) -> Federation:
        check_terms(standing.study, COHORT, view, standing.objects)
        return PooledSites([views.build(view, standing.context)])

    found: dict[str, Any] = {"cohorts": {}, "table_one": []}
    for name, plain in spec["cohorts"].items():
        cohort = CohortSpec.read(plain)
        kept = {key: cohort.settings[key] for key in ("folds", "cohort")}
        cohort = replace(cohort, settings=settings | kept)
        try:
            for endpoint in {model.endpoint for model in cohort.models} | {
                cohort.survival or cohort.models[0].endpoint
            }:
                standing.guard.finished(COHORT, cohort.rows(endpoint), standing.context)
            figures, comparisons = cohort_figures(ask, cohort)
            charge(standing, COHORT, dict(plain), [figures, comparisons])
        except SumRefused as refusal:
            figures, comparisons = {model.name: {"withheld": refusal.why} for model in cohort.models}, []
        found["cohorts"][name] = [figures, comparisons]
    for part in spec["table_one"] if standing.study.variable else ():
        try:
            standing.guard.finished(TABLE, {"part": part}, standing.context)
            entries = describe_part(lambda view: _Guarded(standing, view), standing.study, part)
            entries = [standing.guard.table_entry(entry) for entry in entries]
            charge(standing, TABLE, part, entries)
        except SumRefused as refusal:
            entries = [
                {"variable": variable.name, "kind": variable.kind, "cohort": part, "withheld": refusal.why}
                for variable in standing.study.variable
            ]
        found["table_one"] += entries
    return found


def charge(standing: "Standing", what: str, question: Any, figures: Any) -> None:
    """Count the numbers of finished or declared figures that are about to leave; the same question is counted once.

    Raises
    ------
    SumRefused
        The study's ``released_numbers`` has no room for them; nothing was counted.
    """
    digest = hashlib.sha256(json.dumps([what, question], sort_keys=True).encode()).digest()
    standing.meter.charge({digest: numbers_of(figures)})


def numbers_of(figures: Any) -> int:
    """Numbers among plain figures; what is withheld or undefined holds none."""
    if isinstance(figures, Mapping):
        return sum(map(numbers_of, figures.values()))
    if isinstance(figures, list | tuple):
        return sum(map(numbers_of, figures))
    return int(isinstance(figures, int | float) and not isinstance(figures, bool))


class _Guarded(PooledSites):
    """A view's rows of one site as a federation of one, whose every question passes the guard as at the door."""

    def __init__(self, standing: "Standing", view: Mapping[str, Any]) -> None:
        super().__init__([views.build(view, standing.context)])
        self._standing = standing
        self._view = view

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:
        guard = self._standing.guard
        guard.question(what.name, self._view, parameters, self.sites[0])
        share = super().sum(what, bound=bound, **parameters)
        guard.cells(what.name, share)
        return share
