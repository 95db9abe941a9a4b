"""Site effects: logistic regression with an intercept for each site, as parameters or drawn from a normal distribution.

Fixed: each site maximises over its own intercept at the coefficients it is asked about, and answers with the profile
likelihood's terms; no intercept leaves a site. The estimates are those of a pooled fit with a dummy for each site. A
site with one class only has its intercept at infinity and adds nothing, as in the pooled fit.

Random: the likelihood of a site is an integral over its intercept, done by adaptive Gauss-Hermite quadrature at the
site; its gradient and curvature are those of the integrand, averaged (Louis, JRSS B 44:226, 1982).
Pinheiro & Bates, JCGS 4:12, 1995.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import likelihood, logistic, triangle
from cohortium.strategies.rows import Array, Counts, Labelled
from cohortium.strategies.wald import Estimates

NODES = 51
"""Of the quadrature, about the mode of each site: more change the log-likelihood by less than rounding."""
SETTLED = 1e-8
"""Largest element of the last step, in standardised units; Newton's next would be its square."""
MAX_ROUNDS = 40
LOCAL_STEPS = 100
LATENT_VARIANCE = np.pi**2 / 3  # of the logistic distribution


class Profile(NamedTuple):
    """Terms of the likelihood in which each site's intercept is at its best."""

    gradient: Array  # (p,)
    information: Array  # (p (p + 1) / 2,), upper triangle
    log_likelihood: Array  # ()
    patients: Counts  # (), of sites with both classes
    events: Counts  # ()
    sites: Counts  # (), with both classes


class Intercept(NamedTuple):
    """Part of the mean of the sites' intercepts."""

    weighted: Array  # ()


class Marginal(NamedTuple):
    """Terms of the likelihood in which each site's intercept is integrated out; q = p + 2 parameters."""

    gradient: Array  # (q,): intercept, coefficients, log of the standard deviation
    information: Array  # (q (q + 1) / 2,), upper triangle
    log_likelihood: Array  # ()
    at_zero: Array  # (): derivative by the variance where it is zero


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("site_effects.profile", adds_over="sites")
def profile(rows: Labelled, *, coefficients: Array) -> Profile:
    """Profile terms of the site at `coefficients` (p,)."""
    p, events = rows.x.shape[1], int(np.count_nonzero(rows.y))
    if events in (0, len(rows.y)):
        none = np.asarray(0)
        return Profile(np.zeros(p), np.zeros(p * (p + 1) // 2), np.asarray(0.0), none, none, none)
    linear_predictor = rows.x @ coefficients
    linear_predictor = linear_predictor + _own_intercept(linear_predictor, rows.y)
    risk = special.expit(linear_predictor)
    weight = risk * (1 - risk)
    centred = rows.x - weight @ rows.x / weight.sum()
    return Profile(
        gradient=rows.x.T @ (rows.y - risk),
        information=triangle.upper(centred.T @ (centred * weight[:, None])),
        log_likelihood=np.asarray(_log_likelihood(rows.y, linear_predictor)),
        patients=np.asarray(len(rows.y)),
        events=np.asarray(events),
        sites=np.asarray(1),
    )


@statistic("site_effects.intercept", adds_over="sites")
def intercept(rows: Labelled, *, coefficients: Array, patients: int) -> Intercept:
    """The site's intercept, weighted with its share of the `patients` of all sites that have one."""
    if np.count_nonzero(rows.y) in (0, len(rows.y)):
        return Intercept(np.asarray(0.0))
    return Intercept(np.asarray(_own_intercept(rows.x @ coefficients, rows.y) * len(rows.y) / patients))


def _own_intercept(offset: Array, y: Array) -> float:
    """Intercept at which the site's risks add up to its events: Newton between bounds that hold it."""
    share = np.log(y.mean() / (1 - y.mean()))
    low, high = share - offset.max(), share - offset.min()
    value = (low + high) / 2
    for _ in range(LOCAL_STEPS):
        risk = special.expit(offset + value)
        excess = float((y - risk).sum())
        low, high = (value, high) if excess > 0 else (low, value)
        weight = float((risk * (1 - risk)).sum())
        trial = value + excess / weight if weight > 0 else np.inf
        trial = trial if low <= trial <= high else (low + high) / 2
        if abs(trial - value) <= 1e-14 * (1 + abs(value)):
            return trial
        value = trial
    return value


@statistic("site_effects.marginal", adds_over="sites")
def marginal(rows: Labelled, *, coefficients: Array, log_sd: float) -> Marginal:
    """Marginal terms of the site at `coefficients` (p + 1,) and the standard deviation exp(`log_sd`)."""
    p = rows.x.shape[1] + 1
    if not len(rows.y):
        return Marginal(np.zeros(p + 1), np.zeros((p + 1) * (p + 2) // 2), np.asarray(0.0), np.asarray(0.0))
    design = np.column_stack([np.ones(len(rows.y)), rows.x])
    fixed, sd = design @ coefficients, float(np.exp(log_sd))
    nodes, share, log_likelihood = _quadrature(fixed, rows.y, sd)
    risk = special.expit(fixed[:, None] + sd * nodes)  # (n, nodes)
    residual, weight = rows.y[:, None] - risk, risk * (1 - risk)
    # of the integrand at each node, by (coefficients, log of the sd): d eta / d log sd = sd u
    by_sd = sd * nodes * residual.sum(0)
    gradients = np.vstack([design.T @ residual, by_sd])
    mean = gradients @ share
    curvature = np.zeros((p + 1, p + 1))
    curvature[:p, :p] = design.T @ (design * (weight @ share)[:, None])
    curvature[:p, p] = curvature[p, :p] = design.T @ (weight @ (share * sd * nodes))
    curvature[p, p] = share @ ((sd * nodes) ** 2 * weight.sum(0) - by_sd)
    spread = (gradients * share) @ gradients.T - np.outer(mean, mean)
    flat = special.expit(fixed)
    return Marginal(
        gradient=mean,
        information=triangle.upper(curvature - spread),
        log_likelihood=np.asarray(log_likelihood),
        at_zero=np.asarray(((rows.y - flat).sum() ** 2 - (flat * (1 - flat)).sum()) / 2),
    )


def _quadrature(fixed: Array, y: Array, sd: float) -> tuple[Array, Array, float]:
    """Nodes of u (the intercept is sd u), their shares of the integral, and the log of the integral."""
    mode, curvature = 0.0, 1.0
    for _ in range(LOCAL_STEPS):
        risk = special.expit(fixed + sd * mode)
        curvature = 1 + sd**2 * float((risk * (1 - risk)).sum())
        step = (sd * float((y - risk).sum()) - mode) / curvature
        mode += float(np.clip(step, -1 / max(sd, 1e-3), 1 / max(sd, 1e-3)))  # one on the logit scale at most
        if abs(step) <= 1e-13 * (1 + abs(mode)):
            break
    points, weights = np.polynomial.hermite.hermgauss(NODES)
    scale = np.sqrt(2 / curvature)
    nodes = mode + scale * points
    eta = fixed[:, None] + sd * nodes
    logs = y @ eta - np.logaddexp(0, eta).sum(0) - nodes**2 / 2 + points**2 + np.log(weights)
    total = float(np.asarray(special.logsumexp(logs)))
    return nodes, np.exp(logs - total), total + float(np.log(scale) - np.log(2 * np.pi) / 2)


def _log_likelihood(y: Array, linear_predictor: Array) -> float:
    return float(y @ linear_predictor - np.logaddexp(0, linear_predictor).sum())


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedEffects(Estimates):
    """Coefficients (p,), without intercepts; the mean intercept is weighted by patients."""

    mean_intercept: float
    log_likelihood: float
    patients: int
    sites: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomIntercept(Estimates):
    """Coefficients (p + 1,), the mean intercept first; `sd` of the sites' intercepts about it."""

    sd: float
    log_likelihood: float
    without: logistic.Logistic
    """The fit without site effects."""

    @property
    def heterogeneity(self) -> likelihood.ChiSquared:
        """Test of sd = 0, which lies on the edge: half of chi-squared(1) (Self & Liang, JASA 82:605, 1987)."""
        test = likelihood.ratio_test(self.log_likelihood, self.without.log_likelihood, 1)
        return likelihood.ChiSquared(chi2=test.chi2, df=1, p=test.p / 2 if test.chi2 > 0 else 1.0)

    @property
    def intraclass_correlation(self) -> float:
        """Share of the variance between sites on the latent scale."""
        return self.sd**2 / (self.sd**2 + LATENT_VARIANCE)

    @property
    def median_odds_ratio(self) -> float:
        """Between the same patient at two random sites (Larsen & Merlo 2005)."""
        return float(np.exp(np.sqrt(2) * self.sd * stats.norm.ppf(0.75)))


def fit_fixed(
    federation: Federation, predictors: int, *, names: Sequence[str] = (), minimum_sites: int = 3
) -> FixedEffects:
    """Fit with an intercept for each site; one sum a Newton step, and one for the mean intercept.

    Raises
    ------
    NotIdentifiable
        Fewer than `minimum_sites` with both classes; separation; columns constant or collinear within the sites.
    """
    named = names or [f"predictor {column}" for column in range(predictors)]
    coefficients = np.zeros(predictors)
    at = federation.sum(profile, coefficients=coefficients)
    if at.sites < minimum_sites:
        raise NotIdentifiable(
            f"intercepts for each site: {int(at.sites)} sites have both classes, at least {minimum_sites} are needed; "
            'use site_effects = "none"'
        )
    _refuse_within(triangle.symmetric(at.information), named, float(at.patients))
    for _ in range(MAX_ROUNDS):
        try:
            step = np.linalg.solve(triangle.symmetric(at.information), at.gradient)
        except np.linalg.LinAlgError as vanished:
            raise logistic.separated(coefficients, named) from vanished
        if np.abs(step).max(initial=0.0) <= SETTLED:
            coefficients = coefficients + step
            patients = int(at.patients)
            return FixedEffects(
                coefficients=coefficients,
                covariance=np.asarray(np.linalg.inv(triangle.symmetric(at.information)), dtype=np.float64),
                mean_intercept=float(federation.sum(intercept, coefficients=coefficients, patients=patients).weighted),
                log_likelihood=float(at.log_likelihood + step @ at.gradient / 2),
                patients=patients,
                sites=int(at.sites),
            )
        worse = at.log_likelihood - 1e-9 * (1 + abs(at.log_likelihood))  # rounding of a sum is not a worse fit
        while (trial := federation.sum(profile, coefficients=coefficients + step)).log_likelihood < worse:
            step = step / 2
        coefficients, at = coefficients + step, trial
        if np.abs(coefficients).max() > LARGEST:
            break
    raise logistic.separated(coefficients, named)


LARGEST = 50.0  # of a standardised column: separation


def _refuse_within(information: Array, named: Sequence[str], patients: float) -> None:
    scale = np.sqrt(np.diag(information))
    if (constant := scale <= logistic.SINGULAR * np.sqrt(patients)).any():
        raise NotIdentifiable(f"{named[int(np.argmax(constant))]} has one value in each site; drop it")
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if len(values) and values[0] <= logistic.SINGULAR:
        listed = " and ".join(named[int(part)] for part in np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3))
        raise NotIdentifiable(f"{listed} determine each other within sites (collinear); drop one of them")


def fit_random(federation: Federation, predictors: int, *, names: Sequence[str] = ()) -> RandomIntercept:
    """Fit with a normal intercept of each site; the sums of a plain fit, then one a Newton step.

    Where the likelihood falls as soon as the variance leaves zero, the plain fit is the solution, with sd = 0.

    Raises
    ------
    NotIdentifiable
        As `logistic.fit`; or the likelihood does not settle.
    """
    plain = logistic.fit(federation, predictors, names=names)
    parameters = np.append(plain.coefficients, -1.0)
    at = federation.sum(marginal, coefficients=plain.coefficients, log_sd=-1.0)
    if at.at_zero <= 0:
        return RandomIntercept(
            coefficients=plain.coefficients,
            covariance=plain.covariance,
            sd=0.0,
            log_likelihood=plain.log_likelihood,
            without=plain,
        )
    for _ in range(MAX_ROUNDS):
        values, vectors = np.linalg.eigh(triangle.symmetric(at.information))
        # uphill whatever the curvature; at the solution all eigenvalues are positive and this is Newton's step
        step = vectors @ ((vectors.T @ at.gradient) / np.maximum(np.abs(values), 1e-6))
        step *= min(1.0, 1.0 / np.abs(step).max(initial=1e-300))
        if np.abs(step).max() <= SETTLED and values[0] > 0:
            covariance = np.linalg.inv(triangle.symmetric(at.information))
            return RandomIntercept(
                coefficients=(parameters + step)[:-1],
                covariance=np.asarray(covariance[:-1, :-1], dtype=np.float64),
                sd=float(np.exp((parameters + step)[-1])),
                log_likelihood=float(at.log_likelihood + step @ at.gradient / 2),
                without=plain,
            )
        worse = at.log_likelihood - 1e-9 * (1 + abs(at.log_likelihood))
        while True:
            trial = federation.sum(
                marginal, coefficients=(parameters + step)[:-1], log_sd=float((parameters + step)[-1])
            )
            if trial.log_likelihood >= worse:
                break
            step = step / 2
        parameters, at = parameters + step, trial
    raise NotIdentifiable(
        'the random intercept did not settle; use site_effects = "fixed", which assumes nothing of the sites'
    )
