"""Model checks: what a [model.NAME] of the rarer kinds must agree on with the study's variables and privacy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cohortium.common.declared_files import Mistake, nearest, shown
from cohortium.common.study_analysis import Icc, LassoModel
from cohortium.common.study_data import ContinuousEndpoint, level_text
from cohortium.common.study_models import GradientBoostingModel, StagingModel

if TYPE_CHECKING:
    from cohortium.common.study import Study

BINARY_KINDS = dict.fromkeys(("mlp", "linear_svm", "rff_svm", "gradient_boosting"), "binary")
"""Kinds that need a binary endpoint; staging takes any."""


def model_mistakes(study: "Study") -> Iterator[Mistake]:
    """Points that belong to no level, children of trees below minimum_count, agreement of contours without any."""
    for name, model in study.model.items():
        sets = [study.features[other] for other in model.feature_sets if other in study.features]
        for i, step in enumerate(model.selection):
            if isinstance(step, Icc) and not any(getattr(features, "perturbations", 0) for features in sets):
                problem = "compares contours, and no predictor has others; give its [features.NAME] perturbations = 10"
                yield Mistake(f"[model.{name}]", f"selection[{i + 1}] = 'icc'", problem)
        if getattr(model, "intervals", "wald") == "profile" and getattr(model, "penalty", "none") != "firth":
            problem = 'is of a penalised likelihood; add penalty = "firth", or leave it out'
            yield Mistake(f"[model.{name}]", "intervals = 'profile'", problem)
        if isinstance(model, StagingModel):
            yield from _staging(study, name, model)
        if isinstance(model, GradientBoostingModel):
            least = study.privacy.minimum_count
            if 4 * model.min_child_weight < least:  # a patient weighs 1/4 at most
                problem = f"a leaf could hold fewer than minimum_count = {least} patients; use {least / 4:g} or more"
                yield Mistake(f"[model.{name}]", f"min_child_weight = {model.min_child_weight:g}", problem)


def _staging(study: "Study", name: str, model: StagingModel) -> Iterator[Mistake]:
    table = f"[model.{name}]"
    if model.selection:
        yield Mistake(table, "selection", "a score that existed before selects nothing; leave it out")
    for predictor, given in model.points.items():
        variable = study.variables.get(predictor)
        if variable is None:
            if predictor.startswith(("features.", "model.")):
                problem = "points are given to variables of the study; a feature or another model has none"
                yield Mistake(table, f"points.{predictor}", problem)
            continue  # another check names it
        levels = {} if variable.kind == "continuous" else variable.level_index
        if not isinstance(given, dict):
            if variable.kind == "categorical":
                yield Mistake(table, f"points.{predictor} = {shown(given)}", "give points a level: {level = points}")
            continue
        for level in given:
            if level not in levels:
                problem = (
                    f"no such level; {nearest(level, tuple(map(level_text, levels)))}"
                    if levels
                    else "a continuous variable has no levels; give points a unit, one number"
                )
                yield Mistake(table, f"points.{predictor}.{level}", problem)


def continuous_mistakes(study: "Study") -> Iterator[Mistake]:
    """What takes classes or times, asked of an endpoint that is a number."""
    numbers = {name for name, endpoint in study.endpoint.items() if isinstance(endpoint, ContinuousEndpoint)}
    if numbers and study.privacy.dp is not None:
        yield Mistake("[privacy.dp]", "epsilon", "is offered for binary endpoints; leave continuous ones out")
    if study.study.primary in numbers and study.ranks_table_one:
        problem = "compares the groups of a primary endpoint, and a number makes none; leave it out"
        yield Mistake("[table_one]", "rank_tests = true", problem)
    for name, model in study.model.items():
        if model.endpoint not in numbers:
            continue
        table = f"[model.{name}]"
        for i, step in enumerate(model.selection):
            if step.method not in ("lasso", "icc", "stepwise_aic", "stepwise_p"):
                problem = "compares classes; of a continuous endpoint lasso and the stepwise steps select"
                yield Mistake(table, f"selection[{i + 1}] = {shown(step.method)}", problem)
        if isinstance(model, LassoModel) and model.aggregation == "fedavg":
            yield Mistake(table, "aggregation = 'fedavg'", "averages fits of classes or times; use exact")
        if study.validation.survival is not None:
            problem = f"holds every score against times, and model {name!r} predicts a number; leave one of them out"
            yield Mistake("[validation]", f"survival = {shown(study.validation.survival)}", problem)
    for i, analysis in enumerate(study.validation.analysis):
        model = study.model.get(analysis.model)
        if model is not None and (analysis.endpoint in numbers) != (model.endpoint in numbers):
            problem = f"a number against classes or times: model {analysis.model!r} is of {model.endpoint!r}"
            yield Mistake(f"[[validation.analysis]] {i + 1}", f"endpoint = {shown(analysis.endpoint)}", problem)
