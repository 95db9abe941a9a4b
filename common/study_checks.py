"""Study checks: what several tables of study.toml must agree on: names that exist, kinds that fit, no circles."""

import graphlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cohortium.common.declared_files import Mistake, nearest, shown
from cohortium.common.model_checks import BINARY_KINDS, continuous_mistakes, model_mistakes
from cohortium.common.privacy_checks import noised_mistakes
from cohortium.common.study_analysis import Screen
from cohortium.common.study_data import level_text
from cohortium.common.study_images import RingRegion
from cohortium.common.study_networks import ModelRegion

if TYPE_CHECKING:
    from cohortium.common.study import Study

ENDPOINT_KIND = {"logistic": "binary", "network": "binary", "cox": "survival", "linear": "continuous", **BINARY_KINDS}
"""Kinds of model that need one kind of endpoint; a lasso and a staging system take any."""
SURVIVAL_SELECTION = ("screen", "icc", "lasso", "stepwise_aic", "stepwise_p")
LEAST_REPLICATES = 100
RESERVED_NAMES = ("patient_id", "part", "fold")


def cross_checks(study: "Study") -> list[Mistake]:
    """All mistakes between tables, in the order of the file."""
    checks = (
        *(
            _variables,
            _endpoints,
            _regions,
            _grids,
            _features,
            _harmonise,
            _models,
            _stack,
            _validation,
            _privacy,
            _quorum,
        ),
        *(_imputation, _drawn, noised_mistakes, model_mistakes, continuous_mistakes),
    )
    return [mistake for check in checks for mistake in check(study)]


def _unknown(table: str, key: str, names: Iterable[str], known: Iterable[str], what: str) -> Iterator[Mistake]:
    known = tuple(known)
    for name in names:
        if name not in known:
            yield Mistake(table, f"{key} = {shown(name)}", f"no such {what}; {nearest(name, known)}")


def _variables(study: "Study") -> Iterator[Mistake]:
    for name, times in Counter(variable.name for variable in study.variable).items():
        if times > 1:
            yield Mistake(f"[[variable]] {name!r}", "name", f"is given {times} times; keep one")
        if name in RESERVED_NAMES:
            yield Mistake(f"[[variable]] {name!r}", "name", "is a column of our own; choose another name")


def _endpoints(study: "Study") -> Iterator[Mistake]:
    yield from _unknown("[study]", "primary", [study.study.primary], study.endpoint, "endpoint")


def _regions(study: "Study") -> Iterator[Mistake]:
    for name, region in study.region.items():
        if isinstance(region, RingRegion):
            solid = [other for other, r in study.region.items() if not isinstance(r, RingRegion)]
            yield from _unknown(f"[region.{name}]", "of", [region.of], solid, "region to lay a ring around")


def _grids(study: "Study") -> Iterator[Mistake]:
    for name, image in study.image.items():
        if image.grid is not None:
            own = [other for other, i in study.image.items() if i.grid is None]
            yield from _unknown(f"[image.{name}]", "grid", [image.grid], own, "image with a grid of its own")


def _features(study: "Study") -> Iterator[Mistake]:
    for name, features in study.features.items():
        yield from _unknown(f"[features.{name}]", "images", features.images, study.image, "image")
        yield from _unknown(f"[features.{name}]", "regions", features.regions, study.region, "region")


def _harmonise(study: "Study") -> Iterator[Mistake]:
    if study.harmonise is None:
        return
    yield from _unknown("[harmonise]", "features", study.harmonise.features, study.features, "feature set")
    yield from _unknown("[harmonise]", "protect", study.harmonise.protect, study.variables, "variable")


def _imputation(study: "Study") -> Iterator[Mistake]:
    chained = {name for name, variable in study.variables.items() if variable.missing == "chained"}
    if study.imputation is None:
        return
    if not chained:
        yield Mistake("[imputation]", "cycles, imputations", 'no variable has missing = "chained"; leave the table out')
    if study.imputation.imputations == 1:
        return
    key = f"imputations = {study.imputation.imputations}"
    for name, model in study.model.items():
        if not chained & set(model.variables):
            continue
        plain = model.kind in ("logistic", "cox", "linear") and getattr(model, "aggregation", "exact") == "exact"
        usual = {getattr(model, key, "none") for key in ("penalty", "site_effects", "proportional_hazards")} == {"none"}
        if not (plain and usual and getattr(model, "tests", "wald") == "wald"):
            problem = f"several fits of {name!r} cannot be pooled by Rubin's rules; use 1, or a plain logistic, Cox or "
            problem += "linear model"
            yield Mistake("[imputation]", key, problem)
        elif model.selection:
            problem = f"model {name!r} could select other columns in each; use 1, or name its predictors"
            yield Mistake("[imputation]", key, problem)


def _models(study: "Study") -> Iterator[Mistake]:
    outcome_columns = {column for endpoint in study.endpoint.values() for column in endpoint.columns}
    for name, model in study.model.items():
        table = f"[model.{name}]"
        yield from _unknown(table, "endpoint", [model.endpoint], study.endpoint, "endpoint")
        endpoint = study.endpoint.get(model.endpoint)
        needed = ENDPOINT_KIND.get(model.kind, endpoint.kind if endpoint is not None else "")
        if endpoint is not None and endpoint.kind != needed:
            problem = (
                f"is a {endpoint.kind} endpoint, a {model.kind} model needs a {needed} one; change kind or endpoint"
            )
            yield Mistake(table, f"endpoint = {shown(model.endpoint)}", problem)
        known = (
            *study.variables,
            *(f"features.{other}" for other in study.features),
            *(f"model.{other}" for other in study.model if other != name),
        )
        yield from _unknown(table, "predictors", model.predictors, known, "predictor")
        for predictor in model.predictors:
            if predictor in outcome_columns:
                problem = "is the column of an endpoint: the outcome cannot predict itself; remove it"
                yield Mistake(table, f"predictors = {shown(predictor)}", problem)
        for i, step in enumerate(model.selection):
            if endpoint is not None and endpoint.kind == "survival" and step.method not in SURVIVAL_SELECTION:
                problem = (
                    'works on binary endpoints; of a survival endpoint screen (test = "cox"), lasso or stepwise select'
                )
                yield Mistake(table, f"selection[{i + 1}] = {shown(step.method)}", problem)
            elif (
                endpoint is not None
                and isinstance(step, Screen)
                and (step.test == "cox") != (endpoint.kind == "survival")
            ):
                problem = (
                    f'{"needs" if step.test == "cox" else "does not work on"} a survival endpoint; its test is "cox"'
                )
                yield Mistake(table, f"selection[{i + 1}].test = {shown(step.test)}", problem)
    yield from _circles(study)


def _circles(study: "Study") -> Iterator[Mistake]:
    try:
        graphlib.TopologicalSorter({name: m.models_below for name, m in study.model.items()}).prepare()
    except graphlib.CycleError as circle:
        path = " -> ".join(reversed(circle.args[1]))
        yield Mistake(f"[model.{circle.args[1][-1]}]", "predictors", f"the models use each other: {path}; remove one")


def _stack(study: "Study") -> Iterator[Mistake]:
    """Out-of-fold inputs leave one more fold out at each level below; some fold must remain to fit on."""
    folds = study.split.folds
    if any(_circles(study)) or folds is None:
        return
    left_out = dict.fromkeys(study.model, 1)
    for name in reversed(study.model_order):
        if name not in study.model:  # a predictor that is no model is told as such
            continue
        model = study.model[name]
        for below in set(model.models_below) & set(left_out):
            left_out[below] = max(left_out[below], left_out[name] + (model.stack == "out_of_fold"))
    deepest = max(left_out, key=lambda name: left_out[name])
    if left_out[deepest] >= folds:
        problem = (
            f"model {deepest!r} lies so far below others that its fits leave out {left_out[deepest]} folds; use "
            f'{left_out[deepest] + 1} or more, or stack = "apparent" above it'
        )
        yield Mistake("[split]", f"folds = {folds}", problem)


def _validation(study: "Study") -> Iterator[Mistake]:
    table, validation = "[validation]", study.validation
    for a, b in validation.compare:
        yield from _unknown(table, "compare", [a, b], study.model, "model")
        if sum({a, b} == set(pair) for pair in validation.compare) > 1:
            problem = "is named more than once, and each time counts in the correction of p for many comparisons"
            yield Mistake(table, f"compare = {shown((a, b))}", f"{problem}; name it once")
        if a == b:
            yield Mistake(table, f"compare = {shown((a, b))}", "compares a model with itself; name two models")
        elif a in study.model and b in study.model and study.model[a].endpoint != study.model[b].endpoint:
            yield Mistake(
                table, f"compare = {shown((a, b))}", "the models have different endpoints; compare within one"
            )
    if 0 < validation.bootstrap < LEAST_REPLICATES:
        problem = f"too few for an interval; take {LEAST_REPLICATES} or more, 1000 is usual"
        yield Mistake(table, f"bootstrap = {validation.bootstrap}", problem)
    if validation.optimism and study.split.folds is None:
        yield Mistake(table, "optimism = true", "is found by cross-validation, and there is none; give [split] folds")
    primary = study.endpoint.get(study.study.primary)
    if validation.cutoff == "youden" and primary is not None and primary.kind == "survival":
        problem = 'needs a binary primary endpoint; use "median" or a number'
        yield Mistake(table, "cutoff = 'youden'", problem)
    if validation.cutoff == "log_rank" and primary is not None and primary.kind != "survival":
        yield Mistake(table, "cutoff = 'log_rank'", 'needs a survival primary endpoint; use "youden" or a number')
    binary = primary is not None and primary.kind == "binary"
    if binary and isinstance(validation.cutoff, int | float) and not 0 <= validation.cutoff <= 1:
        problem = "is no probability, and nobody or everybody would reach it; give one from 0 to 1"
        yield Mistake(table, f"cutoff = {validation.cutoff}", problem)
    grouped = [name for name, variable in study.variables.items() if variable.kind != "continuous"]
    yield from _unknown(table, "subgroups", validation.subgroups, grouped, "binary or categorical variable")
    yield from _unknown(table, "logrank_strata", validation.logrank_strata, grouped, "binary or categorical variable")
    if validation.logrank_strata and all(endpoint.kind != "survival" for endpoint in study.endpoint.values()):
        problem = "needs a survival endpoint; name one under [endpoint.NAME], or remove the key"
        yield Mistake(table, f"logrank_strata = {shown(validation.logrank_strata)}", problem)
    if validation.updating == "refit":
        refitted = [m for m in study.model.values() if m.kind in ("logistic", "lasso")]
        binary = any(getattr(study.endpoint.get(m.endpoint), "kind", "") == "binary" for m in refitted)
        if not (binary and study.split.external):
            problem = "needs external sites, and a logistic model or LASSO of a binary endpoint; remove it"
            yield Mistake(table, "updating = 'refit'", problem)
    if validation.survival is not None:
        times = [name for name, endpoint in study.endpoint.items() if endpoint.kind == "survival"]
        yield from _unknown(table, "survival", [validation.survival], times, "survival endpoint")
    for i, analysis in enumerate(validation.analysis):
        table = f"[[validation.analysis]] {i + 1}"
        yield from _unknown(table, "model", [analysis.model], study.model, "model")
        yield from _unknown(table, "endpoint", [analysis.endpoint], study.endpoint, "endpoint")
        yield from _unknown(table, "where", analysis.where, grouped, "binary or categorical variable")
        if len(analysis.where) > 1:
            named = ", ".join(analysis.where)
            yield Mistake(table, f"where = {shown(named)}", "a subset is one level of one variable; name one")
        for name, level in analysis.where.items():
            if name in grouped:
                levels = study.variables[name].level_index
                yield from _unknown(table, f"where.{name}", [level_text(level)], levels, "level")


def _privacy(study: "Study") -> Iterator[Mistake]:
    minimum, train = study.privacy.minimum_sites, study.split.train
    if len(train) < minimum:
        least = 3 if study.privacy.secure_aggregation else 1
        problem = (
            f"{len(train)} training sites, but minimum_sites = {minimum}; add sites or lower minimum_sites "
            f"({least} at least)"
        )
        yield Mistake("[split]", f"train = {shown(train)}", problem)
    elif study.validation.leave_one_site_out and len(train) <= minimum:
        problem = (
            f"leaves {len(train) - 1} of {len(train)} training sites, and minimum_sites = {minimum}; it needs "
            f"{minimum + 1} training sites or more"
        )
        yield Mistake("[validation]", "leave_one_site_out = true", problem)


def _quorum(study: "Study") -> Iterator[Mistake]:
    yield from _unknown("[federation]", "quorum", study.federation.quorum, study.sites, "site of the study")


def _drawn(study: "Study") -> Iterator[Mistake]:
    """Regions that a network draws: on an image of its own grid, and measured on that grid only."""
    own = [name for name, image in study.image.items() if image.grid is None]
    for name, region in study.region.items():
        if not isinstance(region, ModelRegion):
            continue
        table = f"[region.{name}]"
        yield from _unknown(table, "image", [region.image], own, "image with a grid of its own")
        if region.window_hu is not None and region.image in own and study.image[region.image].modality != "CT":
            yield Mistake(table, "window_hu", f"belongs to CT, and image {region.image!r} is none; use normalise")
        for features, settings in study.features.items():
            used = [r for r in settings.regions if getattr(study.region.get(r), "of", r) == name]
            for image in settings.images if used else ():
                if image in study.image and (study.image[image].grid or image) != region.image:
                    problem = (
                        f"region {used[0]!r} is drawn on image {region.image!r}; give [image.{image}] "
                        f"grid = {region.image!r}, or leave it out"
                    )
                    yield Mistake(f"[features.{features}]", f"images = {image!r}", problem)
