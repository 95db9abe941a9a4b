"""Linear SVM: squared-hinge support vector machine across sites, the solution of liblinear on the pooled patients.

Minimises |w|^2 / 2 + C sum max(0, 1 - y z)^2 over the intercept and the coefficients together, as liblinear does (Fan
et al., JMLR 9, 2008; scikit-learn's LinearSVC with its column of ones). At each site, `loss` gives the sum and its
gradient; at the server, `fit` descends with limited memory. Newton's method would be faster and is not used: its matrix
has the patients inside the margin only; when one crosses it between two steps, the difference is that patient's row.
`kernel` lays random features over the columns: then it is an RBF machine in approximation (kind ``rff_svm``).

An SVM has no probability. Platt scaling (Advances in Large Margin Classifiers, 1999; Lin, Lin & Weng, Machine Learning
68, 2007) fits a sigmoid to decision values that are out of fold in FOLDS inner folds: on fitted values it would be
too steep. Inner fits run beside the final one and cost no rounds of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.descent import minimise
from cohortium.strategies.random_features import Kernel, features
from cohortium.strategies.rows import Array, Counts, Labelled

FOLDS = 5
NOBODY = -1  # is held out of the final fit
SUMS = 300
SETTLED = 1e-9
"""Largest element of the gradient, over C and the patients, at which a descent ends."""


class Loss(NamedTuple):
    """Squared hinge of some patients, its gradient, and how many they are."""

    loss: Array  # ()
    gradient: Array  # (p + 1,), the intercept first
    classes: Counts  # (2,), patients without and with the outcome


class Sigmoid(NamedTuple):
    """Cross-entropy of Platt's sigmoid, and its gradient."""

    loss: Array  # ()
    gradient: Array  # (2,), by slope and offset


def decision(x: Array, coefficients: Array, kernel: Kernel | None = None) -> Array:
    """Decision value of each patient of `x` (n, p); coefficients (p + 1,) or of the random features, (n,)."""
    columns = x if kernel is None else features(x, kernel)
    # summed column by column: one patient's score does not depend on which others are in the table
    return coefficients[0] + (columns * coefficients[1:]).sum(axis=1)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("linear_svm.loss", adds_over="rows")
def loss(rows: Labelled, *, coefficients: Array, held_out: int, kernel: list[Any] | None) -> Loss:
    """Squared hinge of a site's patients outside the inner fold `held_out` (-1: of all).

    `kernel` : the fields of `Kernel`, or None for the columns themselves.
    """
    here = rows.fold != held_out
    sign = 2 * rows.y[here] - 1
    columns = rows.x[here] if kernel is None else features(rows.x[here], Kernel(*kernel))
    design = np.column_stack([np.ones(len(sign)), columns])
    short = np.maximum(1 - sign * (design @ coefficients), 0.0)  # of the margin
    return Loss(
        loss=np.asarray((short**2).sum()),
        gradient=-2 * design.T @ (sign * short),
        classes=np.bincount(rows.y[here].astype(np.int64), minlength=2),
    )


@statistic("linear_svm.sigmoid", adds_over="rows")
def sigmoid(
    rows: Labelled, *, coefficients: Array, kernel: list[Any] | None, line: Array, targets: list[float]
) -> Sigmoid:
    """Cross-entropy of expit(line[0] * decision + line[1]) against `targets` of the two classes.

    `coefficients` : (FOLDS, p + 1), row k fitted without inner fold k.
    """
    made = None if kernel is None else Kernel(*kernel)
    values = np.zeros(len(rows.y))
    for fold, fitted in enumerate(coefficients):
        here = rows.fold == fold
        values[here] = decision(rows.x[here], fitted, made)
    z, target = line[0] * values + line[1], np.asarray(targets)[rows.y.astype(np.int64)]
    error = special.expit(z) - target
    return Sigmoid(
        loss=np.asarray((np.logaddexp(0, z) - target * z).sum()), gradient=np.array([error @ values, error.sum()])
    )


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A fitted machine: its decision values are w'x + b, its probabilities expit(slope * decision + offset)."""

    coefficients: Array  # (p + 1,), the intercept first
    slope: float
    offset: float
    objective: float
    sums: int

    @property
    def logit(self) -> Array:
        """Coefficients of the log-odds after Platt scaling, (p + 1,)."""
        scaled = self.slope * self.coefficients
        scaled[0] += self.offset
        return scaled


def fit(federation: Federation, columns: int, *, penalty: float, kernel: Kernel | None = None) -> Machine:
    """Fit over all sites of the federation; some thirty to a hundred sums of p + 2 numbers.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows, x (n, columns) standardised, with FOLDS inner folds.
    penalty : float
        ``C`` of liblinear: the weight of the loss.

    Raises
    ------
    NotIdentifiable
        One class only, or nobody.
    """
    width = 1 + (columns if kernel is None else kernel.components)
    asked = None if kernel is None else list(kernel)
    classes = np.zeros(2)

    def descend(held_out: int) -> Any:
        def objective(coefficients: Array) -> tuple[float, Array]:
            at = federation.sum(loss, coefficients=coefficients, held_out=held_out, kernel=asked)
            if not at.classes.all():
                raise NotIdentifiable("a support vector machine needs patients with and without the outcome")
            if held_out == NOBODY:
                classes[:] = at.classes
            n = penalty * at.classes.sum()
            value = (coefficients @ coefficients / 2 + penalty * float(at.loss)) / n
            return value, (coefficients + penalty * at.gradient) / n

        return minimise(objective, np.zeros(width), sums=SUMS, tolerance=SETTLED)

    final, *inner = federation.together([lambda fold=fold: descend(fold) for fold in (NOBODY, *range(FOLDS))])
    slope, offset = _platt(federation, np.array([found.at for found in inner]), asked, classes)
    return Machine(
        coefficients=final.at,
        slope=slope,
        offset=offset,
        objective=final.value * penalty * float(classes.sum()),
        sums=len(final.values),
    )


def _platt(federation: Federation, coefficients: Array, kernel: list[Any] | None, classes: Array) -> Sequence[float]:
    """Slope and offset; the targets are Platt's, drawn in from 0 and 1 so that a perfect separation stays finite."""
    targets = [float(1 / (classes[0] + 2)), float((classes[1] + 1) / (classes[1] + 2))]
    n = float(classes.sum())

    def objective(line: Array) -> tuple[float, Array]:
        at = federation.sum(sigmoid, coefficients=coefficients, kernel=kernel, line=line, targets=targets)
        return float(at.loss) / n, at.gradient / n

    start = np.array([1.0, float(np.log((classes[1] + 1) / (classes[0] + 1)))])
    found = minimise(objective, start, sums=SUMS, tolerance=SETTLED).at
    return [float(value) for value in found]
