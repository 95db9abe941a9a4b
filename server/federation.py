"""Federation of a study's sites: turns the open questions of server halves into masked sums over the sites.

Every round goes the same way. The questions that are open at the same time become one request; the journal of the run
is asked first; else every site answers with a masked buffer, and only the total is ever known here. What a site's guard
holds back is raised in the one server half that asked for it, the others go on.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cohortium.common.codec import pack
from cohortium.common.errors import SumRefused
from cohortium.common.federation import DEFAULT_BOUND, Federation, Statistic, Sums
from cohortium.common.progress import NullProgress
from cohortium.common.rounds import Rounds
from cohortium.common.study import Study
from cohortium.common.sum_layout import Layout
from cohortium.common.table import Table, perturbed
from cohortium.server.question import Question, Total
from cohortium.server.site_calls import Mode, SiteCalls
from cohortium.strategies import views
from cohortium.strategies.view_repeated import contours

Result = TypeVar("Result")
# Bytes of totals that are kept, so that asking again costs no message: histograms, which several figures are read from,
# and small ones. The terms of a solver's step are large and never asked again; all of a LASSO's would be 250 MB.
KEPT_COUNTS, KEPT_NUMBERS = 1 << 20, 1 << 16
WIDER = 2.0**8  # a number that did not fit: f loses 8 of its 40 bits at a time
WIDER_WEIGHTS = 2.0  # weights have 29 bits in all


class StudyFederation:
    """All sites of a study, behind `sum`.

    Parameters
    ----------
    study : Study
    calls : SiteCalls
        Asks the sites, keeps the journal and the cost.
    feature_names : tuple of str
        Feature columns, the same at every site.
    patients : mapping of part to int
        As many as can be in it at most, by the sites' declared figures; what is asked names it, unless more is known.
    progress : Progress
    """

    def __init__(
        self,
        study: Study,
        calls: SiteCalls,
        *,
        feature_names: tuple[str, ...],
        patients: Mapping[str, int],
        progress: NullProgress,
    ) -> None:
        self.study = study
        self.least_sites = study.privacy.minimum_sites
        self.feature_names = feature_names
        self.patients = patients
        self.progress = progress
        self.published: dict[str, bytes] = {}
        self._objects: dict[str, Mapping[str, Any]] = {}
        self._calls = calls
        self._rounds = Rounds[Question, Total](self._send)
        self._known: dict[bytes, Total] = {}
        self._nobody = views.Context(
            table=Table.empty(table_columns(study, feature_names)), study=study, site="", objects=self._objects
        )

    def rows(self, view: views.View) -> Federation:
        """The federation as one algorithm sees it: through one view."""
        rows = view["rows"]
        return _Rows(self, {**view, "rows": {"patients": self.patients[rows["part"]], **rows}})

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """As `Federation.together`."""
        return self._rounds.together(tasks)

    def publish(self, content: Mapping[str, Any]) -> str:
        """Give the sites a fitted model or a harmonisation, once; returns its digest.

        It travels with the next request.
        """
        data = pack(dict(content))
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.published:
            self._objects[digest] = content
            self.published[digest] = data
            self._calls.enclose(data)
        return digest

    def sum(self, what: Statistic[Sums], view: views.View, bound: float, parameters: Mapping[str, Any]) -> Sums:
        """Total of a statistic over a view; what was already learned is not asked again."""
        rows = views.build(view, self._nobody)
        question = Question(what, view, parameters, bound, what.local(rows, **parameters))
        if question.digest not in self._known:
            answer = self._rounds.ask(question)
            fields = [np.asarray(field) for field in answer]
            counts = all(field.dtype == np.int64 for field in fields)
            if sum(field.nbytes for field in fields) > (KEPT_COUNTS if counts else KEPT_NUMBERS):
                return answer  # type: ignore[return-value]  # the statistic's own NamedTuple
            self._known[question.digest] = answer
        return self._known[question.digest]  # type: ignore[return-value]

    def _send(self, questions: list[Question]) -> list[Total | Exception]:
        """One round: one message for the statistics, one more for network weights if there are any."""
        answers: dict[int, Total | Exception] = {}
        modes: tuple[Mode, ...] = ("whole", "survivors")
        for mode in modes:
            mine = [i for i, question in enumerate(questions) if self._calls.mode_of(question.statistic) == mode]
            if mine:
                self._one_sum(mode, {i: questions[i] for i in mine}, answers)
        return [answers[i] for i in range(len(questions))]

    def _one_sum(self, mode: Mode, open_: dict[int, Question], answers: dict[int, Total | Exception]) -> None:
        """Ask until every question has a total or a refusal."""
        sites = len(self._calls.sites)
        while open_:
            # two server halves that ask the same at the same time share one item
            items = {question.digest: i for i, question in reversed(list(open_.items()))}
            order = sorted(items.values())
            entries = []
            for i in order:
                try:
                    entries.append(open_[i].entries(sites))
                except SumRefused as refusal:  # no fixed-point step is fine enough for the bound it needs
                    answers[i] = refusal
            if any(i in answers for i in order):
                self._share_out(open_, answers)
                continue
            layout = Layout(tuple(entry for of_item in entries for entry in of_item))
            outcome = self._calls.sum(mode, [open_[i] for i in order], layout)
            for place, what, why in outcome.get("refused", ()):
                for i in [order[place]] if place is not None else order:
                    answers[i] = SumRefused(what, why)
            for place in outcome.get("overflow", ()):
                question = open_[order[place]]
                weights = question.statistic.mode == "survivors"
                question.bound *= WIDER_WEIGHTS if weights else WIDER
            if "totals" in outcome:
                arrays = iter(outcome["totals"])
                for i in order:
                    answers[i] = _shaped(open_[i].shape, arrays)
            self._share_out(open_, answers)

    @staticmethod
    def _share_out(open_: dict[int, Question], answers: dict[int, Total | Exception]) -> None:
        """Give equal questions the same answer, and forget the answered ones."""
        found = {question.digest: answers[i] for i, question in open_.items() if i in answers}
        for i, question in list(open_.items()):
            if question.digest in found:
                answers[i] = found[question.digest]
            if i in answers:
                del open_[i]


class _Rows:
    """One view of a study's sites, as `Federation`."""

    def __init__(self, federation: StudyFederation, view: views.View) -> None:
        self._federation = federation
        self._view = view

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:
        return self._federation.sum(what, self._view, bound, parameters)

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._federation.together(tasks)


def _shaped(shape: Total, arrays: Any) -> Total:
    fields = []
    for zero in map(np.asarray, shape):
        total = np.asarray(next(arrays))
        fields.append(total.reshape(zero.shape))
    return type(shape)(*fields)


def table_columns(study: Study, feature_names: tuple[str, ...]) -> list[str]:
    """Columns of a prepared table of this study, as the sites have them."""
    columns = [variable.name for variable in study.variable]
    for name, endpoint in study.endpoint.items():
        stem = f"endpoint.{name}"
        columns += [stem] if endpoint.kind != "survival" else [f"{stem}.time", f"{stem}.event"]
        columns += [f"{stem}.competing"] if getattr(endpoint, "competing", ()) else []
    others = [
        perturbed(feature, number)
        for name in study.features
        for number in range(1, contours(study, name) + 1)
        for feature in views.feature_columns(feature_names, name)
    ]
    return [*columns, *feature_names, *others]
