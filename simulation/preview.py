"""Preview: what would leave a site in a study, found by running the study on the site's own table alone.

Nothing is sent. All stages of a run are gone through, cross-validation, sites left out, cut-offs and explanations among
them, as if every site held this one's patients: each total is this site's share as often as there are sites. So the
steps a real run takes may differ a little in number, and bins and times are not those of all patients; which statistics
leave, of which part, with how many numbers a time, and what the guard holds back, do not differ.

Of some questions a site has no patient: of parts that it does not hold, and of fits without itself. It answers them
with zeros under its masks. For the run to go on its own patients stand in, and what they would say is not counted.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from cohortium.client.guard import Guard
from cohortium.common.codec import pack
from cohortium.common.errors import CohortiumError, SumRefused
from cohortium.common.federation import DEFAULT_BOUND, Federation, PooledSites, Statistic, Sums
from cohortium.common.progress import NullProgress
from cohortium.common.study import Study
from cohortium.common.table import Table
from cohortium.server.question import Question
from cohortium.server.stages import private
from cohortium.server.stages.cohorts import cohorts, finished_at
from cohortium.server.stages.describe import describe
from cohortium.server.stages.fit import fit_models
from cohortium.server.stages.validate import validate
from cohortium.strategies import shapley, views
from cohortium.strategies.view_patients import left_out_number

Result = TypeVar("Result")
MANY = 2**31


@dataclass
class Leaving:
    """One statistic of one part: how often it is asked and what its answers hold."""

    statistic: str
    part: str
    times: int = 0
    zeros: int = 0  # answers about no patient of this site
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
    finished, stopped = list(finished_at(study, cohorts(study, ()), table.site)), ""
    rehearsal: Any = Rehearsal(study, table, allow)  # with the face of a StudyFederation
    try:
        if study.privacy.dp is not None:
            private.describe(rehearsal)
            private.validate(rehearsal, private.fit_models(rehearsal))
        else:
            describe(rehearsal)
            calls: Any = _Finished()
            validate(rehearsal, calls, fit_models(rehearsal))
    except CohortiumError as problem:
        stopped = str(problem)
    return Preview(sums=list(rehearsal.leaving.values()), finished=finished, stopped=stopped)


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
        self._context = self._of(self.table)
        self._standing_in: dict[str, views.Context] = {}
        self._known: dict[bytes, Any] = {}

    def rows(self, view: views.View) -> Federation:
        return _Watched(self, view)

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return [task() for task in tasks]

    def publish(self, content: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(pack(dict(content))).hexdigest()
        self._objects[digest] = content
        return digest

    def sum(self, what: Statistic[Sums], view: views.View, parameters: Mapping[str, Any]) -> Sums:
        """One site's share, accounted for, as often as sites hold the part; what is known already is not asked again.

        It passes the guard as it would at the door.
        """
        part = view["rows"]["part"]
        # how many patients all sites have is not known here: the rules on their number are left to the run, but for
        # the part of them that is explained, which follows from it
        patients = view["rows"].get("patients", MANY) if what.name == shapley.values.name else MANY
        view = {**view, "rows": {**view["rows"], "patients": patients}}
        question = Question(what, view, parameters, DEFAULT_BOUND, ()).digest
        if question not in self._known:
            share = self._share(what, view, parameters)
            sites = len(self.study.sites_of(part))
            self._known[question] = type(share)(*(np.asarray(values) * sites for values in share))
        return self._known[question]

    def _share(self, what: Statistic[Sums], view: views.View, parameters: Mapping[str, Any]) -> Any:
        part = view["rows"]["part"]
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
        if len(rows[0]):
            return share
        entry.zeros += 1
        return PooledSites([self._rows_standing_in(view)]).sum(what, **parameters)

    def _rows_standing_in(self, view: views.View) -> Any:
        """Rows of this site for a question that leaves the site out, or is about a part that it does not hold."""
        study, site, part = self.study, self.table.site, view["rows"]["part"]
        if site in study.sites_of(part):
            itself = left_out_number(study, site) if site in study.split.train else None
            without = [number for number in view["rows"].get("without", ()) if number != itself]
            return views.build({**view, "rows": {**view["rows"], "without": without}}, self._context)
        if part not in self._standing_in:
            elsewhere = replace(self.table, part=np.full(len(self.table), part))
            self._standing_in[part] = self._of(elsewhere)
        return views.build(view, self._standing_in[part])

    def _of(self, table: Table) -> views.Context:
        return views.Context(table=table, study=self.study, site=table.site, objects=self._objects)


@dataclass
class _Watched:
    rehearsal: Rehearsal
    view: views.View

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:  # noqa: ARG002
        return self.rehearsal.sum(what, self.view, parameters)

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return self.rehearsal.together(tasks)


class _Finished:
    """The face of `SiteCalls` for finished figures, which a rehearsal lists by name and does not compute."""

    def figures(self, site: str, spec: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        none = {"withheld": "not rehearsed"}
        cohorts = {
            name: [{model["name"]: none for model in cohort["models"]}, []] for name, cohort in spec["cohorts"].items()
        }
        return {"figures": {"cohorts": cohorts, "table_one": []}}
