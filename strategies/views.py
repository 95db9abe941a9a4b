"""Views: public recipes that turn a site's table into the rows an algorithm sees.

The coordinator sends a recipe, the site cooks it from its own prepared table, and the server runs the same recipe on a
table without patients to learn the shapes of the sums. A recipe is plain data (texts, numbers, arrays):

    {"kind": "labelled", "rows": {"part": "train", "without": [2]}, "endpoint": "disease", "blocks": [...], "fill": ...}

Blocks name columns: ``{"terms": ["age", "chest_pain=2"]}``, ``{"features": "radiomics", "at": indices, "harmonise":
digest}``, ``{"model": digest}``; ``{"terms": [...], "chain": digest}`` are terms whose gaps equations have filled.
What is large and used often (a harmonisation, a fitted model with the folds' models) is published once and named by its
digest.

A *replicate* of a fit is named by the cross-validation folds it has not seen: ``()`` is the final fit, ``(2,)`` the one
that predicts fold 2, ``(1, 2)`` one that gives out-of-fold inputs to a model stacked on top of it. Numbers from the
number of folds on are folds of further repeats, then sites left out (view_patients.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common import cohort
from cohortium.strategies import scoring
from cohortium.strategies.rows import (
    Array,
    FoldedSurvival,
    Labelled,
    Matrix,
    Scored,
    ScoredCompeting,
    ScoredSurvival,
    Survival,
)
from cohortium.strategies.view_patients import (
    Context,
    fold_numbers,
    folds_of,
    outcome_class,
    repeat_of,
    selected,
    site_offset,
    unseen,
)

View = Mapping[str, Any]
CONSTANT = "(Intercept)"  # a term of ones: its count is the number of patients
SCORES_PER_UNIT = 1e4  # reported scores live on a grid of 1e-4 (study-format: Score)

# --- which columns --------------------------------------------------------------------------------------------


def term_values(context: Context, term: str) -> Array:
    """One term of a design: ``age``, ``chest_pain=2`` (0/1), ``age:missing`` (0/1); (n,), NaN = missing.

    Of the study's variables only: the table also holds event times, which leave on the study's grid and no other way.
    """
    columns, variables = context.table.columns, context.study.variables
    if term == CONSTANT:
        return np.ones(len(context.table))
    if term in variables:
        return columns[term]
    if term.endswith(":missing"):
        return np.isnan(columns[variables[term.removesuffix(":missing")].name]).astype(np.float64)
    name, _, level = term.partition("=")
    index = variables[name].level_index[level]
    codes = columns[name]
    return np.where(np.isnan(codes), np.nan, (codes == index).astype(np.float64))


def feature_columns(names: Sequence[str], feature_set: str) -> list[str]:
    """The columns of one feature set, in table order."""
    return [name for name in names if name.startswith(f"features.{feature_set}/")]


def block_values(context: Context, block: Mapping[str, Any], without: tuple[int, ...], inputs: str) -> Array:
    """Columns of one block for every patient of the table, (n, p); raw units, NaN = missing."""
    if block.get("chain"):
        from cohortium.strategies import gaps  # most messages fill no gaps by equations

        return gaps.filled(context, block)
    if "terms" in block:
        parts = [term_values(context, term) for term in block["terms"]]
        return np.column_stack(parts) if parts else np.empty((len(context.table), 0))
    if "features" in block:
        name, digest = block["features"], block.get("harmonise")
        values = context.once(
            ("features", name), lambda: context.table.matrix(feature_columns(context.table.feature_names, name))
        )
        if digest:
            values = context.once(
                ("harmonised", digest, without), lambda: _harmonised(context, values, context.objects[digest], without)
            )
        return values if block.get("at") is None else values[:, np.asarray(block["at"], dtype=np.int64)]
    if inputs == "out_of_fold" and block.get("stack", "out_of_fold") == "out_of_fold":
        return out_of_fold(context, block["model"], without)[:, None]
    return linear_predictor(context, block["model"], without)[:, None]


def _harmonised(context: Context, values: Array, published: Mapping[str, Any], without: tuple[int, ...]) -> Array:
    """ComBat with this site's own location and scale, estimated on its training patients of the replicate.

    A site that trains nothing estimates them on its own patients against the frozen grand mean and variance.
    """
    from cohortium.strategies import combat  # most messages need no harmonisation

    training = selected(context, {"part": "train", "without": list(without)})
    if not training.any():
        training = np.ones(len(context.table), dtype=bool)
    protect = block_values(context, {"terms": published["protect"]}, without, "final")
    return combat.harmonise(values, protect, training, combat.Combat(**published["combat"]))


def width(context: Context, blocks: Sequence[Mapping[str, Any]]) -> int:
    """Number of columns of a list of blocks."""
    return raw_design(context, blocks, (), "final").shape[1]


def raw_design(context: Context, blocks: Sequence[Mapping[str, Any]], without: tuple[int, ...], inputs: str) -> Array:
    """Blocks side by side for every patient of the table, (n, p); NaN = missing."""
    parts = [block_values(context, block, without, inputs) for block in blocks]
    return np.hstack(parts) if parts else np.empty((len(context.table), 0))


def design(context: Context, recipe: Mapping[str, Any], without: tuple[int, ...], inputs: str) -> Array:
    """Filled and standardised columns for every patient of the table, (n, p), no NaN."""
    raw = raw_design(context, recipe["blocks"], without, inputs)
    filled = np.where(np.isnan(raw), recipe["fill"], raw)
    return (filled - recipe["centre"]) / recipe["scale"]


# --- scores ---------------------------------------------------------------------------------------------------


def key_of(without: Sequence[int]) -> str:
    """Name of a replicate: the folds, or the site, it has not seen."""
    return ",".join(str(fold) for fold in sorted(without))


def linear_predictor(context: Context, model: str, without: tuple[int, ...] = ()) -> Array:
    """Linear predictor of a published model's replicate for every patient of the table, (n,)."""

    def compute() -> Array:
        fit = context.objects[model]["replicates"][key_of(without)]
        return scoring.linear_predictor(fit, design(context, fit, without, "final"))

    return context.once(("score", model, without), compute)


def out_of_fold(context: Context, model: str, without: tuple[int, ...] = ()) -> Array:
    """Linear predictor in which no training patient has helped to make its own value, (n,)."""
    repeat = repeat_of(context.study, without)
    folds = folds_of(context, repeat)
    values = linear_predictor(context, model, without).copy()
    for fold in fold_numbers(context.study, repeat):
        held_out = folds == fold
        if fold not in without and held_out.any():
            values[held_out] = linear_predictor(context, model, tuple(sorted({*without, fold})))[held_out]
    return values


def score(context: Context, model: str, of: str, without: tuple[int, ...] = ()) -> Array:
    """Reported score on its grid: a probability for a binary model, else the linear predictor; (n,).

    That of a continuous endpoint is a number in its unit, not rounded: no grid would fit every unit.

    `of`: ``"final"`` (the final model for everybody), ``"out_of_fold"`` (a training patient's from the model that has
    not seen its fold), ``"repeat2"`` ... (the same with the folds of a further repeat) or ``"left_out_site"`` (from the
    one that has not seen its site).
    `without` names the replicate that takes the place of the final model.
    """
    values = linear_predictor(context, model, without).copy()
    for held_out, without in unseen(context, of):
        if held_out.any():
            values[held_out] = linear_predictor(context, model, without)[held_out]
    if context.objects[model]["outcome"] == "continuous":
        return values
    if context.objects[model]["outcome"] == "binary":
        # 1 / (1 + exp(-z)) in the form that overflows for no z
        values = np.exp(-np.logaddexp(0.0, -values))
    return np.rint(values * SCORES_PER_UNIT) / SCORES_PER_UNIT


def scores(view: View, context: Context) -> Array:
    """Scores of a view's models, of the fits that have not seen what the view leaves out; (n, models)."""
    without = tuple(view["rows"].get("without", ()))
    return np.column_stack([score(context, model, view["of"], without) for model in view["models"]])


# --- rows -----------------------------------------------------------------------------------------------------


def build(view: View, context: Context) -> NamedTuple:
    """Rows of a view at one site."""
    return KINDS[view["kind"]](view, context)


def _matrix(view: View, context: Context) -> Matrix:
    rows = selected(context, view["rows"])
    without = tuple(view["rows"].get("without", ()))
    make = design if "fill" in view else lambda c, v, *rest: raw_design(c, v["blocks"], *rest)
    x = make(context, view, without, "out_of_fold")
    group = outcome_class(context, view["group"]) if view.get("group") else np.zeros(len(x), dtype=np.int64)
    return Matrix(x=x[rows], group=group[rows])


def _labelled(view: View, context: Context) -> Labelled:
    rows = selected(context, view["rows"])
    without = tuple(view["rows"].get("without", ()))
    y = outcome_class(context, view["endpoint"])[rows]
    fold = np.zeros(len(y), dtype=np.int64)
    if view.get("inner_folds"):
        fold = _inner_folds(context, rows, y, view["inner_folds"])
    y = y.astype(np.float64)
    if "outcome" in view:
        from cohortium.strategies import view_continuous

        y = view_continuous.standardised(context, view)[rows]
    return Labelled(x=design(context, view, without, "out_of_fold")[rows], y=y, fold=fold)


def _inner_folds(
    context: Context, rows: NDArray[np.bool_], classes: NDArray[np.int64], folds: int
) -> NDArray[np.int64]:
    """Inner fold of each chosen patient, by outcome or event."""
    return cohort.assign_folds(
        context.study.study.seed,
        context.site,
        site_offset(context.study, context.site),
        context.table.patient_id[rows],
        classes,
        folds,
        label="inner",
    )


def _survival(view: View, context: Context) -> Survival | FoldedSurvival:
    rows = selected(context, view["rows"])
    without = tuple(view["rows"].get("without", ()))
    time, event = survival_times(context, view["endpoint"], view.get("time_step"))
    x = design(context, view, without, "out_of_fold")[rows]
    if view.get("inner_folds"):
        fold = _inner_folds(context, rows, outcome_class(context, view["endpoint"])[rows], view["inner_folds"])
        return FoldedSurvival(x=x, time=time[rows], event=event[rows], fold=fold)
    return Survival(x=x, time=time[rows], event=event[rows])


def survival_times(context: Context, endpoint: str, time_step: float | None) -> tuple[Array, Array]:
    """Times and event indicators for every patient; times floored to multiples of `time_step` where given."""
    time = context.table.columns[f"endpoint.{endpoint}.time"]
    event = context.table.columns[f"endpoint.{endpoint}.event"]
    if time_step:
        # a whisker above the quotient: 0.3 / 0.1 is cell 3, not 2
        time = np.floor(time / time_step * (1 + 1e-12)) * time_step
    return time, event


def _scored(view: View, context: Context) -> Scored:
    rows = selected(context, view["rows"])
    return Scored(
        score=scores(view, context)[rows],
        y=outcome_class(context, view["endpoint"])[rows].astype(np.float64),
        fold=folds_of(context)[rows] if view["of"] == "out_of_fold" else np.zeros(int(rows.sum()), dtype=np.int64),
    )


def _scored_survival(view: View, context: Context) -> ScoredSurvival:
    rows = selected(context, view["rows"])
    time, event = survival_times(context, view["endpoint"], view.get("time_step"))
    return ScoredSurvival(score=scores(view, context)[rows], time=time[rows], event=event[rows])


def _incomplete(view: View, context: Context) -> NamedTuple:
    from cohortium.strategies import gaps

    return gaps.incomplete(view, context)


def _keyed(view: View, context: Context) -> NamedTuple:
    from cohortium.strategies import gaps, permutation, shapley  # only where a model is explained

    rows = selected(context, view["rows"])
    x = design(context, view, tuple(view["rows"].get("without", ())), "out_of_fold")[rows]
    key = gaps.keys(context, "explain")[rows]
    if view.get("group"):
        return permutation.Judged(x=x, outcome=outcome_class(context, view["group"])[rows], key=key)
    return shapley.Keyed(x=x, key=key)


def _outcome(view: View, context: Context) -> Matrix:
    from cohortium.strategies import view_continuous

    return view_continuous.outcome(view, context)


def _predicted(view: View, context: Context) -> Matrix:
    from cohortium.strategies import view_continuous

    return view_continuous.predicted(view, context)


def _scored_competing(view: View, context: Context) -> ScoredCompeting:
    """The same patients as `_scored_survival`, with what else may have come first."""
    rows = selected(context, view["rows"])
    scored = _scored_survival(view, context)
    competing = context.table.columns[f"endpoint.{view['endpoint']}.competing"][rows] == 1
    cause = scored.event.astype(np.int64) + 2 * competing
    return ScoredCompeting(scored.score, scored.time, (cause > 0).astype(np.float64), cause)


def _repeated(view: View, context: Context) -> NamedTuple:
    from cohortium.strategies import view_repeated  # few studies perturb contours

    return view_repeated.repeated(view, context)


KINDS: dict[str, Callable[[View, Context], NamedTuple]] = {
    "matrix": _matrix,
    "incomplete": _incomplete,
    "keyed": _keyed,
    "outcome": _outcome,
    "predicted": _predicted,
    "repeated": _repeated,
    "labelled": _labelled,
    "survival": _survival,
    "scored": _scored,
    "scored_survival": _scored_survival,
    "scored_competing": _scored_competing,
}
