"""Logistic regression: maximum likelihood across sites, equal to the pooled fit.

At each site, `terms` gives gradient, information and log-likelihood of its rows; at the server, `fit` takes damped
Newton steps on their sums (McCullagh & Nelder, Generalized Linear Models, 1989, section 4.4). One sum a step: the sum
that shows a trial to be no worse is also the next step's.

Coefficient 0 is the intercept; the local half adds its column of ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import likelihood, triangle
from cohortium.strategies.rows import Array, Counts, Labelled
from cohortium.strategies.wald import Estimates

CONVERGED = 1e-9
"""Newton decrement at which a last step ends the fit: about the distance left in standard errors. Standard errors are
then right to as much, coefficients to its square."""
NEAR = 1e-6
"""Decrement below which convergence is quadratic; if it still does not fall, what is left is rounding of the sums."""
SETTLED = 1e-5
"""Largest last step, in standardised units. Where predictors separate the outcome the decrement fades as the
information does, but the coefficients keep growing by a fixed step."""
SINGULAR = 1e-9
"""Smallest eigenvalue of the scaled information that is told from zero: fixed point leaves 1e-12 of noise in it."""
MAX_ROUNDS = 25


class Terms(NamedTuple):
    """What one Newton step needs of some patients, at given coefficients of p predictors and the intercept."""

    gradient: Array  # (p + 1,)
    information: Array  # ((p + 1) (p + 2) / 2,), upper triangle
    log_likelihood: Array  # ()
    patients: Counts  # ()
    events: Counts  # ()


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("logistic.terms", adds_over="rows")
def terms(rows: Labelled, *, coefficients: Array) -> Terms:
    """Gradient, information and log-likelihood of a site's rows at `coefficients` (p + 1,), intercept first."""
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    linear_predictor = design @ coefficients
    risk = special.expit(linear_predictor)
    weighted = design * (risk * (1 - risk))[:, None]
    return Terms(
        gradient=design.T @ (rows.y - risk),
        information=triangle.upper(design.T @ weighted),
        # log(1 + exp(z)) in the form that does not overflow for large |z|
        log_likelihood=np.asarray(rows.y @ linear_predictor - np.logaddexp(0, linear_predictor).sum()),
        patients=np.asarray(len(rows.y)),
        events=np.asarray(np.count_nonzero(rows.y)),
    )


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic(Estimates):
    """A fitted model; arrays are (p + 1,), the intercept first."""

    log_likelihood: float
    patients: int
    events: int
    gram: Array
    """Cross products (p + 1, p + 1) of the design: the information at coefficients of zero, where all weigh 1/4."""

    @property
    def null_log_likelihood(self) -> float:
        """Of the intercept alone, which the numbers of patients and events give."""
        return float(special.xlogy([self.events, self.patients - self.events], self._shares).sum())

    @property
    def _shares(self) -> Array:
        return np.array([self.events, self.patients - self.events]) / self.patients

    @property
    def likelihood_ratio(self) -> likelihood.ChiSquared:
        """Test of the model against the intercept alone."""
        return likelihood.ratio_test(self.log_likelihood, self.null_log_likelihood, len(self.coefficients) - 1)

    @property
    def aic(self) -> float:
        return likelihood.aic(self.log_likelihood, len(self.coefficients))

    @property
    def bic(self) -> float:
        return likelihood.bic(self.log_likelihood, len(self.coefficients), self.patients)


def fit(federation: Federation, predictors: int, *, names: Sequence[str] = ()) -> Logistic:
    """Fit the model over all sites of the federation; one sum a Newton step, six to ten in all.

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows whose x is (n, predictors), standardised, without a column of ones.
    predictors : int
        May be 0: the intercept alone.
    names : sequence of str, optional
        Of the predictors, for messages.

    Raises
    ------
    NotIdentifiable
        No finite maximum: one class only, predictors that separate the outcome, or a column that is constant or a
        combination of others. The message names the column and the remedy.
    """
    named = ["the intercept", *(names or [f"predictor {column}" for column in range(predictors)])]
    coefficients = np.zeros(predictors + 1)
    at = federation.sum(terms, coefficients=coefficients)
    refuse_one_class(at)
    gram = 4 * triangle.symmetric(at.information)  # all risks are 1/2
    refuse_collinear(gram, named)
    last = np.inf
    for _ in range(MAX_ROUNDS):
        step, decrement = _newton_step(at, coefficients, named)
        converged = decrement <= CONVERGED or last / 10 < decrement <= NEAR
        if converged and np.abs(step).max() <= SETTLED:
            return Logistic(
                coefficients=coefficients + step,
                covariance=np.asarray(np.linalg.inv(triangle.symmetric(at.information)), dtype=np.float64),
                log_likelihood=float(at.log_likelihood) + decrement**2 / 2,
                patients=int(at.patients),
                events=int(at.events),
                gram=gram,
            )
        worse = at.log_likelihood - 1e-9 * (1 + abs(at.log_likelihood))  # rounding of a sum is not a worse fit
        while (trial := federation.sum(terms, coefficients=coefficients + step)).log_likelihood < worse:
            step = step / 2
        coefficients, at, last = coefficients + step, trial, decrement
    raise separated(coefficients, named)


def _newton_step(at: Terms, coefficients: Array, named: Sequence[str]) -> tuple[Array, float]:
    """Step (p + 1,) and Newton decrement, the length of the step in the metric of the information."""
    try:
        step = np.asarray(np.linalg.solve(triangle.symmetric(at.information), at.gradient), dtype=np.float64)
    except np.linalg.LinAlgError as vanished:
        raise separated(coefficients, named) from vanished
    return step, float(np.sqrt(max(step @ at.gradient, 0.0)))


def refuse_one_class(at: Any) -> None:
    """Refuse sums, which count patients and events, that cannot tell the classes apart."""
    if at.patients == 0:
        raise NotIdentifiable("logistic regression: no site has a patient of this cohort; widen the selection")
    if at.events in (0, at.patients):
        which = "no patient has" if at.events == 0 else f"all {at.patients} patients have"
        raise NotIdentifiable(f"logistic regression: {which} the outcome; a fit needs both classes")


def refuse_collinear(information: Array, named: Sequence[str]) -> None:
    """Look at the design itself: at coefficients of zero all patients weigh the same."""
    scale = np.sqrt(np.diag(information))
    if (constant := scale <= SINGULAR * scale[0]).any():
        raise NotIdentifiable(f"{named[int(np.argmax(constant))]} has one value in all patients; drop it")
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if values[0] <= SINGULAR:
        parts = np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)
        listed = " and ".join(named[int(part)] for part in parts)
        raise NotIdentifiable(f"{listed} determine each other (collinear); drop one of them or penalise the model")


def separated(coefficients: Array, named: Sequence[str]) -> NotIdentifiable:
    """What to raise where coefficients grew without settling."""
    worst = int(np.argmax(np.abs(coefficients)))
    return NotIdentifiable(
        f"{named[worst]} separates the outcome (its coefficient grew to {coefficients[worst]:.0f} without settling); "
        'use penalty = "firth" or kind = "lasso", which stay finite, or drop it'
    )
