"""Study analysis: the tables of study.toml that say what is computed: models, validation, privacy, federation.

The attribute names are the keys of the file (`lambda` is `lambda_`: a word of Python); see docs/study-file.md.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

from cohortium.common.study_data import Keys, Level, Name, Positive

Lambda = Literal["min", "1se"]
Folds = Annotated[int, Field(ge=2, le=50)]
# left out of the hash where it is 1: a study without it is the study it always was
Mixing = Annotated[float, Field(gt=0, le=1, exclude_if=lambda value: value == 1)]
"""Share of the L1 penalty: 1 is the LASSO, less an elastic net (glmnet: alpha; scikit-learn: l1_ratio)."""


class Screen(Keys):
    """Keep features by a univariate test: p below the bound, at most floor(N/4) of them, the strongest."""

    method: Literal["screen"]
    test: Literal["t", "mann_whitney", "auc", "cox"] = "t"
    p: Annotated[float, Field(gt=0, le=1)] = 0.05


class Correlation(Keys):
    """Of two features correlated above r, keep the one with the larger |t|."""

    method: Literal["correlation"]
    r: Annotated[float, Field(gt=0, le=1)] = 0.9
    keep: Literal["largest_t"] = "largest_t"
    coefficient: Literal["pearson", "spearman"] = Field(
        default="pearson", exclude_if=lambda value: value == "pearson", description="spearman: on binned ranks"
    )


class Mrmr(Keys):
    """Keep features that tell the classes apart and say little of each other: F over mean absolute correlation."""

    method: Literal["mrmr"]
    keep: Annotated[int, Field(ge=1, le=10_000)] = 20


class Icc(Keys):
    """Keep features that agree between contours ([features.NAME] perturbations); columns without any stay."""

    method: Literal["icc"]
    minimum: Annotated[float, Field(gt=0, lt=1)] = 0.75
    form: Literal["1,1", "2,1", "3,1"] = "1,1"


class StepwiseAic(Keys):
    """Add or remove the variable that lowers AIC most, until none does; from all of them, or forward from none."""

    method: Literal["stepwise_aic"]
    direction: Literal["both", "forward", "backward"] = "both"


class StepwiseP(Keys):
    """Add the most significant variable below `enter`, remove what rises above `remove` (likelihood-ratio tests)."""

    method: Literal["stepwise_p"]
    enter: Annotated[float, Field(gt=0, lt=1)] = 0.05
    remove: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.remove < self.enter:
            raise ValueError(f"remove = {self.remove} below enter = {self.enter} runs in circles; raise it")
        return self


class LassoSelection(Keys):
    """Keep what a LASSO path leaves, its lambda chosen by inner cross-validation."""

    model_config = ConfigDict(serialize_by_alias=True)

    method: Literal["lasso"]
    lambda_: Lambda = Field(default="min", alias="lambda")
    folds: Folds = 10
    n_lambda: Annotated[int, Field(ge=2, le=1000)] = 50
    mixing: Mixing = 1.0


def _as_table(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


Selection = Annotated[
    Screen | Correlation | Mrmr | Icc | LassoSelection | StepwiseAic | StepwiseP,
    Field(discriminator="method"),
    BeforeValidator(
        _as_table,
        json_schema_input_type=Literal["screen", "correlation", "mrmr", "icc", "lasso", "stepwise_aic", "stepwise_p"]
        | Screen
        | Correlation
        | Mrmr
        | Icc
        | LassoSelection
        | StepwiseAic
        | StepwiseP,
    ),
]


class ModelTable(Keys):
    """What every kind of [model.NAME] has.

    `predictors`: a bare name is a variable, ``features.X`` a feature set, ``model.X`` another model's linear predictor.
    `stack`: on which values of the models below it a model is fitted.
    """

    endpoint: str = Field(default="", description="unset: the study's primary endpoint")
    predictors: Annotated[tuple[str, ...], Field(min_length=1)]
    selection: tuple[Selection, ...] = ()
    stack: Literal["out_of_fold", "apparent"] = "out_of_fold"

    @field_validator("predictors")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a predictor is given twice; keep one")
        return names

    @property
    def models_below(self) -> tuple[str, ...]:
        """Models whose scores are predictors."""
        return tuple(name.removeprefix("model.") for name in self.predictors if name.startswith("model."))

    @property
    def feature_sets(self) -> tuple[str, ...]:
        """Feature sets among the predictors."""
        return tuple(name.removeprefix("features.") for name in self.predictors if name.startswith("features."))

    @property
    def variables(self) -> tuple[str, ...]:
        """Study variables among the predictors."""
        return tuple(name for name in self.predictors if "." not in name)


# left out of the hash where unused: a study without them is the study it always was
Tests = Annotated[Literal["wald", "likelihood_ratio"], Field(exclude_if=lambda value: value == "wald")]
Intervals = Annotated[Literal["wald", "profile"], Field(exclude_if=lambda value: value == "wald")]
SiteEffects = Annotated[Literal["none", "fixed", "random"], Field(exclude_if=lambda value: value == "none")]
Tau2 = Annotated[Literal["dl", "reml"], Field(exclude_if=lambda value: value == "dl")]
"""How the variance between sites is estimated: DerSimonian and Laird's moments, or restricted maximum likelihood."""
HazardsTest = Annotated[Literal["none", "identity", "log"], Field(exclude_if=lambda value: value == "none")]


class LogisticModel(ModelTable):
    """[model.NAME] of kind logistic: maximum likelihood over all sites, or local fits averaged or meta-analysed.

    `tests`: ``"likelihood_ratio"`` also refits without each variable. `site_effects`: an intercept for each site, as
    parameters (``"fixed"``) or drawn from a normal distribution (``"random"``).
    """

    kind: Literal["logistic"]
    penalty: Literal["none", "firth"] = "none"
    aggregation: Literal["exact", "fedavg", "meta"] = "exact"
    tau2: Tau2 = "dl"
    tests: Tests = "wald"
    intervals: Intervals = "wald"
    site_effects: SiteEffects = "none"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"penalty": "none", "aggregation": "exact", "site_effects": "none"}
        chosen = [f'{key} = "{getattr(self, key)}"' for key, usual in ways.items() if getattr(self, key) != usual]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are different fits; choose one, or make two models")
        if self.tau2 != "dl" and self.aggregation != "meta":
            raise ValueError(f'tau2 = "{self.tau2}" is of a meta-analysis; add aggregation = "meta", or leave tau2 out')
        if self.tests != "wald" and chosen and self.penalty == "none":
            raise ValueError(f'tests = "{self.tests}" is not offered with {chosen[0]}; use "wald"')
        return self


class LassoModel(ModelTable):
    """[model.NAME] of kind lasso: a penalised path, its lambda chosen by inner cross-validation.

    Logistic, or of a survival endpoint Cox with a baseline hazard for each site.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["lasso"]
    lambda_: Lambda = Field(default="min", alias="lambda")
    folds: Folds = 10
    n_lambda: Annotated[int, Field(ge=2, le=1000)] = 50
    mixing: Mixing = 1.0
    aggregation: Literal["exact", "fedavg"] = "exact"

    @model_validator(mode="before")
    @classmethod
    def _by_site(cls, keys: Any) -> Any:
        if isinstance(keys, dict) and "strata" in keys:
            raise ValueError(
                "strata: a Cox LASSO always has a baseline hazard for each site (its risk-set sums would give patients "
                'away); for one over all, a model of kind cox with strata = "none" and selection = ["lasso"]'
            )
        return keys


class CoxModel(ModelTable):
    """[model.NAME] of kind cox: proportional hazards; ``strata = "site"`` gives each site its own baseline."""

    kind: Literal["cox"]
    ties: Literal["efron", "breslow"] = "efron"
    strata: Literal["site", "none"] = "site"
    penalty: Literal["none", "firth"] = "none"
    tests: Tests = "wald"
    intervals: Intervals = "wald"
    proportional_hazards: HazardsTest = Field(
        default="none", description="scaled Schoenfeld residuals against time or its logarithm"
    )


class NetworkModel(ModelTable):
    """[model.NAME] of kind network: a head of fully connected layers trained by FedAvg of its weights."""

    kind: Literal["network"]
    head: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (64,)
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 20
    local_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    class_weight: Literal["none", "balanced"] = "none"
    patience: Annotated[int, Field(ge=1, le=10_000)] | None = None


def _cutoff(value: Any) -> str | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value in ("youden", "median", "log_rank") or (number and abs(value) <= 1e6):
        return value
    raise ValueError('should be "youden", "median", "log_rank" or a number')


Cutoff = Annotated[Any, PlainValidator(_cutoff, json_schema_input_type=Literal["youden", "median", "log_rank"] | float)]
Threshold = Annotated[float, Field(gt=0, lt=1)]


class Analysis(Keys):
    """[[validation.analysis]]: a model against an endpoint in a subset, ``where = {variable = level}``."""

    model: str
    endpoint: str
    where: dict[str, Level] = Field(default_factory=dict)


class Validation(Keys):
    """[validation]: which figures are asked for. An unset cutoff is youden for binary, median for survival studies."""

    compare: tuple[tuple[str, str], ...] = ()
    cutoff: Cutoff = Field(default="", description="unset: youden for a binary primary endpoint, median for survival")
    subgroups: tuple[str, ...] = ()
    survival: str | None = None
    decision_thresholds: tuple[Threshold, ...] = tuple(i / 100 for i in range(1, 100))
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 0
    explain: tuple[Literal["shap", "permutation", "nomogram"], ...] = Field(
        default=(), exclude_if=lambda value: not value
    )
    # left out of the hash where it is not asked for: a study without it is the study it always was
    calibration_slope: Literal["within_sites"] | None = Field(default=None, exclude_if=lambda value: value is None)
    leave_one_site_out: bool = Field(default=False, exclude_if=lambda value: not value)
    optimism: bool = Field(default=False, exclude_if=lambda value: not value)
    tau2: Tau2 = "dl"
    by_site: bool = Field(default=False, exclude_if=lambda value: not value)
    updating: Literal["recalibration", "refit"] = Field(
        default="recalibration",
        exclude_if=lambda value: value == "recalibration",
        description="refit: the closed test also refits logistic models and LASSOs on the external patients",
    )
    logrank_strata: tuple[str, ...] = Field(
        default=(), exclude_if=lambda value: not value, description="variables; a log-rank test stratified by each"
    )
    analysis: tuple[Analysis, ...] = ()

    @model_validator(mode="after")
    def _between_sites(self) -> Self:
        if self.tau2 != "dl" and not self.leave_one_site_out:
            raise ValueError(
                f'tau2 = "{self.tau2}" is of how sites differ; add leave_one_site_out = true, or leave it out'
            )
        return self

    @field_validator("decision_thresholds")
    @classmethod
    def _ascending(cls, thresholds: tuple[float, ...]) -> tuple[float, ...]:
        if list(thresholds) != sorted(set(thresholds)):
            raise ValueError("must ascend, each once")
        return thresholds


NoisedStatistic = Literal["levels.level_counts", "noisy_logistic.gradient", "class_histogram.patients"]


class DifferentialPrivacy(Keys):
    """[privacy.dp]: noise in every sum, a budget at every site, and nothing else of patients in any sum.

    `epsilon` and `delta` hold for one patient of one site, replaced by any other, over all sums of the study.
    `clip` is the largest Euclidean length of one patient's gradient. `accomplices` is how many sites may take their own
    noise out together with the coordinator.
    """

    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, le=0.01)]
    clip: Annotated[float, Field(gt=0, le=1000)] = 1.0
    accomplices: Annotated[int, Field(ge=0, le=1000)] = 0
    statistics: Annotated[tuple[NoisedStatistic, ...], Field(min_length=1)] = get_args(NoisedStatistic)


class Privacy(Keys):
    """[privacy]: what a site lets out; see docs/study-file.md for what minimum_count and released_numbers cover."""

    secure_aggregation: bool = True
    minimum_sites: Annotated[int, Field(ge=1, le=1000)] = 3
    minimum_count: Annotated[int, Field(ge=1, le=1000)] = 5
    score_resolution: Literal["binned", "exact"] = "binned"
    event_time_days: Annotated[int, Field(ge=1, le=3650)] = 30
    released_numbers: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    # left out of the hash where there is none: a study without it is the study it always was
    dp: DifferentialPrivacy | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _sums_hide_a_site(self) -> Self:
        if self.secure_aggregation and self.minimum_sites < 3:
            raise ValueError(
                f"minimum_sites = {self.minimum_sites}: a secure sum over fewer than 3 sites shows each its peer; use 3"
            )
        return self


class FederationOptions(Keys):
    """[federation]: patience with sites. `quorum` names the sites that must be in every round of a network's training.

    It matters where `on_departure` is ``"continue"``: all other sums, and all rounds otherwise, need every site.
    """

    round_timeout_s: Positive = 600.0
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    quorum: tuple[Name, ...] = ()
    on_departure: Literal["stop", "continue"] = "stop"
