"""Cohort figures: all that a paper reports of a set of models on one cohort, whoever holds it.

The coordinator runs this over masked sums. A site that holds a cohort alone runs the same over its own rows and sends the
finished figures. `ask` gives the federation of a view in either case.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.strategies import validation

Ask = Callable[[Mapping[str, Any]], Federation]


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """A model to validate: its name, its published digest, and its cut-off on the score grid (None: not chosen)."""

    name: str
    digest: str
    endpoint: str
    outcome: str
    cutoff: float | None


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """Which figures of which cohort.

    Parameters
    ----------
    part : str
        ``train``, ``internal`` or ``external``.
    of : {"final", "out_of_fold"}
        Whose scores; ``"out_of_fold"`` is the cross-validated cohort of the training part.
    where : (variable, level index) or None
        A subgroup.
    survival : mapping or None
        ``{"endpoint", "time_step", "horizon"}`` of the survival endpoint that scores are also held against.
    settings : mapping
        Arguments of `validation.Settings` without the cut-offs.
    """

    part: str
    of: str
    models: tuple[ScoredModel, ...]
    compare: tuple[tuple[str, str], ...] = ()
    where: tuple[str, float] | None = None
    survival: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "CohortSpec":
        """Undo `plain`."""
        return cls(
            **{
                **plain,
                "models": tuple(ScoredModel(**model) for model in plain["models"]),
                "compare": tuple((a, b) for a, b in plain["compare"]),
                "where": tuple(plain["where"]) if plain["where"] else None,
            }
        )

    def plain(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "part": self.part,
            "of": self.of,
            "models": [vars_of(model) for model in self.models],
            "compare": [list(pair) for pair in self.compare],
            "where": list(self.where) if self.where else None,
            "survival": dict(self.survival) if self.survival else None,
            "settings": dict(self.settings),
        }

    def rows(self, endpoint: str) -> dict[str, Any]:
        """The cohort's patients in a view."""
        return {"part": self.part, "endpoint": endpoint, **({"where": list(self.where)} if self.where else {})}


def vars_of(model: ScoredModel) -> dict[str, Any]:
    """Fields of a model."""
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


def cohort_figures(ask: Ask, spec: CohortSpec) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Figures of every model on one cohort, and the comparisons of pairs.

    Returns
    -------
    figures : model -> figures, as under COHORT in results.json
    comparisons : list, as in results.json, without ``cohort``
    """
    binary: dict[str, list[ScoredModel]] = {}
    survival: dict[str, list[ScoredModel]] = {}
    for model in spec.models:
        (binary if model.outcome == "binary" else survival).setdefault(model.endpoint, []).append(model)
    extra = spec.survival["endpoint"] if spec.survival else None
    if extra:
        known = survival.setdefault(extra, [])
        known += [model for model in spec.models if model not in known]
    figures: dict[str, dict[str, Any]] = {model.name: {} for model in spec.models}
    federation = ask(_view(spec, spec.models[0].endpoint, spec.models, "scored"))

    def of_binary(endpoint: str, models: Sequence[ScoredModel]) -> list[dict[str, Any]]:
        rows = ask(_view(spec, endpoint, models, "scored"))
        names, settings = [model.name for model in models], _settings(spec, models)
        pairs = [pair for pair in spec.compare if set(pair) <= set(names)]
        found, compared = rows.together(  # type: ignore[type-var]
            [
                lambda: validation.validate_binary(rows, names, settings),
                lambda: validation.compare(rows, names, pairs, settings) if pairs else [],
            ]
        )
        for name, values in found.items():
            figures[name] |= values
        return compared

    def of_survival(endpoint: str, models: Sequence[ScoredModel]) -> list[dict[str, Any]]:
        rows = ask(_view(spec, endpoint, models, "scored_survival"))
        names = [model.name for model in models]
        found = validation.validate_survival(rows, names, _settings(spec, models))
        for name, values in found.items():
            n_events = {key: values.pop(key) for key in ("n", "events") if key in values}
            figures[name] = {**n_events, **figures[name], "survival": values}
        return []

    tasks = [lambda e=e, m=m: of_binary(e, m) for e, m in binary.items()]
    tasks += [lambda e=e, m=m: of_survival(e, m) for e, m in survival.items()]
    try:
        comparisons = federation.together(tasks)
    except SumRefused as refusal:
        return {model.name: {"withheld": str(refusal)} for model in spec.models}, []
    return figures, [entry for compared in comparisons for entry in compared]


def _view(spec: CohortSpec, endpoint: str, models: Sequence[ScoredModel], kind: str) -> dict[str, Any]:
    view: dict[str, Any] = {
        "kind": kind,
        "rows": spec.rows(endpoint),
        "endpoint": endpoint,
        "of": spec.of,
        "models": [model.digest for model in models],
    }
    if kind == "scored_survival":
        view["time_step"] = spec.settings["time_step"]
    return view


def _settings(spec: CohortSpec, models: Sequence[ScoredModel]) -> validation.Settings:
    cutoffs = {model.name: model.cutoff for model in models if model.cutoff is not None}
    binary = {name: value for name, value in spec.settings.items() if name not in ("time_step", "horizon")}
    return validation.Settings(**{**binary, "cutoffs": cutoffs})  # type: ignore[arg-type]
