"""Items of explanations of scores of any kind: sampled SHAP values, permutation importance."""

import itertools
from collections.abc import Callable
from typing import Any

import data
import numpy as np
import references_explained as references
from federations import at_sites
from item import Federate, Figures, Item

from cohortium.strategies import explanation, permutation, quantiles, shapley
from cohortium.strategies.permutation import Judged
from cohortium.strategies.rows import Matrix
from cohortium.strategies.shapley import Background, Keyed

GRID = np.arange(10_001)
MEASURED = {0: 0, 2: 3, 3: 4}
"""The column of each measured variable."""
N = len(data.breast_cancer())
Ours = Callable[[Federate], Figures]


def _nobody_left_out() -> np.ndarray:
    return np.zeros(N, np.int64)


def _drawn() -> Background:
    """What a study draws: a hundred rows from the marginals, an order of the variables each."""
    x, _ = references.rows()
    at = (np.arange(explanation.VALUES) + 0.5) / explanation.VALUES
    marginals = [
        {"columns": np.array([j]), "values": np.quantile(x[:, [j]], at, axis=0), "weights": np.ones(len(at))}
        for j in MEASURED.values()
    ]
    known, counts = references.levels()
    marginals.insert(1, {"columns": np.array([1, 2]), "values": known, "weights": counts / N})
    return shapley.draw(marginals, references.GROUP, np.random.default_rng(3))  # type: ignore[arg-type]


def _every_order(rows: np.ndarray) -> Background:
    """Each of the 24 orders of four variables with each row: nothing is left to chance."""
    orders = np.array(list(itertools.permutations(range(4))))
    return Background(references.GROUP, np.repeat(rows, len(orders), axis=0), np.tile(orders, (len(rows), 1)))


def _sampled(federate: Federate, kind: str, background: Background) -> shapley.Sampled:
    sites = federate(at_sites(Keyed, data.breast_cancer(), x=references.rows()[0], key=_nobody_left_out()))
    return shapley.sampled(sites, references.FITS[kind], background, N)


def _shap(kind: str) -> Ours:
    def figures(federate: Federate) -> dict[str, Any]:
        rows = _drawn().rows[:5]
        found = _sampled(federate, kind, _every_order(rows))
        return {**found._asdict(), "background": rows}

    return figures


def _shares_of_the_largest(federate: Federate) -> dict[str, Any]:
    drawn = _drawn()
    sizes = [_sampled(federate, kind, drawn).mean_absolute for kind in references.FITS]
    return {"share": [size / size.max() for size in sizes], "background": drawn.rows}


def _permutation(kind: str) -> Ours:
    def figures(federate: Federate) -> dict[str, Any]:
        frame, (x, y) = data.breast_cancer(), references.rows()
        measured = federate(at_sites(Matrix, frame, x=x[:, list(MEASURED.values())], group=y))
        k = explanation.VALUES
        marginal = quantiles.fit(measured, ((np.arange(k) + 0.5) / k).tolist())
        replaced = [
            {"columns": np.array([j]), "values": of[:, None], "weights": np.full(k, 1 / k)}
            for j, of in zip(MEASURED.values(), marginal, strict=True)
        ]
        known, counts = references.levels()
        replaced.insert(1, {"columns": np.array([1, 2]), "values": known, "weights": counts / N})
        sites = federate(at_sites(Judged, frame, x=x, outcome=y, key=_nobody_left_out()))
        found = permutation.importance(sites, references.FITS[kind], GRID, replaced, N)  # type: ignore[arg-type]
        return {"auc": found.auc, "falls": found.falls, "marginal": marginal}

    return figures


BREAST = "breast_cancer, 4 sites"
ITEMS = (
    *(
        Item(name=f"SHAP values of any score, all orders of variables: {kind}", data=BREAST, ours=_shap(kind),
             theirs=references.shap(kind), reference="Shapley's definition, all coalitions")
        for kind in references.FITS
    ),
    Item(name="sampled SHAP values, NOT equal to all orders: mean absolute value as a share of the largest",
         data=BREAST, ours=_shares_of_the_largest, theirs=references.shares_of_the_largest, target=0.05,
         reference="Shapley's definition on the same background; 200 random orders, no bound is certified"),
    *(
        Item(name=f"permutation importance of any score: {kind}", data=BREAST, ours=_permutation(kind),
             theirs=references.permutation(kind), reference="scikit-learn roc_auc_score over all draws")
        for kind in references.FITS
    ),
)  # fmt: skip
