"""Model checks: what a [model.NAME] of the rarer kinds must agree on with the study's variables and privacy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cohortium.common.declared_files import Mistake, nearest, shown
from cohortium.common.study_data import level_text
from cohortium.common.study_models import GradientBoostingModel, StagingModel

if TYPE_CHECKING:
    from cohortium.common.study import Study

BINARY_KINDS = dict.fromkeys(("mlp", "linear_svm", "rff_svm", "gradient_boosting"), "binary")
"""Kinds that need a binary endpoint; staging takes either."""


def model_mistakes(study: "Study") -> Iterator[Mistake]:
    """Points that belong to no level, and children of trees below minimum_count."""
    for name, model in study.model.items():
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
