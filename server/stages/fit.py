"""Fit: every model of the study, every replicate of it, each model after those whose scores it uses.

All replicates of all models of one level run side by side, so that a level costs as many rounds as its longest fit.
A final fit that fails stops the run; of a fit without a fold or a site, the figures that need it are withheld.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from cohortium.common.errors import NotIdentifiable, SumRefused, Undefined
from cohortium.common.study import Study
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Column, Columns, joined, varying
from cohortium.server.stages.fitted import Fit, FittedModel, Unfitted
from cohortium.server.stages.fitters import FITTERS, GIVEN, NEEDS_PREDICTORS
from cohortium.server.stages.imputed import pooled
from cohortium.server.stages.preprocess import Preprocessed, preprocess
from cohortium.server.stages.replicates import in_words, levels, replicates, stands_on
from cohortium.server.stages.select import select
from cohortium.strategies import moments, views

Made = TypeVar("Made")
FAILURES = (NotIdentifiable, SumRefused, Undefined, np.linalg.LinAlgError)
"""What a fit may end with for its patients' sake: a site's guard and numerics among them."""


def fit_models(federation: StudyFederation) -> dict[str, FittedModel]:
    """Fit all models of the study.

    Raises
    ------
    NotIdentifiable
        Names the model whose final fit has failed, or the fold of a model below it that it stands on.
    """
    study = federation.study
    needed = replicates(study)
    learned = _preprocess_all(federation, needed)
    fitted: dict[str, FittedModel] = {}
    for level in levels(study):
        jobs = [(name, without) for name in level for without in needed[name]]
        with federation.progress.stage(f"fit {', '.join(level)}", total=len(jobs)) as step:

            def run(name: str, without: tuple[int, ...]) -> Fit | Unfitted:
                known = learned[without]
                result = (
                    known
                    if isinstance(known, Unfitted)
                    else _or_why(without, lambda: _fit_one(federation, name, without, known, fitted))
                )
                step.advance()  # the tasks end before the next level begins
                return result

            fits = federation.together([lambda job=job: run(*job) for job in jobs])
        for name in level:
            ended = {without: fit for (owner, without), fit in zip(jobs, fits, strict=True) if owner == name}
            mine = {without: fit for without, fit in ended.items() if isinstance(fit, Fit)}
            fitted[name] = FittedModel(
                digest=federation.publish(
                    {
                        "name": name,
                        "outcome": study.endpoint_of(name).kind,
                        "replicates": {views.key_of(without): fit.published for without, fit in mine.items()},
                    }
                ),
                final=mine[()],
                replicates=mine,
                unfitted={without: fit for without, fit in ended.items() if isinstance(fit, Unfitted)},
            )
    return fitted


def _or_why(without: tuple[int, ...], make: Callable[[], Made]) -> Made | Unfitted:
    """What a replicate makes, or why it cannot; what the final fit cannot make stops the run."""
    try:
        return make()
    except FAILURES as problem:
        if not without:
            raise
        return Unfitted(str(problem))


def _preprocess_all(
    federation: StudyFederation, needed: dict[str, list[tuple[int, ...]]]
) -> dict[tuple[int, ...], Preprocessed | Unfitted]:
    """What each replicate's models need, learned side by side."""
    study = federation.study
    wanted: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for name, found in needed.items():
        for without in found:
            variables, features = wanted.setdefault(without, ([], []))
            variables += [v for v in study.model[name].variables if v not in variables]
            features += [f for f in study.model[name].feature_sets if f not in features]
    with federation.progress.stage("standardise, fill, harmonise", total=len(wanted)) as step:

        def run(without: tuple[int, ...]) -> Preprocessed | Unfitted:
            result = _or_why(without, lambda: preprocess(federation, without, *wanted[without]))
            step.advance()
            return result

        results = federation.together([lambda without=without: run(without) for without in wanted])
    return dict(zip(wanted, results, strict=True))


def _fit_one(
    federation: StudyFederation,
    name: str,
    without: tuple[int, ...],
    learned: Preprocessed,
    fitted: dict[str, FittedModel],
) -> Fit:
    """Fit of one replicate; of one that has several imputed data sets, their fits pooled."""
    study = federation.study
    if len(learned.imputed) == 1 or all(study.variables[v].missing != "chained" for v in study.model[name].variables):
        return _fit_columns(federation, name, without, learned, fitted)

    def on(variables: Columns) -> Fit:
        return _fit_columns(federation, name, without, replace(learned, variables=variables), fitted)

    return pooled(federation.together([lambda v=v: on(v) for v in learned.imputed]), learned.patients)


def _fit_columns(
    federation: StudyFederation,
    name: str,
    without: tuple[int, ...],
    learned: Preprocessed,
    fitted: dict[str, FittedModel],
) -> Fit:
    model = federation.study.model[name]
    rows = {
        "part": "train",
        "without": list(without),
        "endpoint": model.endpoint,
        "patients": learned.patients,  # public by now; the sites hold the number of columns against it
    }
    columns = joined([])
    try:
        _check_below(federation.study, name, without, fitted)
        candidates = _candidates(federation, name, rows, learned, fitted)
        offered = candidates if model.kind in GIVEN else varying(candidates)
        columns, path, steps = select(federation, model, rows, offered, learned.patients)
        if not len(columns) and (model.kind in NEEDS_PREDICTORS or (model.kind == "cox" and not model.selection)):
            raise NotIdentifiable(
                f"no predictor is left for a {model.kind} model: all have one value in the training patients, or the "
                "selection keeps none; loosen the selection or name other predictors"
            )
        fit = FITTERS[model.kind](federation, name, rows, columns, path)
        left_out = [name for name, scale in zip(candidates.names, candidates.scale, strict=True) if not scale > 0]
        left_out = [name for name in left_out if name not in columns.names]
        more = {"left_out": left_out, "selection": steps}
        return replace(fit, notes={**fit.notes, **{key: told for key, told in more.items() if told}})
    except FAILURES as problem:
        if not without and not isinstance(problem, NotIdentifiable):
            raise
        where = f" without {in_words(federation.study, without)}" if without else ""
        message = f"study.toml [model.{name}]{where}: {problem}"
        for index, column in reversed(list(enumerate(columns.names))):
            message = message.replace(f"column {index} ", f"{column} ")
        raise NotIdentifiable(message) from problem


def _check_below(study: Study, name: str, without: tuple[int, ...], fitted: dict[str, FittedModel]) -> None:
    """Refuse a fit whose inputs are scores of a replicate that could not be fitted."""
    for below in study.model[name].models_below:
        for needed in stands_on(study, name, without):
            if needed in fitted[below].unfitted:
                raise NotIdentifiable(
                    f"its predictor model.{below} lacks scores of patients it has not seen: "
                    f"{fitted[below].unfitted[needed].why}"
                )


def _candidates(
    federation: StudyFederation,
    name: str,
    rows: dict[str, Any],
    learned: Preprocessed,
    fitted: dict[str, FittedModel],
) -> Columns:
    """The columns of all predictors, in the order of the study file."""
    model = federation.study.model[name]
    below = [
        Column(name=f"model.{other}", variable=f"model.{other}", source=("model", fitted[other].digest, model.stack))
        for other in model.models_below
    ]
    scores = joined([])
    if below:
        blocks = [{"model": column.source[1], "stack": column.source[2]} for column in below]
        known = moments.fit(federation.rows({"kind": "matrix", "rows": rows, "blocks": blocks}), len(below))
        scores = Columns(columns=tuple(below), centre=known.mean, scale=known.sd, fill=known.mean)
    parts = []
    for predictor in model.predictors:
        kind, _, rest = predictor.rpartition(".")
        if kind == "model":
            parts.append(scores.take([model.models_below.index(rest)]))
        elif kind == "features":
            parts.append(learned.features[rest])
        else:
            at = [i for i, column in enumerate(learned.variables.columns) if column.variable == predictor]
            parts.append(learned.variables.take(at))
    return joined(parts)
