"""Cox LASSO: the penalised path of the partial likelihood, stratified by site, and its cross-validation together.

Loss: minus the partial likelihood (Breslow's ties, as glmnet's), above its saturated value -sum_t d_t log d_t. With
d deaths at an event time, w = exp(x b) and S their sum over the risk set,

    loss = sum over event times of d log(S / d) - sum over deaths of x b

of each site's own risk sets: no time leaves a site, and two sites that share a baseline lose little (strategies/cox).
Sums over risk sets of all sites would let a path rebuild patients (docs/decisions/0013).

Held-out loss of a fold: what its patients add to the loss, i.e. the loss of all patients less that of the others, at
the coefficients of the others (Verweij & van Houwelingen, Stat. Med. 12:2305, 1993; glmnet with ``grouped = TRUE``),
weighted by the fold's events. The path is that of lasso_path (Simon et al., J. Stat. Softw. 39:5, 2011).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import lasso_path, triangle
from cohortium.strategies.lasso_models import TrainingSets
from cohortium.strategies.lasso_path import EVERYBODY, LassoPath, Rule, Terms
from cohortium.strategies.rows import Array, Counts, FoldedSurvival

CELLS = 4_000_000
"""Patients x models handled at a time at a site: 32 MB an array."""


class Start(NamedTuple):
    """What the models without a predictor need: by inner fold, and by training set (all, then all but a fold)."""

    patients: Counts  # (folds,)
    events: Counts  # (folds,)
    loss: Array  # (folds + 1,)
    gradient: Array  # (folds + 1, p)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("lasso_cox.start", adds_over="sites")
def start(rows: FoldedSurvival, *, folds: int) -> Start:
    """Patients and events by inner fold 0..folds-1, loss and gradient at zero of each training set."""
    if not np.isin(rows.fold, np.arange(folds)).all():
        raise SumRefused("lasso_cox.start", f"a fold number is outside 0..{folds - 1}; ask for the study's folds")
    member = rows.fold == np.arange(folds)[:, None]
    sets, columns = folds + 1, rows.x.shape[1]
    at_zero = terms.local(
        rows,
        coefficients=np.zeros((sets, columns)),
        held_out=np.arange(EVERYBODY, folds),
        working=np.zeros((sets, columns), dtype=bool),
    )
    return Start(
        patients=member.sum(axis=1).astype(np.int64),
        events=(member & (rows.event == 1)).sum(axis=1).astype(np.int64),
        loss=at_zero.loss,
        gradient=at_zero.gradient,
    )


@statistic("lasso_cox.terms", adds_over="sites")
def terms(rows: FoldedSurvival, *, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
    """Loss, gradient and curvature of a site's own partial likelihood for m models.

    Parameters
    ----------
    coefficients : (m, p)
    held_out : (m,) int64
        The inner fold that a model does not see; -1: it sees all.
    working : (m, p) bool
        Columns whose curvature is wanted.
    """
    ordered = _Ordered.of(rows)
    block = max(1, CELLS // max(1, len(rows.time)))
    parts = [
        _terms(ordered, coefficients[i : i + block], held_out[i : i + block], working[i : i + block])
        for i in range(0, len(coefficients), block)
    ]
    return Terms(*(np.concatenate(field) for field in zip(*parts, strict=True)))


class _Ordered(NamedTuple):
    """A site's patients, the longest followed first, and where its K event times lie among them."""

    x: Array
    event: Array
    fold: Counts
    at_risk: Counts  # (K,), patients whose time is an event time or later
    later: Counts  # (K,), patients whose time is later
    met: Counts  # (n,), event times up to a patient's own

    @classmethod
    def of(cls, rows: FoldedSurvival) -> "_Ordered":
        order = np.argsort(-rows.time, kind="stable")
        time, event = rows.time[order], rows.event[order]
        points = np.unique(time[event == 1])
        return cls(
            x=rows.x[order],
            event=event,
            fold=rows.fold[order],
            at_risk=np.searchsorted(-time, -points, side="right"),
            later=np.searchsorted(-time, -points, side="left"),
            met=np.searchsorted(points, time, side="right"),
        )

    def died(self, counted: Array) -> Array:
        """Deaths at each event time, (m, K), of the patients that are counted, (m, n) of 0 and 1."""
        so_far = _from_zero(counted * self.event)
        return so_far[:, self.at_risk] - so_far[:, self.later]


def _terms(rows: _Ordered, coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
    linear_predictor = coefficients @ rows.x.T  # (m, n)
    # risks relative to a site's highest: none overflows
    top = linear_predictor.max(axis=1, keepdims=True, initial=-np.inf) if len(rows.x) else np.zeros((len(held_out), 1))
    risk = np.exp(linear_predictor - top)
    seen = (rows.fold != held_out[:, None]).astype(np.float64)
    everybody = np.ones_like(seen)

    def loss(counted: Array) -> tuple[Array, Array, Array]:
        """The loss, (m,), with the deaths and the sums over risk sets, (m, K), that it is made of."""
        deaths, at_risk = rows.died(counted), _from_zero(risk * counted)[:, rows.at_risk]
        share = np.divide(at_risk, deaths, out=np.ones_like(at_risk), where=deaths > 0)
        of_deaths = (counted * rows.event * (linear_predictor - top)).sum(axis=1)
        return special.xlogy(deaths, share).sum(axis=1) - of_deaths, deaths, at_risk

    seen_loss, deaths, at_risk = loss(seen)
    hazard = np.divide(deaths, at_risk, out=np.zeros_like(at_risk), where=deaths > 0)
    weight = seen * risk * _from_zero(hazard)[:, rows.met]  # expected deaths of each patient
    triangles = []
    for model in range(len(coefficients)):
        x = rows.x[:, working[model]]
        mean = np.cumsum(x * (risk * seen)[model][:, None], axis=0)[rows.at_risk - 1]
        mean *= np.sqrt(hazard[model] / np.where(deaths[model] > 0, at_risk[model], 1.0))[:, None]  # sqrt(d) / S
        triangles.append(triangle.upper(x.T @ (x * weight[model][:, None]) - mean.T @ mean))
    return Terms(
        loss=seen_loss,
        held_out_loss=loss(everybody)[0] - seen_loss,
        gradient=(weight - seen * rows.event) @ rows.x,
        curvature=np.concatenate(triangles),
    )


def _from_zero(values: Array) -> Array:
    """Running sums along the last axis, with a zero before the first, (m, n + 1)."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


# --- at the server --------------------------------------------------------------------------------------------


def fit(
    federation: Federation,
    predictors: int,
    *,
    n_lambda: int = 50,
    folds: int = 10,
    rule: Rule = "min",
    mixing: float = 1.0,
    penalty_weights: Array | None = None,
) -> LassoPath:
    """Fit the path (see `lasso_path.fit`), every site with its own baseline hazard.

    Its coefficients keep the place of an intercept, which is 0.

    Parameters
    ----------
    federation : Federation
        Of `FoldedSurvival` rows: x (n, predictors) standardised; fold 0..folds-1.
    predictors : int
        May be 0 or more than the patients.
    n_lambda, folds : int
    rule, mixing, penalty_weights
        As in `lasso_path.fit`.

    Raises
    ------
    NotIdentifiable
        No event, or fewer than two inner folds with an event inside and outside.
    """
    del predictors  # the sums tell
    by_set = federation.sum(start, folds=folds)
    patients, events = by_set.patients.sum(), by_set.events.sum()
    if events == 0:
        raise NotIdentifiable("LASSO: no patient had the event; take a longer follow-up or another endpoint")
    # at zero a training set without a pair to compare (a death alone in each risk set) has nothing to explain
    usable = np.flatnonzero((by_set.events > 0) & (by_set.loss[1:] > 1e-9))
    if len(usable) < 2:
        raise NotIdentifiable(
            f"LASSO: {len(usable)} inner folds have an event inside and outside, two are needed; ask for fewer folds, "
            "or name the predictors in the study instead of selecting them"
        )
    kept = np.concatenate([[0], usable + 1])
    inside = np.concatenate([[patients], patients - by_set.patients[usable]]).astype(np.float64)
    sets = TrainingSets(
        held_out=np.concatenate([[EVERYBODY], usable]),
        patients=inside,
        held_out_weight=np.concatenate([[0.0], by_set.events[usable]]),
        intercept=np.empty((len(kept), 0)),
        null_loss=by_set.loss[kept] / inside,
        null_gradient=by_set.gradient[kept] / inside[:, None],
    )

    def evaluate(coefficients: Array, held_out: Counts, working: NDArray[np.bool_]) -> Terms:
        return federation.sum(terms, coefficients=coefficients, held_out=held_out, working=working)

    return lasso_path.fit(evaluate, sets, n_lambda=n_lambda, rule=rule, mixing=mixing, penalty_weights=penalty_weights)
