"""Gradient boosting: trees on sums of gradients by bins, the trees of xgboost's ``hist`` on the same bins.

At each site, `histograms` adds up the first and second derivatives of its patients' log-loss in every bin of every
column, for each node of the level that is being split; at the server, `fit` picks the split with the largest gain
(Chen & Guestrin, KDD 2016, equation 7) and sends the grown tree with the next question. One sum a level: trees x depth
in all, and one before for the bins.

Bins are public: `occupancy` counts patients in cells of a grid on the standardised columns, and a column is cut at
edges of the grid so that its bins are about equally full. No patient's value is a cut point.

xgboost adds up gradients in float32; where two splits gain the same to seven digits it may take the other one. Ties
that are exact go to the first column, then to the lowest cut, in both.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Labelled

GRID = np.sinh(np.linspace(-1, 1, 255) * np.arcsinh(200.0)) / 20
"""Edges of the grid of standardised values, -10 to 10: .0024 apart at the mean, 5 % of the distance to it elsewhere."""
PATIENTS_A_CELL = 5
"""Patients in a cell, on average, at the deepest level; what client/disclosure.py holds the coordinator to."""
LEAST_GAIN = 1e-6  # as xgboost's kRtEps: a split that gains no more is none
LEAF = -1


class Occupancy(NamedTuple):
    """Patients in cells of the grid."""

    patients: Counts  # (p, len(GRID) + 1)
    events: Counts  # ()


class Histograms(NamedTuple):
    """Sums of derivatives of the log-loss, by node of a level, column and bin."""

    gradient: Array  # (nodes, p, bins)
    hessian: Array  # (nodes, p, bins)


class Trees(NamedTuple):
    """Trees as heaps: node 0 is the root, node k has the children 2k + 1 (below the threshold) and 2k + 2.

    All arrays are (trees, 2 ** (depth + 1) - 1). `feature` is LEAF where a node has no children; `value` is what a leaf
    adds to the log-odds.
    """

    feature: Counts
    threshold: Array
    value: Array


def leaves(trees: Trees, x: Array) -> Counts:
    """Node in which each patient of `x` (n, p) ends, (trees, n)."""
    at = np.zeros((len(trees.feature), len(x)), dtype=np.int64)
    tree, patient = np.arange(len(at))[:, None], np.arange(len(x))
    for _ in range(int(np.log2(trees.feature.shape[1] + 1)) - 1):
        feature = trees.feature[tree, at]
        right = x[patient, feature.clip(0)] >= trees.threshold[tree, at]
        at = np.where(feature == LEAF, at, 2 * at + 1 + right)
    return at


def linear_predictor(trees: Trees, base: float, x: Array) -> Array:
    """Log-odds of each patient of `x` (n, p), standardised as in training; (n,)."""
    values = np.take_along_axis(trees.value, leaves(trees, x), axis=1)
    return base + values.cumsum(axis=0)[-1] if len(values) else np.full(len(x), base)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("gradient_boosting.occupancy", adds_over="rows")
def occupancy(rows: Labelled) -> Occupancy:
    """Count a site's patients in the cells of `GRID`, column by column."""
    columns, cells = rows.x.shape[1], len(GRID) + 1
    key = np.arange(columns) * cells + np.searchsorted(GRID, rows.x, side="right")
    counts = np.bincount(key.ravel(), minlength=columns * cells).reshape(columns, cells)
    return Occupancy(counts, np.asarray(np.count_nonzero(rows.y)))


@statistic("gradient_boosting.histograms", adds_over="rows")
def histograms(
    rows: Labelled, *, feature: Counts, threshold: Array, value: Array, base: float, cuts: Array, level: int
) -> Histograms:
    """Sums of first and second derivatives of a site's patients.

    Parameters
    ----------
    feature, threshold, value : (trees, nodes)
        `Trees`; the last one is being grown, and its values are not yet used.
    base : float
        Log-odds before the first tree.
    cuts : (p, bins - 1)
        Ascending, filled up with infinity.
    level : int
        Depth of the nodes whose histograms are asked for: 0 is the root.
    """
    trees = Trees(feature, threshold, value)
    at = leaves(trees, rows.x)
    before = Trees(feature[:-1], threshold[:-1], value[:-1])
    risk = special.expit(linear_predictor(before, base, rows.x))
    nodes, (columns, bins) = 2**level, (len(cuts), cuts.shape[1] + 1)
    node = at[-1] - (nodes - 1)
    here = (node >= 0) & (node < nodes)  # the others ended in a leaf above
    bin_ = np.column_stack([np.searchsorted(cut, rows.x[here, j], side="right") for j, cut in enumerate(cuts)])
    key = ((node[here][:, None] * columns + np.arange(columns)) * bins + bin_).ravel()
    shape = (nodes, columns, bins)

    def summed(values: Array) -> Array:
        sums = np.bincount(key, np.repeat(values[here], columns), nodes * columns * bins)
        return sums.astype(np.float64).reshape(shape)  # of no patients numpy counts in integers

    return Histograms(summed(risk - rows.y), summed(risk * (1 - risk)))


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Boosted:
    """Grown trees, the log-odds they start from, and the cut points they chose from."""

    trees: Trees
    base: float
    cuts: Array  # (p, bins - 1), filled up with infinity
    patients: int


def fit(
    federation: Federation,
    *,
    trees: int,
    max_depth: int,
    learning_rate: float,
    l2: float,
    min_child_weight: float,
    max_bin: int,
) -> Boosted:
    """Boost over all sites of the federation; 1 + trees x max_depth sums at most.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows whose x is (n, p), standardised.
    learning_rate, l2, min_child_weight : float
        ``eta``, ``lambda`` and ``min_child_weight`` of xgboost. A patient's second derivative is 1/4 at most, so a
        child of weight w holds at least 4 w patients of all sites.
    max_bin : int
        Bins a column at most; fewer where they would hold under PATIENTS_A_CELL patients at the deepest level.

    Raises
    ------
    NotIdentifiable
        One class only, or nobody.
    """
    held = federation.sum(occupancy)
    patients, events = int(held.patients[0].sum()) if len(held.patients) else 0, int(held.events)
    if events in (0, patients):
        raise NotIdentifiable("gradient boosting needs patients with and without the outcome; widen the selection")
    cuts = choose_cuts(held.patients, bins(patients, max_depth, max_bin))
    base = float(special.logit(events / patients))
    grown = _empty(0, max_depth)
    for _ in range(trees):
        new = _empty(1, max_depth)
        grown = Trees(*map(np.concatenate, zip(grown, new, strict=True)))  # type: ignore[arg-type]  # field by field
        _grow(federation, grown, base, cuts, max_depth, (learning_rate, l2, min_child_weight))
    return Boosted(trees=grown, base=base, cuts=cuts, patients=patients)


def bins(patients: int, max_depth: int, max_bin: int) -> int:
    """Bins a column may have so that the cells of the deepest level hold enough patients on average; 2 at least."""
    return max(2, min(max_bin, patients // (PATIENTS_A_CELL * 2 ** (max_depth - 1))))


def choose_cuts(patients: Counts, most: int) -> Array:
    """Edges of `GRID` that cut each column into at most `most` about equally full bins, (p, cuts), then infinity."""
    through = patients.cumsum(axis=1)[:, :-1]  # patients below each edge
    total = patients.sum(axis=1)
    found = []
    for below, n in zip(through, total, strict=True):
        at = np.searchsorted(below, n * np.arange(1, most) / most)
        at = np.unique(at[at < len(GRID)])
        found.append(GRID[at[below[at] < n]])
    widest = max((len(cut) for cut in found), default=0)
    return np.array([np.pad(cut, (0, widest - len(cut)), constant_values=np.inf) for cut in found])


def _empty(trees: int, max_depth: int) -> Trees:
    shape = (trees, 2 ** (max_depth + 1) - 1)
    return Trees(np.full(shape, LEAF, dtype=np.int64), np.zeros(shape), np.zeros(shape))


def _grow(
    federation: Federation,
    grown: Trees,
    base: float,
    cuts: Array,
    max_depth: int,
    settings: tuple[float, float, float],
) -> None:
    """Split the last tree level by level, in place; leaf values follow from the split above them."""
    learning_rate, l2, min_child_weight = settings
    feature, threshold, value = (field[-1] for field in grown)
    growing = {0}
    for level in range(max_depth):
        sums = federation.sum(histograms, **grown._asdict(), base=base, cuts=cuts, level=level)
        first = 2**level - 1
        splits = {}
        for node in sorted(growing):
            gradient, hessian = sums.gradient[node - first], sums.hessian[node - first]
            whole = (gradient[0].sum(), hessian[0].sum())
            value[node] = -learning_rate * whole[0] / (whole[1] + l2)
            if (split := _best(gradient, hessian, whole, l2, min_child_weight)) is not None:
                splits[node] = split
        growing = set()
        for node, (column, cut, left, right) in splits.items():
            feature[node], threshold[node], value[node] = column, cuts[column, cut], 0.0
            for child, (g, h) in ((2 * node + 1, left), (2 * node + 2, right)):
                value[child] = -learning_rate * g / (h + l2)
                growing.add(child)
        if not growing:
            return


def _best(
    gradient: Array, hessian: Array, whole: tuple[float, float], l2: float, min_child_weight: float
) -> tuple[int, int, tuple[float, float], tuple[float, float]] | None:
    """Column and cut of the largest gain, with gradient and hessian of both sides; None where no split gains."""
    left_g, left_h = gradient.cumsum(axis=1)[:, :-1], hessian.cumsum(axis=1)[:, :-1]
    right_g, right_h = whole[0] - left_g, whole[1] - left_h
    allowed = (left_h >= min_child_weight) & (right_h >= min_child_weight)
    if not allowed.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # of sides without patients, which are not allowed
        gain = left_g**2 / (left_h + l2) + right_g**2 / (right_h + l2) - whole[0] ** 2 / (whole[1] + l2)
    gain = np.where(allowed, gain, -np.inf)
    column, cut = np.unravel_index(int(gain.argmax()), gain.shape)
    if gain[column, cut] <= LEAST_GAIN:
        return None
    left = (float(left_g[column, cut]), float(left_h[column, cut]))
    right = (float(right_g[column, cut]), float(right_h[column, cut]))
    return int(column), int(cut), left, right
