"""Fit: every model of the study, every replicate of it, each model after those whose scores it uses.

All replicates of all models of one level run side by side, so that a level costs as many rounds as its longest fit.
"""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import NotIdentifiable, StudyError
from cohortium.common.heads import Head
from cohortium.common.study_analysis import CoxModel, LassoModel, LogisticModel, NetworkModel
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Column, Columns, joined, varying
from cohortium.server.stages.preprocess import Preprocessed, preprocess
from cohortium.server.stages.replicates import levels, replicates
from cohortium.server.stages.select import select
from cohortium.strategies import cox, fedavg, lasso, logistic, moments, views
from cohortium.strategies.cohort_figures import time_step

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fitted replicate.

    `published` is what a site scores with (recipe and coefficients, on the standardised scale, intercept first; or a
    head's weights). `estimates` is for people: terms, estimates and covariance in study units, empty for networks.
    `notes` are for the report; ``"left_out"`` names candidates of one value only, or known in too few.
    """

    columns: Columns
    published: dict[str, Any]
    terms: tuple[str, ...] = ()
    estimates: Array = field(default_factory=lambda: np.empty(0))
    covariance: Array | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """A model with all its replicates: its public name on the wire, and its final fit."""

    digest: str
    final: Fit
    replicates: dict[tuple[int, ...], Fit]


def fit_models(federation: StudyFederation) -> dict[str, FittedModel]:
    """Fit all models of the study.

    Raises
    ------
    NotIdentifiable
        Names the model and, for a cross-validation replicate, the folds it was fitted without.
    """
    study = federation.study
    needed = replicates(study)
    learned = _preprocess_all(federation, needed)
    fitted: dict[str, FittedModel] = {}
    for level in levels(study):
        jobs = [(name, without) for name in level for without in needed[name]]
        with federation.progress.stage(f"fit {', '.join(level)}", total=len(jobs)) as step:

            def run(name: str, without: tuple[int, ...]) -> Fit:
                result = _fit_one(federation, name, without, learned[without], fitted)
                step.advance()  # the tasks end before the next level begins
                return result

            fits = federation.together([lambda job=job: run(*job) for job in jobs])
        for name in level:
            mine = {without: fit for (owner, without), fit in zip(jobs, fits, strict=True) if owner == name}
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
            )
    return fitted


def _preprocess_all(
    federation: StudyFederation, needed: dict[str, list[tuple[int, ...]]]
) -> dict[tuple[int, ...], Preprocessed]:
    """What each replicate's models need, learned side by side."""
    study = federation.study
    wanted: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for name, found in needed.items():
        for without in found:
            variables, features = wanted.setdefault(without, ([], []))
            variables += [v for v in study.model[name].variables if v not in variables]
            features += [f for f in study.model[name].feature_sets if f not in features]
    with federation.progress.stage("standardise, fill, harmonise", total=len(wanted)) as step:

        def run(without: tuple[int, ...]) -> Preprocessed:
            result = preprocess(federation, without, *wanted[without])
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
    model = federation.study.model[name]
    rows = {
        "part": "train",
        "without": list(without),
        "endpoint": model.endpoint,
        "patients": learned.patients,  # public by now; the sites hold the number of columns against it
    }
    columns = joined([])
    try:
        candidates = _candidates(federation, name, rows, learned, fitted)
        columns, path = select(federation, model, rows, varying(candidates), learned.patients)
        if not len(columns) and model.kind in NEEDS_PREDICTORS:
            raise NotIdentifiable(
                f"no predictor is left for a {model.kind} model: all have one value in the training patients, or the "
                "selection keeps none; loosen the selection or name other predictors"
            )
        fit = FITTERS[model.kind](federation, name, rows, columns, path)
        left_out = [name for name, scale in zip(candidates.names, candidates.scale, strict=True) if not scale > 0]
        return replace(fit, notes={**fit.notes, "left_out": left_out}) if left_out else fit
    except NotIdentifiable as problem:
        where = f" without fold {' and '.join(map(str, without))}" if without else ""
        message = f"study.toml [model.{name}]{where}: {problem}"
        for index, column in reversed(list(enumerate(columns.names))):
            message = message.replace(f"column {index} ", f"{column} ")
        raise NotIdentifiable(message) from problem


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


def _labelled(rows: dict[str, Any], columns: Columns, **more: Any) -> dict[str, Any]:
    return {"kind": "labelled", "rows": rows, "endpoint": rows["endpoint"], **columns.recipe, **more}


def in_study_units(columns: Columns, coefficients: Array, covariance: Array) -> tuple[Array, Array]:
    """Coefficients (intercept first) and covariance of the raw columns, from those of the standardised ones."""
    back = np.eye(len(coefficients))
    back[1:, 1:] = np.diag(1 / columns.scale)
    back[0, 1:] = -columns.centre / columns.scale
    return back @ coefficients, back @ covariance @ back.T


def _fit_logistic(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    model = cast(LogisticModel, federation.study.model[name])
    if model.aggregation != "exact":
        raise StudyError(
            f'study.toml [model.{name}] aggregation = "fedavg" is not available in this version; use "exact"'
        )
    fit = logistic.fit(federation.rows(_labelled(rows, columns)), len(columns), names=columns.names)
    estimates, covariance = in_study_units(columns, fit.coefficients, fit.covariance)
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": fit.coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        covariance=covariance,
        notes={"log_likelihood": float(fit.log_likelihood), "patients": int(fit.patients), **_path_notes(path)},
    )


def _fit_lasso(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    model = cast(LassoModel, federation.study.model[name])
    if model.aggregation != "exact":
        raise StudyError(
            f'study.toml [model.{name}] aggregation = "fedavg" is not available in this version; use "exact"'
        )
    path = lasso.fit(
        federation.rows(_labelled(rows, columns, inner_folds=model.folds)),
        len(columns),
        n_lambda=model.n_lambda,
        folds=model.folds,
        rule=model.lambda_,
    )
    kept = path.selected
    columns, coefficients = columns.take(kept), path.chosen[np.concatenate([[0], kept + 1])]
    estimates, _ = in_study_units(columns, coefficients, np.zeros((len(coefficients),) * 2))
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": coefficients},
        terms=("(Intercept)", *columns.names),
        estimates=estimates,
        notes=_path_notes(path),
    )


def _path_notes(path: Any) -> dict[str, Any]:
    """What the report says of a LASSO path: the chosen lambda and the cross-validated deviance."""
    if path is None:
        return {}
    return {
        "lambda": float(path.lambdas[path.index]),
        "path": {
            "lambda": path.lambdas.tolist(),
            "nonzero": np.count_nonzero(path.coefficients[:, 1:], axis=1).tolist(),
            "cv_deviance": path.cv_deviance.tolist(),
            "cv_deviance_se": path.cv_se.tolist(),
        },
    }


def _fit_cox(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    del path
    study, model = federation.study, cast(CoxModel, federation.study.model[name])
    # each site's own baseline needs no common time grid: nothing of single times leaves the site
    step = time_step(study, model.endpoint) if model.strata == "none" else None
    view = {"kind": "survival", "rows": rows, "endpoint": model.endpoint, "time_step": step, **columns.recipe}
    fit = cox.fit(federation.rows(view), len(columns), ties=model.ties, strata=model.strata, time_step=step)
    # a Cox model has no intercept: its score is the linear predictor of the raw columns (study-format: Score)
    uncentred = float(np.sum(fit.coefficients * columns.centre / columns.scale))
    notes: dict[str, Any] = {
        "log_likelihood": fit.log_likelihood,
        "ties": model.ties,
        "strata": model.strata,
        "events": fit.events,
    }
    if fit.baseline is not None:
        hazard = fit.baseline.cumulative_hazard * np.exp(-uncentred)  # of a patient with score 0
        notes["baseline"] = {"time": fit.baseline.time.tolist(), "cumulative_hazard": hazard.tolist()}
    return Fit(
        columns=columns,
        published={**columns.recipe, "coefficients": np.concatenate([[uncentred], fit.coefficients])},
        terms=columns.names,
        estimates=fit.coefficients / columns.scale,
        covariance=fit.covariance / np.outer(columns.scale, columns.scale),
        notes=notes,
    )


def _fit_network(federation: StudyFederation, name: str, rows: dict[str, Any], columns: Columns, path: Any) -> Fit:
    del path
    model = cast(NetworkModel, federation.study.model[name])
    head = Head(inputs=len(columns), hidden=tuple(model.head))
    trained = fedavg.fit(
        federation.rows(_labelled(rows, columns)),
        head,
        seed=federation.study.study.seed,
        rounds=model.rounds,
        local_epochs=model.local_epochs,
        batch_size=model.batch_size,
        optimizer=model.optimizer,
        learning_rate=model.learning_rate,
        class_weight=model.class_weight,
        patience=model.patience,
    )
    return Fit(
        columns=columns,
        published={**columns.recipe, "head": list(model.head), "weights": trained.weights},
        notes={"loss": list(trained.losses), "shares": list(trained.shares), "rounds": len(trained.losses)},
    )


NEEDS_PREDICTORS = ("cox", "network")  # the others have an intercept to fall back on
FITTERS = {"logistic": _fit_logistic, "lasso": _fit_lasso, "cox": _fit_cox, "network": _fit_network}
