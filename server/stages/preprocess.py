"""Preprocess: what standardises, fills and harmonises the columns of one replicate, from its training patients alone.

A replicate that leaves folds out learns everything anew without them, so that cross-validation is honest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.study import Study
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Column, Columns
from cohortium.server.stages.imputed import filled
from cohortium.strategies import combat, moments, quantiles, views
from cohortium.strategies.imputation import completed_moments, most_frequent


@dataclass(frozen=True, kw_only=True)
class Preprocessed:
    """Standardised candidate columns of a replicate, and its number of training patients."""

    patients: int
    variables: Columns
    imputed: tuple[Columns, ...]  # the variables, once an imputation; `variables` is the first
    features: dict[str, Columns]


def preprocess(
    federation: StudyFederation, without: tuple[int, ...], variables: Sequence[str], features: Sequence[str]
) -> Preprocessed:
    """Learn the columns of some variables and feature sets on the training patients outside some folds."""
    rows = {"part": "train", "without": list(without)}

    def feature_set(name: str) -> Columns:
        return _features(federation, rows, name)

    tasks: list[Callable[[], Any]] = [lambda: _variables(federation, rows, variables)]
    tasks += [lambda name=name: feature_set(name) for name in features]
    learned = federation.together(tasks)
    (imputed, patients), *sets = learned
    return Preprocessed(
        patients=patients, variables=imputed[0], imputed=imputed, features=dict(zip(features, sets, strict=True))
    )


def _variables(
    federation: StudyFederation, rows: dict[str, object], variables: Sequence[str]
) -> tuple[tuple[Columns, ...], int]:
    study = federation.study
    terms = [views.CONSTANT] + [term for name in variables for term in _terms(study, name)]
    medians = [name for name in variables if study.variables[name].missing == "median"]
    view = {"kind": "matrix", "rows": rows}

    def of_terms() -> moments.Moments:
        return moments.fit(federation.rows(view | {"blocks": [{"terms": terms}]}), len(terms))

    def of_medians() -> NDArray[np.float64]:
        return quantiles.fit(federation.rows(view | {"blocks": [{"terms": medians}]}), [0.5])[:, 0]

    tasks: list[Callable[[], Any]] = [of_terms, of_medians] if medians else [of_terms]
    known, *rest = federation.together(tasks)
    median = dict(zip(medians, rest[0] if medians else [], strict=True))
    patients = int(known.n[0])
    fill = np.concatenate([[1.0]] + [_fill(study, name, terms, known, median) for name in variables])
    centre, scale = completed_moments(known.n, known.mean, known.sd, fill, patients)
    columns = Columns(
        columns=tuple(
            Column(name=term, variable=term.partition("=")[0].partition(":")[0], source=("terms", term, None))
            for term in terms
        ),
        centre=centre,
        scale=scale,
        fill=fill,
    )
    every = slice(1, None)
    known = replace(known, patients=patients, n=known.n[every], mean=known.mean[every], sd=known.sd[every])
    return filled(federation, dict(rows), columns.take(range(1, len(terms))), known), patients


def _terms(study: Study, name: str) -> list[str]:
    indicator = [f"{name}:missing"] if study.variables[name].missing == "indicator" else []
    return [*study.terms(name), *indicator]


def _fill(
    study: Study, name: str, terms: list[str], known: moments.Moments, median: dict[str, float]
) -> NDArray[np.float64]:
    """What fills the gaps of one variable's terms (and of its indicator, which has none)."""
    variable = study.variables[name]
    at = [terms.index(term) for term in variable.terms]
    indicator = [0.0] if variable.missing == "indicator" else []
    if variable.missing == "median":
        values = np.array([median[name]])
    elif variable.missing == "mode":
        values = most_frequent(np.rint(known.mean[at] * known.n[at]).tolist(), float(known.n[at[0]]))
    elif variable.kind == "continuous" or variable.missing in ("mean", "chained"):  # chained: to begin with
        values = known.mean[at]
    else:  # refuse: there are no gaps; indicator: the reference level, told apart by the indicator
        values = np.zeros(len(at))
    return np.concatenate([values, indicator])


def _features(federation: StudyFederation, rows: dict[str, object], name: str) -> Columns:
    study = federation.study
    names = views.feature_columns(federation.feature_names, name)
    harmonisation = None
    block: dict[str, object] = {"features": name, "at": None, "harmonise": None}
    if study.harmonise is not None and name in study.harmonise.features:
        protect = [term for variable in study.harmonise.protect for term in study.terms(variable)]
        view = {"kind": "matrix", "rows": rows, "blocks": [block, {"terms": protect}]}
        fitted = combat.fit(federation.rows(view), len(names), len(protect))
        harmonisation = federation.publish({"combat": fitted._asdict(), "protect": protect})
        block = block | {"harmonise": harmonisation}
    known = moments.fit(federation.rows({"kind": "matrix", "rows": rows, "blocks": [block]}), len(names))
    return Columns(
        columns=tuple(
            Column(name=column, variable=column, source=("features", name, index, harmonisation))
            for index, column in enumerate(names)
        ),
        centre=known.mean,
        # a feature that one patient in four has not is no candidate: filling would make it up
        scale=np.where(known.n * 4 < 3 * known.n.max(initial=0), 0.0, known.sd),
        fill=known.mean,
    )
