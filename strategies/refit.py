"""Refit: do a model's own columns need new coefficients for these patients, or is a recalibration enough?

The closed test of Vergouwe et al., Stat Med 36:4529, 2017, to its end: the refitted model against the score as it is,
against a new intercept, against a new intercept and slope, by likelihood-ratio tests in this order, until one finds no
difference. All four are logistic models on the same columns: those of the score move along it (`directions`), so that
every one asks `logistic.terms`, on linear predictors that nobody has rounded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cohortium.common.errors import NotIdentifiable, SumRefused, Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import likelihood, logistic, triangle
from cohortium.strategies.rows import Array
from cohortium.strategies.standardised import to_raw
from cohortium.strategies.updating import LEVEL
from cohortium.strategies.validation_settings import Figure, undefined

PATIENTS_A_COLUMN = 4
NO_COLUMNS: Mapping[str, Any] = {"blocks": [], "centre": [], "scale": [], "fill": []}
NESTED = ("none", "intercept", "intercept_and_slope")


def figures(
    ask: Callable[[Mapping[str, Any]], Federation],
    rows: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    *,
    minimum_count: int,
) -> dict[str, Figure]:
    """The closed test of each model, side by side.

    Parameters
    ----------
    ask : callable
        Gives the federation of a view.
    rows : mapping
        The patients, as in a view, with the ``endpoint``.
    models : mapping of name to what `closed_test` takes
    """

    def columns(recipe: Mapping[str, Any], patients: int | None) -> Federation:
        known = {} if patients is None else {"patients": patients}
        return ask({"kind": "labelled", "rows": {**rows, **known}, "endpoint": rows["endpoint"], **recipe})

    tests = [lambda model=model: closed_test(columns, model, minimum_count=minimum_count) for model in models.values()]
    return dict(zip(models, columns(NO_COLUMNS, None).together(tests), strict=True)) if models else {}


def closed_test(
    ask: Callable[[Mapping[str, Any], int | None], Federation], model: Mapping[str, Any], *, minimum_count: int
) -> Figure:
    """The tests, which update they choose, and all four models; about nine sums, beside those of other figures.

    Parameters
    ----------
    ask : callable
        ``ask(recipe, patients)`` gives the federation of `Labelled` rows of this cohort whose columns a recipe makes,
        and which names the number of patients (None: as many as there may be).
    model : mapping
        ``names`` (p), ``coefficients`` (p + 1) and ``recipe`` (`Columns.recipe`) of a fitted logistic model.
    minimum_count : int
        As in ``[privacy]``.

    Returns
    -------
    What is under ``updating`` in results.json where the study asks for refits, or why there is no refit.
    """
    try:
        return _closed_test(ask, model, minimum_count)
    except SumRefused as refusal:
        return {"withheld": str(refusal)}
    except (NotIdentifiable, Undefined) as why:
        return undefined(str(why))


def _closed_test(
    ask: Callable[[Mapping[str, Any], int | None], Federation], model: Mapping[str, Any], minimum_count: int
) -> Figure:
    names, coefficients = list(model["names"]), np.asarray(model["coefficients"], dtype=np.float64)
    if len(coefficients) != len(names) + 1:
        raise Undefined("the model is the mean of fits to several imputed data sets, which have no common likelihood")
    counted = ask(NO_COLUMNS, None).sum(logistic.terms, coefficients=np.zeros(1))
    patients, p = int(counted.patients), len(names)
    if p > patients // PATIENTS_A_COLUMN:
        why = f"a refit of {p} columns needs {PATIENTS_A_COLUMN * p} patients, and there are fewer"
        return {"withheld": why}
    rarer, least = min(int(counted.events), patients - int(counted.events)), max(minimum_count, p + 1)
    if rarer < least:
        return {"withheld": f"a refit of {p} columns needs {least} patients with and as many without the outcome"}
    rows = ask(model["recipe"], patients)
    intercept = np.eye(p + 1)[:, :1]
    tasks: list[Callable[[], Any]] = [
        lambda: along(rows, coefficients, intercept),
        lambda: along(rows, coefficients, np.column_stack([intercept, coefficients])),
        lambda: logistic.fit(rows, p, names=names),
    ]
    (as_it_is, large, large_llf), (_, both, both_llf), refit = rows.together(tasks)
    fits = {"none": as_it_is, "intercept": large_llf, "intercept_and_slope": both_llf}
    tests = [
        {"null": null, "alternative": "refit", **likelihood.ratio_test(refit.log_likelihood, fits[null], df).plain()}
        for null, df in zip(NESTED, (p + 1, p, p - 1), strict=True)
    ]
    kept = (test["null"] for test in tests if test["p"] >= LEVEL)
    slopes = {"none": (0.0, 1.0), "intercept": (float(large[0]), 1.0), "intercept_and_slope": (both[0], 1 + both[1])}
    return {
        "chosen": next(kept, "refit"),
        "tests": tests,
        "models": {
            **{
                name: {"log_likelihood": fits[name], "intercept": float(a), "slope": float(b)}
                for name, (a, b) in slopes.items()
            },
            "refit": {"log_likelihood": refit.log_likelihood, "coefficients": _coefficients(names, model, refit)},
        },
    }


def along(federation: Federation, start: Array, directions: Array) -> tuple[float, Array, float]:
    """Maximum of the likelihood over ``start + directions @ moved``, by Newton steps.

    Parameters
    ----------
    start : (p + 1,)
    directions : (p + 1, k)

    Returns
    -------
    log-likelihood at the start, moved (k,), log-likelihood at the maximum

    Raises
    ------
    Undefined
        There is no finite maximum.
    """
    none = Undefined("the scores are all alike or separate the outcome, so the recalibration has no finite maximum")
    moved, last = np.zeros(directions.shape[1]), np.inf
    at = federation.sum(logistic.terms, coefficients=start)
    as_it_is = float(at.log_likelihood)
    for _ in range(logistic.MAX_ROUNDS):
        gradient = directions.T @ at.gradient
        information = directions.T @ triangle.symmetric(at.information) @ directions
        scale = np.sqrt(np.diag(information))
        if not scale.all() or np.linalg.cond(information / np.outer(scale, scale)) > 1e12:
            raise none
        step = np.linalg.solve(information, gradient)
        decrement = float(np.sqrt(max(step @ gradient, 0.0)))
        converged = decrement <= logistic.CONVERGED or last / 10 < decrement <= logistic.NEAR
        if converged and np.abs(step).max() <= logistic.SETTLED:
            return as_it_is, moved + step, float(at.log_likelihood) + decrement**2 / 2
        worse = at.log_likelihood - 1e-9 * (1 + abs(at.log_likelihood))  # rounding of a sum is not a worse fit
        while (trial := _at(federation, start, directions, moved + step)).log_likelihood < worse:
            step = step / 2
        moved, at, last = moved + step, trial, decrement
    raise none


def _at(federation: Federation, start: Array, directions: Array, moved: Array) -> logistic.Terms:
    return federation.sum(logistic.terms, coefficients=start + directions @ moved)


def _coefficients(names: Sequence[str], model: Mapping[str, Any], fitted: logistic.Logistic) -> list[dict[str, Any]]:
    """Refitted coefficients and their standard errors in study units, the intercept first."""
    back = to_raw(*(np.asarray(model["recipe"][key], dtype=np.float64) for key in ("centre", "scale")))
    estimates, errors = back @ fitted.coefficients, np.sqrt(np.diag(back @ fitted.covariance @ back.T))
    return [
        {"term": term, "estimate": float(estimate), "se": float(error)}
        for term, estimate, error in zip(("(Intercept)", *names), estimates, errors, strict=True)
    ]


def beside(nested: Figure, refitted: Figure) -> Figure:
    """What is under ``updating``: the test with the refit; where there is none the nested updates and the reason."""
    if "tests" not in nested or "tests" in refitted:
        return refitted if "tests" in nested else nested
    return {**nested, "models": {**nested["models"], "refit": refitted}}
