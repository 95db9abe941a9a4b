"""Preview: what would leave a site in a study, found by running the study on the site's own table alone.

Nothing is sent. Fits and figures are made of this site's patients only, so the steps a real run takes may differ a
little in number; which statistics leave, of which part, with how many numbers a time, and what the guard holds back, do
not.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from cohortium.client.guard import Guard
from cohortium.common.codec import pack
from cohortium.common.errors import CohortiumError, SumRefused
from cohortium.common.federation import DEFAULT_BOUND, Federation, PooledSites, Statistic, Sums
from cohortium.common.progress import NullProgress
from cohortium.common.study import Study
from cohortium.common.table import Table
from cohortium.server.stages import private
from cohortium.server.stages.cohorts import cohorts, finished_at
from cohortium.server.stages.describe import describe
from cohortium.server.stages.fit import fit_models
from cohortium.server.stages.validate import scored_models
from cohortium.strategies import views
from cohortium.strategies.cohort_figures import cohort_figures

Result = TypeVar("Result")
MANY = 2**31


@dataclass
class Leaving:
    """One statistic of one part: how often it is asked and what its answers hold."""

    statistic: str
    part: str
    times: int = 0
    counts: int = 0  # exact counts, in all answers together
    numbers: int = 0  # fixed-point numbers and weights
    held_back: str = ""


@dataclass
class Preview:
    """What would leave: sums, each under a mask, and finished figures; `stopped` says why a fit went no further."""

    sums: list[Leaving]
    finished: list[str]
    stopped: str = ""


def preview(study: Study, table: Table, allow: tuple[str, ...]) -> Preview:
    """Rehearse a study on one site's prepared table.

    Parameters
    ----------
    allow : tuple of str
        The site's allow list.
    """
    finished = list(finished_at(study, cohorts(study, ()), table.site))
    asked, stopped, study = study, "", _without_others(study)
    rehearsal = Rehearsal(study, table, allow)
    try:
        if study.privacy.dp is not None:
            private.describe(rehearsal)  # type: ignore[arg-type]
            private.validate(rehearsal, private.fit_models(rehearsal))  # type: ignore[arg-type]
        elif table.site in study.split.train:
            describe(rehearsal)  # type: ignore[arg-type]  # a rehearsal has the face of a StudyFederation
            fitted = fit_models(rehearsal)  # type: ignore[arg-type]
            models = scored_models(study, fitted)
            for spec in cohorts(study, models).values():
                if study.hides_its_sites(spec.part):
                    cohort_figures(rehearsal.rows, spec)
    except CohortiumError as problem:
        stopped = str(problem)
    if asked.validation.leave_one_site_out and not stopped:
        stopped = "leave_one_site_out asks all sums of fits again without each site, and heterogeneity.* of own figures"
    return Preview(sums=list(rehearsal.leaving.values()), finished=finished, stopped=stopped)


def _without_others(study: Study) -> Study:
    """The study less what a site cannot rehearse: fits without itself."""
    if not study.validation.leave_one_site_out:
        return study
    validation = study.validation.model_copy(update={"leave_one_site_out": False})
    return study.model_copy(update={"validation": validation})


@dataclass
class Rehearsal:
    """The face of a StudyFederation over one site's own rows; keeps account of what would leave."""

    study: Study
    table: Table
    allow: tuple[str, ...]
    leaving: dict[tuple[str, str], Leaving] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.feature_names = self.table.feature_names
        self.least_sites = 1  # it rehearses alone
        self.progress = NullProgress()
        self._objects: dict[str, Mapping[str, Any]] = {}
        self._guard = Guard(self.study, self.table.site, self.allow)
        self._context = views.Context(table=self.table, study=self.study, site=self.table.site, objects=self._objects)

    def rows(self, view: views.View) -> Federation:
        return _Watched(self, view)

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return [task() for task in tasks]

    def publish(self, content: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(pack(dict(content))).hexdigest()
        self._objects[digest] = content
        return digest

    def sum(self, what: Statistic[Sums], view: views.View, parameters: Mapping[str, Any]) -> Sums:
        """One site's share, accounted for; passes the guard as it would at the door."""
        part = view["rows"]["part"]
        # how many patients all sites have is not known here: the rules on their number are left to the run
        view = {**view, "rows": {**view["rows"], "patients": MANY}}
        entry = self.leaving.setdefault((what.name, part), Leaving(what.name, part))
        try:
            self._guard.admit(what.name, view, self._context)
            rows = views.build(view, self._context)
            self._guard.question(what.name, view, parameters, rows)
            share = PooledSites([rows]).sum(what, **parameters)
            self._guard.cells(what.name, share)
        except SumRefused as refusal:
            entry.held_back = refusal.why
            raise
        entry.times += 1
        for values in map(np.asarray, share):
            if values.dtype.kind in "iu":
                entry.counts += values.size
            else:
                entry.numbers += values.size
        return share


@dataclass
class _Watched:
    rehearsal: Rehearsal
    view: views.View

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:  # noqa: ARG002
        return self.rehearsal.sum(what, self.view, parameters)

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return self.rehearsal.together(tasks)
