"""Cohort figures: all that a paper reports of a set of models on one cohort, whoever holds it.

The coordinator runs this over masked sums. A site that holds a cohort alone runs the same over its own rows and sends
the finished figures. `ask` gives the federation of a view in either case.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.common.study import Study
from cohortium.common.study_data import SurvivalEndpoint
from cohortium.strategies import heterogeneity, multiplicity, refit, stratified_log_rank
from cohortium.strategies.competing_risks import validate_competing
from cohortium.strategies.continuous_figures import validate_continuous
from cohortium.strategies.meta_analysis import Between
from cohortium.strategies.validation import compare, validate_binary
from cohortium.strategies.validation_settings import Figure, Settings
from cohortium.strategies.validation_survival import validate_survival

Ask = Callable[[Mapping[str, Any]], Federation]


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model to validate: its name, its published digest, and its cut-off on the score grid (None: not chosen).

    `baseline_survival` is that of a patient with score 0 at each horizon, `baseline_curve` the same at each of
    `time_dependent.evaluation_cells`; both empty where there is no common baseline. `log_hazard`: the score is a log
    relative hazard. `refit`: of a model that is refitted here, its columns (`refit.closed_test`).
    """

    name: str
    digest: str
    endpoint: str
    outcome: str
    cutoff: float | None
    baseline_survival: tuple[float, ...] = ()
    baseline_curve: tuple[float, ...] = ()
    log_hazard: bool = False
    refit: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """Which figures of which cohort.

    Parameters
    ----------
    part : str
        ``train``, ``internal`` or ``external``.
    of : {"final", "out_of_fold", "repeat2", ..., "left_out_site"}
        Whose scores; ``"out_of_fold"`` is the cross-validated cohort of the training part, ``"repeat2"`` that of a
        further repeat, ``"left_out_site"`` that of leave-one-site-out validation.
    where : (variable, level index) or None
        A subgroup.
    survival : str or None
        A survival endpoint that all scores are also held against.
    settings : mapping
        As `study_settings` gives them, with the ``folds`` and ``cohort`` of this one.
    without : tuple of int
        Folds whose patients are left out; the scores are then those of the replicate that has not seen them. Of sums
        only: no site is asked for finished figures of it.
    heterogeneity : int
        Fewest sites of a summary of how figures differ between sites; 0: there is none.
    tau2 : {"dl", "reml"}
        How the variance between sites is estimated in it.
    """

    part: str
    of: str
    models: tuple[ScoredModel, ...]
    compare: tuple[tuple[str, str], ...] = ()
    where: tuple[str, float] | None = None
    survival: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[int, ...] = ()
    heterogeneity: int = 0
    tau2: Between = "dl"

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "CohortSpec":
        """Undo `plain`, which is of whole cohorts: no folds are left out of it."""
        return cls(
            **{
                **plain,
                "models": tuple(ScoredModel(**model) for model in plain["models"]),
                "compare": tuple((a, b) for a, b in plain["compare"]),
                "where": tuple(plain["where"]) if plain["where"] else None,
                "without": (),
            }
        )

    def plain(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "part": self.part,
            "of": self.of,
            "models": [asdict(model) for model in self.models],
            "compare": [list(pair) for pair in self.compare],
            "where": list(self.where) if self.where else None,
            "survival": self.survival,
            "settings": dict(self.settings),
            **({"heterogeneity": self.heterogeneity} if self.heterogeneity else {}),
            **({"tau2": self.tau2} if self.tau2 != "dl" else {}),
        }

    def rows(self, endpoint: str) -> dict[str, Any]:
        """The cohort's patients in a view."""
        rows: dict[str, Any] = {"part": self.part, "endpoint": endpoint}
        rows |= {"where": list(self.where)} if self.where else {}
        return rows | ({"without": list(self.without)} if self.without else {})


def cohort_figures(ask: Ask, spec: CohortSpec) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Figures of every model on one cohort, and the comparisons of pairs.

    Returns
    -------
    figures : model -> figures, as under COHORT in results.json
    comparisons : list, as in results.json, without ``cohort``
    """
    binary: dict[str, list[ScoredModel]] = {}
    survival: dict[str, list[ScoredModel]] = {}
    continuous: dict[str, list[ScoredModel]] = {}
    kinds = {"binary": binary, "survival": survival, "continuous": continuous}
    for model in spec.models:
        kinds[model.outcome].setdefault(model.endpoint, []).append(model)
    if spec.survival:
        known = survival.setdefault(spec.survival, [])
        known += [model for model in spec.models if model not in known]
    tasks = [lambda e=e, m=m: _binary(ask, spec, e, m) for e, m in binary.items()]
    tasks += [lambda e=e, m=m: _survival(ask, spec, e, m) for e, m in survival.items()]
    tasks += [lambda e=e, m=m: _continuous(ask, spec, e, m) for e, m in continuous.items()]
    federation = ask(_view(spec, spec.models[0].endpoint, spec.models, "scored"))
    figures: dict[str, dict[str, Any]] = {model.name: {} for model in spec.models}
    comparisons: list[dict[str, Any]] = []
    for found, compared in federation.together(tasks):
        for name, values in found.items():
            figures[name] = values | figures[name]
        comparisons += compared
    return figures, comparisons


def study_settings(study: Study) -> dict[str, Any]:
    """What a study says of its figures: `validation_settings.Settings` without the cut-offs, and ``timing``.

    ``timing`` has the time grid and the horizons of each survival endpoint, in its own unit; ``competing`` names those
    with competing events.
    """
    return {
        "score_resolution": study.privacy.score_resolution,
        "minimum_count": study.privacy.minimum_count,
        "decision_thresholds": tuple(study.validation.decision_thresholds),
        # of binary models; a log-rank test needs times
        "cutoff_rule": "youden" if study.validation.cutoff == "log_rank" else study.validation.cutoff,
        "bootstrap": study.validation.bootstrap,
        "seed": study.study.seed,
        "calibration_slope": study.validation.calibration_slope,
        "folds": 1,
        "cohort": "validation",
        "timing": {
            name: {"time_step": time_step(study, name), "horizon": list(endpoint.horizon)}
            for name, endpoint in study.endpoint.items()
            if isinstance(endpoint, SurvivalEndpoint)
        },
        "competing": tuple(
            name
            for name, endpoint in study.endpoint.items()
            if isinstance(endpoint, SurvivalEndpoint) and endpoint.competing
        ),
        "updating": study.validation.updating,
        "logrank_strata": {name: len(study.variables[name].levels) for name in study.validation.logrank_strata},
    }


def time_step(study: Study, endpoint: str) -> float:
    """Width of the study's time grid in the unit of a survival endpoint."""
    return study.privacy.event_time_days / cast(SurvivalEndpoint, study.endpoint[endpoint]).days_per_unit


Found = tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]


def _binary(ask: Ask, spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel]) -> Found:
    rows = ask(_view(spec, endpoint, models, "scored"))
    names, settings = [model.name for model in models], _settings(spec, endpoint, models)
    pairs = [pair for pair in spec.compare if set(pair) <= set(names)]

    def figures() -> dict[str, dict[str, Any]]:
        return validate_binary(rows, names, settings)

    def comparisons() -> list[dict[str, Any]]:
        return compare(rows, names, pairs, settings) if pairs else []

    def between_sites() -> dict[str, dict[str, Any]]:
        return _between_sites(rows, spec, names, heterogeneity.BINARY, settings)

    def refits() -> dict[str, Figure]:
        columns = {m.name: m.refit for m in models if m.refit and spec.settings.get("updating") == "refit"}
        return refit.figures(ask, spec.rows(endpoint), columns, minimum_count=settings.minimum_count)

    asked: list[Callable[[], Any]] = [figures, comparisons, between_sites, refits]
    try:
        found, compared, spread, refitted = rows.together(asked)
    except SumRefused as refusal:
        return {name: {"withheld": str(refusal)} for name in names}, []
    for name, updated in refitted.items():
        found[name]["updating"] = refit.beside(found[name]["updating"], updated)
    return {name: {**found[name], **spread[name]} for name in names}, compared


def _continuous(ask: Ask, spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel]) -> Found:
    names = [model.name for model in models]
    pairs = [pair for pair in spec.compare if set(pair) <= set(names)]
    columns = {"pairs": [[names.index(a), names.index(b)] for a, b in pairs]}
    view, settings = _view(spec, endpoint, models, "predicted"), _settings(spec, endpoint, models)
    try:
        figures, compared = validate_continuous(ask(view | columns), names, pairs, settings)
        # sums of mean errors are in the errors' own deviation: an endpoint has any unit
        sd: list[Any] = [figures[name]["bland_altman"].get("sd") for name in names]  # type: ignore[union-attr]
        if None in sd:  # too few patients
            return figures, compared
        spread = _between_sites(ask(view), spec, names, heterogeneity.CONTINUOUS, settings, error_sd=sd)
    except SumRefused as refusal:
        return {name: {"withheld": str(refusal)} for name in names}, []
    return {name: {**figures[name], **spread[name]} for name in names}, compared


def _between_sites(
    rows: Federation,
    spec: CohortSpec,
    names: Sequence[str],
    figures: Sequence[str],
    settings: Settings,
    error_sd: Sequence[float] = (),
) -> dict[str, dict[str, Any]]:
    """How far figures differ between sites, under ``heterogeneity``; nothing where that is not asked for."""
    if not spec.heterogeneity:
        return {name: {} for name in names}
    found = heterogeneity.summarise(
        rows,
        names,
        figures,
        minimum_count=settings.minimum_count,
        minimum_sites=spec.heterogeneity,
        time_step=settings.time_step,
        log_hazards=settings.log_hazards,
        between=spec.tau2,
        error_sd=error_sd,
    )
    return {name: {"heterogeneity": found[name]} for name in names}


def _survival(ask: Ask, spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel]) -> Found:
    rows = ask(_view(spec, endpoint, models, "scored_survival"))
    names, settings = tuple(model.name for model in models), _settings(spec, endpoint, models)

    def of_the_event() -> dict[str, dict[str, Any]]:
        return validate_survival(rows, names, settings)

    def of_its_rivals() -> dict[str, dict[str, Any]]:
        if endpoint not in spec.settings.get("competing", ()):
            return {}
        return validate_competing(ask(_view(spec, endpoint, models, "scored_competing")), names, settings)

    def between_sites() -> dict[str, dict[str, Any]]:
        return _between_sites(rows, spec, names, heterogeneity.SURVIVAL, settings)

    def stratified() -> dict[str, dict[str, Any]]:
        view, levels = _view(spec, endpoint, models, "scored_survival"), spec.settings.get("logrank_strata", {})
        if spec.where or not levels:
            return {}
        strata = {
            variable: [ask(view | {"rows": {**view["rows"], "where": [variable, float(i)]}}) for i in range(many)]
            for variable, many in levels.items()
        }
        return stratified_log_rank.figures(rows, strata, names, settings)

    try:
        found, rivals, spread, strata = rows.together([of_the_event, of_its_rivals, between_sites, stratified])
    except SumRefused as refusal:
        return {model.name: {"survival": {"withheld": str(refusal)}} for model in models}, []
    figures, comparisons = {}, []
    for model in models:
        values = dict(found[model.name])
        comparisons += values.pop("compared", [])
        cohort = {key: values.pop(key) for key in ("n", "events")}
        high_risk = {} if model.cutoff is None else {"cutoff": model.cutoff}
        # of a binary model the cohort is counted by its own endpoint
        own = cohort if model.outcome == "survival" else {}
        more = {"competing_risks": rivals[model.name]} if rivals else {}
        more |= {"log_rank_stratified": strata[model.name]} if strata else {}
        figures[model.name] = {**own, "survival": {**high_risk, **values, **more, **spread[model.name]}}
    return figures, multiplicity.adjusted(comparisons) if comparisons else []


def _view(spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel], kind: str) -> dict[str, Any]:
    view: dict[str, Any] = {
        "kind": kind,
        "rows": spec.rows(endpoint),
        "endpoint": endpoint,
        "of": spec.of,
        "models": [model.digest for model in models],
    }
    if kind in ("scored_survival", "scored_competing"):
        view["time_step"] = spec.settings["timing"][endpoint]["time_step"]
    return view


def _settings(spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel]) -> Settings:
    others = ("timing", "competing", "logrank_strata", "updating")
    settings = {key: value for key, value in spec.settings.items() if key not in others}
    return Settings(
        **settings,  # type: ignore[arg-type]  # names and kinds as `Settings` has them
        **spec.settings["timing"].get(endpoint, {}),
        cutoffs={model.name: model.cutoff for model in models if model.cutoff is not None},
        baseline_survival={
            model.name: model.baseline_survival
            for model in models
            if model.baseline_survival and model.endpoint == endpoint
        },
        baseline_curve={
            model.name: model.baseline_curve for model in models if model.baseline_curve and model.endpoint == endpoint
        },
        log_hazards=tuple(model.name for model in models if model.log_hazard),
        compare=tuple(pair for pair in spec.compare if set(pair) <= {m.name for m in models if m.log_hazard}),
    )
