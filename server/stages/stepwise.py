"""Stepwise: a selection step that fits all candidate models of a step side by side, in the rounds of one fit.

Of an endpoint that is a number the whole search needs one sum: least squares of a subset is in the products of all.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cohortium.common.errors import NotIdentifiable
from cohortium.common.study_analysis import StepwiseAic, StepwiseP
from cohortium.common.study_models import Model
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import labelled
from cohortium.server.stages.inference import survival_view
from cohortium.server.stages.outcome import standardise
from cohortium.strategies import cox, linear, logistic, stepwise, triangle


class Kept(NamedTuple):
    """Indices of the columns that stay, and what results.json says of the way there."""

    indices: list[int]
    told: dict[str, Any]


def select(
    federation: StudyFederation, model: Model, rows: dict[str, Any], columns: Columns, step: StepwiseAic | StepwiseP
) -> Kept:
    """Search over whole variables: all columns of a variable are in a candidate, or none is."""
    names = list(dict.fromkeys(column.variable for column in columns.columns))
    of_numbers = federation.study.endpoint[model.endpoint].kind == "continuous"
    least_squares = _least_squares(federation, rows, columns) if of_numbers else None

    def fit_all(sets: Sequence[stepwise.Variables]) -> list[stepwise.Fitted | None]:
        if least_squares is not None:
            return [least_squares(some) for some in sets]
        return federation.together(
            [lambda some=some: _fit(federation, model, rows, _of(columns, some)) for some in sets]
        )

    if isinstance(step, StepwiseAic):
        found = stepwise.by_aic(fit_all, names, step.direction)
    else:
        found = stepwise.by_p(fit_all, names, enter=step.enter, remove=step.remove)
    kept = [i for i, column in enumerate(columns.columns) if column.variable in found.variables]
    return Kept(kept, {"steps": list(found.steps), "no_finite_fit": list(found.unfit)})


def _least_squares(
    federation: StudyFederation, rows: dict[str, Any], columns: Columns
) -> Callable[[stepwise.Variables], stepwise.Fitted | None]:
    """Fits of an endpoint that is a number: products of all candidates hold those of each subset, one sum in all."""
    outcome = standardise(federation, rows)
    total = federation.rows(labelled(rows, columns, **outcome.recipe)).sum(linear.cross_products)
    patients, products = int(total.patients), triangle.symmetric(total.products)
    back = patients * float(np.log(outcome.scale))  # to the likelihood of the outcome in its unit

    def fit(some: stepwise.Variables) -> stepwise.Fitted | None:
        kept = [1 + i for i, column in enumerate(columns.columns) if column.variable in some]
        inside = [0, *kept, len(columns) + 1]
        try:
            found = linear.solve(patients, products[np.ix_(inside, inside)], [columns.names[i - 1] for i in kept])
        except NotIdentifiable:
            if not kept:
                raise
            return None
        return stepwise.Fitted(found.log_likelihood - back, len(kept) + 1)

    return fit


def _of(columns: Columns, variables: stepwise.Variables) -> Columns:
    return columns.take([i for i, column in enumerate(columns.columns) if column.variable in variables])


def _fit(federation: StudyFederation, model: Model, rows: dict[str, Any], columns: Columns) -> stepwise.Fitted | None:
    """One candidate; None where it has no finite maximum."""
    width = len(columns)
    try:
        if federation.study.endpoint[model.endpoint].kind == "survival":
            view, asked = survival_view(federation.study, model, rows, columns)
            return stepwise.Fitted(cox.fit(federation.rows(view), width, **asked).log_likelihood, width)
        fit = logistic.fit(federation.rows(labelled(rows, columns)), width, names=columns.names)
        return stepwise.Fitted(fit.log_likelihood, width + 1)
    except NotIdentifiable:
        if not width:  # no event, or one class: no candidate will do better, and this says why
            raise
        return None
