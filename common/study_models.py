"""Study models: the tables of study.toml of classifiers, and all kinds of [model.NAME] as one type."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cohortium.common.study_analysis import CoxModel, LassoModel, LogisticModel, ModelTable, NetworkModel
from cohortium.common.study_data import Positive

Number = Annotated[float, Field(ge=-1e6, le=1e6)]
MOST_COLUMNS = 100
"""Columns that boosting takes: each has a histogram in every sum."""
Hidden = tuple[Annotated[int, Field(ge=1, le=256)], ...]


class MlpModel(ModelTable):
    """[model.NAME] of kind mlp: a small tanh network on full-batch gradient sums, equal to pooled training."""

    kind: Literal["mlp"]
    hidden: Annotated[Hidden, Field(max_length=3)] = (8,)
    optimizer: Literal["lbfgs", "adam", "sgd"] = "lbfgs"
    learning_rate: Positive = 0.02
    iterations: Annotated[int, Field(ge=1, le=1000)] = 40
    l2: Annotated[float, Field(ge=0, le=1e3)] = 0.01


class StagingModel(ModelTable):
    """[model.NAME] of kind staging: a score that existed before; nothing is fitted.

    `points` of each predictor: a number a unit, or a table of points a level (levels that are not named: 0).
    """

    kind: Literal["staging"]
    points: Annotated[dict[str, Number | dict[str, Number]], Field(min_length=1)]
    intercept: Number = 0.0

    @model_validator(mode="after")
    def _points_of_every_predictor(self) -> Self:
        if set(self.points) != set(self.predictors):
            wanting = sorted(set(self.points) ^ set(self.predictors))
            raise ValueError(f"points and predictors must name the same variables; not in both: {', '.join(wanting)}")
        return self


class LinearSvmModel(ModelTable):
    """[model.NAME] of kind linear_svm: squared hinge, as liblinear; its probability by Platt scaling."""

    kind: Literal["linear_svm"]
    C: Annotated[float, Field(gt=0, le=1e4)] = 1.0


class RffSvmModel(ModelTable):
    """[model.NAME] of kind rff_svm: a linear SVM on random Fourier features, which approximate an RBF kernel."""

    kind: Literal["rff_svm"]
    C: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    gamma: Annotated[float, Field(gt=0, le=100)] | None = Field(default=None, description="unset: 1 / columns")
    components: Annotated[int, Field(ge=2, le=2000)] = 200


class GradientBoostingModel(ModelTable):
    """[model.NAME] of kind gradient_boosting: trees on sums of gradients by bins, as xgboost's hist."""

    kind: Literal["gradient_boosting"]
    trees: Annotated[int, Field(ge=1, le=500)] = 20
    max_depth: Annotated[int, Field(ge=1, le=6)] = 3
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    l2: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    min_child_weight: Annotated[float, Field(gt=0, le=1e6)] = 5.0
    max_bin: Annotated[int, Field(ge=2, le=256)] = 32


class LinearModel(ModelTable):
    """[model.NAME] of kind linear: ordinary least squares of a continuous endpoint over all sites."""

    kind: Literal["linear"]


Model = Annotated[
    LogisticModel
    | LinearModel
    | LassoModel
    | CoxModel
    | NetworkModel
    | MlpModel
    | StagingModel
    | LinearSvmModel
    | RffSvmModel
    | GradientBoostingModel,
    Field(discriminator="kind"),
]
"""Every kind of [model.NAME]."""
