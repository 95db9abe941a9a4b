"""Releases: every sum that a study asks of its sites, from the study file alone, for those who approve it.

Follows the stages (describe, preprocess, select, fit, validate) as they run, without a patient. No sum of a run may be
missing here: tests/server/test_releases.py holds the ledgers of runs against it.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cohortium.common.federation import Statistic
from cohortium.common.heads import Head
from cohortium.common.privacy_plan import ROUNDS
from cohortium.common.study import Study
from cohortium.common.study_analysis import (
    Correlation,
    CoxModel,
    Icc,
    LassoModel,
    LassoSelection,
    Mrmr,
    NetworkModel,
    Screen,
    StepwiseAic,
    StepwiseP,
)
from cohortium.common.study_models import LinearModel
from cohortium.server.release_classifiers import KINDS, classifier_sums
from cohortium.server.release_explanations import explanations
from cohortium.server.release_figures import figures, resampled, timeline
from cohortium.server.release_regressions import candidates, cox_extras, logistic_fit
from cohortium.server.release_selection import agreements, equations, ranks, table_ranks
from cohortium.server.release_sizes import NOBODY, Release, Share, release
from cohortium.server.stages.cohorts import is_refitted
from cohortium.strategies import (
    class_histogram,
    combat,
    correlation,
    fedavg,
    lasso,
    lasso_cox,
    levels,
    linear,
    local_fits,
    logistic,
    moments,
    noisy_logistic,
    quantiles,
    risk_sets,
    table_one,
)
from cohortium.strategies.describe import BLOCK, outcome_groups
from cohortium.strategies.rows import FoldedSurvival, Labelled, Matrix, Scored, Survival

PARTS = ("train", "internal", "external")


def releases(study: Study) -> list[Release]:
    """Every sum of a study, part by part, in the order of the stages; equal ones once, with all their purposes."""
    found: dict[tuple[str, str, str], Release] = {}
    stages = (
        (_table_one, _preprocessing, _fits, figures, resampled, _refits) if study.privacy.dp is None else (_noised,)
    )
    for one in itertools.chain.from_iterable(stage(study) for stage in stages):
        key = (one.part, one.statistic, one.formula)
        earlier = found[key].purposes if key in found else ()
        found[key] = replace(one, purposes=tuple(dict.fromkeys((*earlier, *one.purposes))))
    return sorted(found.values(), key=lambda one: PARTS.index(one.part))


# --- Table 1 and preprocessing ------------------------------------------------------------------------------------


def _table_one(study: Study) -> Iterator[Release]:
    """By outcome; once more, coarser and each by itself, where sites hold that back for a few missing values."""
    groups = len(outcome_groups(study))
    measured = sum(variable.kind == "continuous" for variable in study.variable)
    for part in PARTS:
        if not study.hides_its_sites(part):
            continue
        blocks = {min(BLOCK, measured), measured % BLOCK} - {0}
        together = [(of, groups, "Table 1, continuous variables") for of in sorted(blocks, reverse=True)]
        few = (1, 1, "Table 1, a continuous variable of which a few values are missing")
        for columns, these, told in [*together, few] if measured else ():
            yield _moments(study, part, told, columns, these)
            yield from _quantiles(study, part, told, columns, these, len(table_one.QUARTILES))
            if study.ranks_table_one and these == 2:
                yield from table_ranks(study, part, told, columns)
        for variable in study.variable:
            if variable.kind != "continuous":
                yield _level_counts(study, part, len(variable.levels))
                if groups > 1:
                    yield _level_counts(study, part, len(variable.levels), "Table 1 where a group has a small cell", 1)


def _level_counts(study: Study, part: str, of: int, purpose: str = "Table 1", groups: int = 0) -> Release:
    sizes = {"levels": of, "groups": groups or len(outcome_groups(study))}
    return release(study, part, purpose, levels.level_counts, lambda: (_matrix(1), sizes))


def _moments(study: Study, part: str, purpose: str, columns: int, groups: int = 1, letters: str = "") -> Release:
    def share(f: int = 0) -> Share:
        return _matrix(columns + f), {"centre": np.zeros((groups, columns + f)), "power": 1}

    return release(study, part, purpose, moments.power_sums, share, letters)


def _quantiles(
    study: Study, part: str, purpose: str, columns: int, groups: int, probabilities: int
) -> Iterator[Release]:
    asked = {"groups": groups}
    cells = np.arange(groups * columns * 2 * probabilities)  # a quantile lies between two order statistics
    yield release(study, part, purpose, quantiles.top_bytes, lambda: (_matrix(columns), asked))
    within = asked | {"cells": cells, "depth": 1}
    yield release(study, part, purpose, quantiles.next_bytes, lambda: (_matrix(columns), within))


def _preprocessing(study: Study) -> Iterator[Release]:
    """What standardises, fills and harmonises the columns of the models."""
    models = study.model.values()
    variables = list(dict.fromkeys(name for model in models for name in model.variables))
    yield _moments(study, "train", "standardise variables", 1 + _width(study, variables))
    if medians := [name for name in variables if study.variables[name].missing == "median"]:
        yield from _quantiles(study, "train", "medians that fill gaps", len(medians), 1, 1)
    yield from equations(study, _width(study, variables), variables)
    for name in dict.fromkeys(name for model in models for name in model.feature_sets):
        if study.harmonise is not None and name in study.harmonise.features:
            protected = sum(len(study.terms(variable)) for variable in study.harmonise.protect)

            def within_site(f: int, c: int = protected) -> Share:
                return _matrix(f + c), {"mean": np.zeros(f + c), "sd": np.ones(f + c), "protected": c}

            yield _moments(study, "train", f"ComBat of {name}", protected, letters="f")
            yield release(study, "train", f"ComBat of {name}", combat.within_site, within_site, "f")
        yield _moments(study, "train", f"standardise {name}", 0, letters="f")
    for name, model in study.model.items():
        if model.models_below:
            yield _moments(study, "train", f"standardise the scores that {name} uses", len(model.models_below))


def _width(study: Study, variables: Sequence[str]) -> int:
    """Columns of some variables in a design."""
    return sum(len(study.terms(name)) + (study.variables[name].missing == "indicator") for name in variables)


# --- selection and fits -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Design:
    """The candidate columns of one model: those that the study names, and image features if it uses any."""

    study: Study
    columns: int
    letters: str

    def asks(self, purpose: str, what: Statistic, share: Callable[..., Share], more: str = "") -> Release:
        """A release of ``share(columns, **values of more letters)``."""

        def of_letters(f: int = 0, **values: int) -> Share:
            return share(self.columns + f, **values)

        return release(self.study, "train", purpose, what, of_letters, self.letters + more)


def _fits(study: Study) -> Iterator[Release]:
    """Selection and fit of each model; every replicate asks the same."""
    for name, model in study.model.items():
        columns = _width(study, model.variables) + len(model.models_below)
        design = _Design(study, columns, "f" if model.feature_sets else "")
        tested = False
        for step in model.selection:
            purpose = f"{step.method} for {name}"
            yield from ranks(design.asks, purpose, step)
            if (isinstance(step, Screen) and step.test == "t") or (isinstance(step, Correlation | Mrmr) and not tested):
                yield _moments(study, "train", purpose, columns, 2, design.letters)
                tested = True
            if isinstance(step, Mrmr) or (isinstance(step, Correlation) and step.coefficient == "pearson"):
                yield design.asks(purpose, correlation.cross_products, lambda p: (_labelled(p), {}))
            if isinstance(step, Icc):
                yield from agreements(study, model.feature_sets, purpose)
            if isinstance(step, LassoSelection):
                yield from _lasso(design, purpose, step, model.endpoint)
            if isinstance(step, StepwiseAic | StepwiseP):
                yield from candidates(design.asks, purpose, study.endpoint[model.endpoint].kind, model)
        yield from _fit(design, f"fit {name}", model)
        if study.validation.explain:
            yield from explanations(design, f"explain {name}", study, model.kind)


def _refits(study: Study) -> Iterator[Release]:
    """Refits of the closed test of updating on the external patients."""
    for name, model in study.model.items() if study.hides_its_sites("external") else ():
        if is_refitted(study, name):
            columns = _width(study, model.variables) + len(model.models_below)

            def share(f: int = 0, columns: int = columns) -> Share:
                return _labelled(columns + f), {"coefficients": np.zeros(columns + f + 1)}

            letters = "f" if model.feature_sets else ""
            yield release(study, "external", f"refit {name}", logistic.terms, share, letters)


def _fit(design: _Design, purpose: str, model: Any) -> Iterator[Release]:
    if isinstance(model, CoxModel):
        yield from cox_extras(design.asks, purpose, model)
    if getattr(model, "aggregation", "exact") == "fedavg":
        asked = local_fits.asked_of(model, design.study.endpoint[model.endpoint].kind)
        rows = _folded if asked["kind"] == "lasso_cox" else _labelled
        yield design.asks(f"{purpose} locally", local_fits.able, lambda p: (rows(p), asked))
        yield design.asks(f"{purpose} locally", local_fits.shares, lambda p: (rows(p), asked | {"patients": 1}))
    if isinstance(model, LinearModel):
        yield _moments(design.study, "train", f"standardise the outcome of {model.endpoint}", 1)
        yield design.asks(purpose, linear.cross_products, lambda p: (_labelled(p), {}))
    elif isinstance(model, LassoModel):
        yield from _lasso(design, purpose, model, model.endpoint)
    elif isinstance(model, NetworkModel):

        def update(p: int) -> Share:
            weights = np.zeros(Head(inputs=p, hidden=tuple(model.head)).size, np.float32)
            recipe = model.model_dump(include={"optimizer", "learning_rate", "local_epochs", "batch_size"})
            start = {"hidden": list(model.head), "patients": 1, "class_weights": [1.0, 1.0], "seed": 0}
            return _labelled(p), {"weights": weights, "round_index": 0, **start, **recipe}

        yield design.asks(purpose, fedavg.classes, lambda p: (_labelled(p), {}))
        yield design.asks(f"{purpose} in {model.rounds} rounds", fedavg.update, update)
    elif model.kind in KINDS:
        for more, what, share in classifier_sums(design.study, model):
            yield design.asks(purpose + more, what, share)
    elif isinstance(model, CoxModel) and model.strata == "site":
        asked = {"ties": model.ties, "time_step": None}
        yield design.asks(purpose, risk_sets.stratum, lambda p: (_survival(p), asked | {"coefficients": np.zeros(p)}))
    elif isinstance(model, CoxModel):

        def at_risk(p: int, t: int) -> Share:
            times = {"points": np.arange(t), "tied": np.arange(t), "time_step": 1.0}
            return _survival(p), {"coefficients": np.zeros(p), "hazard": np.zeros(t), "relief": np.zeros(t), **times}

        yield from timeline(design.study, "train", purpose, _survival(0))
        yield design.asks(purpose, risk_sets.risk_sets, at_risk, "t")
    else:
        yield from logistic_fit(design.asks, purpose, model)


def _lasso(design: _Design, purpose: str, step: LassoSelection | LassoModel, endpoint: str) -> Iterator[Release]:
    """The path and its inner cross-validation: at most every penalty of every training set, on all columns."""
    models = step.n_lambda * (step.folds + 1)

    def one_model(p: int) -> Share:
        working = np.ones((1, p + 1), dtype=bool)
        return _labelled(p), {"coefficients": np.zeros((1, p + 1)), "held_out": np.array([-1]), "working": working}

    def one_cox_model(p: int) -> Share:
        _, asked = one_model(p)
        return _folded(p), asked | {"coefficients": np.zeros((1, p)), "working": np.ones((1, p), dtype=bool)}

    if design.study.endpoint[endpoint].kind == "continuous":
        yield _moments(design.study, "train", f"standardise the outcome of {endpoint}", 1)
    if design.study.endpoint[endpoint].kind == "survival":
        yield design.asks(purpose, lasso_cox.start, lambda p: (_folded(p), {"folds": step.folds}))
        one = design.asks(purpose, lasso_cox.terms, one_cox_model)
    else:
        yield design.asks(purpose, lasso.start, lambda p: (_labelled(p), {"folds": step.folds}))
        one = design.asks(purpose, lasso.terms, one_model)
    yield replace(one, size=lambda **values: models * one.size(**values))


# --- under differential privacy -----------------------------------------------------------------------------------


def _noised(study: Study) -> Iterator[Release]:
    """The sums of a study under [privacy.dp], each noised at the sites (stages/private.py)."""
    shared = [part for part in PARTS if study.hides_its_sites(part)]
    for part in shared:
        for variable in study.variable:
            if variable.kind != "continuous":
                yield _level_counts(study, part, len(variable.levels))
    for name, model in study.model.items():
        design = _Design(study, sum(len(study.terms(variable)) for variable in model.variables), "")
        clip = study.privacy.dp.clip if study.privacy.dp else 1.0

        def step(p: int, clip: float = clip) -> Share:
            return _labelled(p), {"coefficients": np.zeros(p + 1), "clip": clip}

        yield design.asks(f"fit {name} in {ROUNDS} rounds", noisy_logistic.gradient, step)
    endpoints = Counter(model.endpoint for model in study.model.values())
    for part, models in itertools.product(shared, endpoints.values()):
        rows = Scored(np.empty((0, models)), NOBODY, NOBODY.astype(np.int64))
        cells = {"cells": class_histogram.CELLS}
        yield release(study, part, part, class_histogram.patients, lambda rows=rows, cells=cells: (rows, cells))


# --- rows without a patient -----------------------------------------------------------------------------------------


def _matrix(columns: int) -> Matrix:
    return Matrix(np.empty((0, columns)), NOBODY.astype(np.int64))


def _labelled(columns: int) -> Labelled:
    return Labelled(np.empty((0, columns)), NOBODY, NOBODY.astype(np.int64))


def _survival(columns: int) -> Survival:
    return Survival(np.empty((0, columns)), NOBODY, NOBODY)


def _folded(columns: int) -> FoldedSurvival:
    return FoldedSurvival(np.empty((0, columns)), NOBODY, NOBODY, NOBODY.astype(np.int64))
