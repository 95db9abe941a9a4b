"""Meta-analysis: the sites' own logistic fits pooled by inverse variance, and how far they differ; no site's leaves it.

First who can fit is counted; then two sums: of weights at no variance between sites (Cochran's Q, tau2 by DerSimonian
and Laird), and of weights at that tau2, or one a step from there to the restricted maximum (`restricted_likelihood`).
Each coefficient is pooled by itself.

DerSimonian & Laird, Controlled Clinical Trials 7:177, 1986; Higgins, Thompson & Spiegelhalter, JRSS A 172:137, 2009.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import restricted_likelihood
from cohortium.strategies.local_fits import FEWEST, own_logistic
from cohortium.strategies.restricted_likelihood import Restricted
from cohortium.strategies.rows import Array, Counts, Labelled

Between = Literal["dl", "reml"]
"""How the variance between sites is estimated."""
METHODS: dict[Between, str] = {"dl": "DerSimonian-Laird", "reml": "REML"}


class Able(NamedTuple):
    """Who can fit."""

    sites: Counts  # ()
    patients: Counts  # ()


class Sums(NamedTuple):
    """Weighted sums over sites of their estimates b, of variance v, with w = 1 / (v + tau2); all of one shape."""

    weight: Array  # w
    first: Array  # w (b - centre)
    second: Array  # w (b - centre)^2
    square: Array  # w^2


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("meta_analysis.able", adds_over="sites")
def able(rows: Labelled) -> Able:
    """Whether the site's own fit exists, and on how many patients."""
    fitted = _local(rows) is not None
    return Able(np.asarray(int(fitted)), np.asarray(len(rows.y) if fitted else 0))


@statistic("meta_analysis.sums", adds_over="sites")
def sums(rows: Labelled, *, tau2: Array, centre: Array) -> Sums:
    """The site's part at a variance `tau2` (p + 1,) between sites, estimates counted from `centre` (p + 1,)."""
    fitted = _local(rows)
    if fitted is None:
        return Sums(*(np.zeros(rows.x.shape[1] + 1) for _ in Sums._fields))
    return contribution(*fitted, tau2, centre)


@statistic("meta_analysis.restricted", adds_over="sites")
def restricted(rows: Labelled, *, tau2: Array, centre: Array, unit: Array) -> Restricted:
    """The site's part of the derivatives of the restricted likelihood; parameters (p + 1,)."""
    fitted = _local(rows)
    if fitted is None:
        return Restricted(*(np.zeros(rows.x.shape[1] + 1) for _ in Restricted._fields))
    return restricted_likelihood.contribution(*fitted, tau2, centre, unit)


def contribution(estimate: Array, variance: Array, tau2: Array, centre: Array) -> Sums:
    """One site's part of weighted sums."""
    weight = 1 / (variance + tau2)
    apart = estimate - centre
    return Sums(weight=weight, first=weight * apart, second=weight * apart**2, square=weight**2)


def _local(rows: Labelled) -> tuple[Array, Array] | None:
    """Estimates of the site's fit and their variances, or None where there is none to rely on."""
    events = int(np.count_nonzero(rows.y))
    if min(events, len(rows.y) - events) < FEWEST:
        return None
    try:
        coefficients, covariance = own_logistic(rows)
    except NotIdentifiable:
        return None
    return coefficients, np.diag(covariance)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Meta:
    """Random-effects means of the sites' estimates; arrays are (k,), of `fit` (p + 1,), the intercept first."""

    coefficients: Array
    standard_errors: Array
    q: Array  # Cochran's
    tau2: Array  # variance between sites
    common: Array  # fixed-effect means, where all sites are taken to share one coefficient
    common_errors: Array
    spread: Array  # sum of w (b - mean)^2 at tau2
    sites: int | Counts  # whose estimates are pooled: of all, or of each
    patients: int

    @property
    def i2(self) -> Array:
        """Share of the variance of the estimates that lies between sites."""
        q, df = self.q, self.sites - 1
        return np.where(q > df, 1 - df / np.maximum(q, 1e-300), 0.0)

    @property
    def q_p_values(self) -> Array:
        return stats.chi2.sf(self.q, self.sites - 1)

    def confidence_interval(self, level: float = 0.95) -> Array:
        """Normal interval of the means, (k, 2)."""
        half = stats.norm.ppf((1 + level) / 2) * self.standard_errors
        return self.coefficients[:, None] + half[:, None] * [-1, 1]

    def hartung_knapp_interval(self, level: float = 0.95) -> Array:
        """Student interval of the means by Hartung and Knapp (Stat Med 20:3875, 2001), (k, 2)."""
        df = self.sites - 1
        half = stats.t.ppf((1 + level) / 2, df) * np.sqrt(self.spread / df) * self.standard_errors
        return self.coefficients[:, None] + half[:, None] * [-1, 1]

    def prediction_interval(self, level: float = 0.95) -> Array:
        """Where the estimate of another site is expected, (k, 2); of three sites or more (Riley et al., BMJ 2011)."""
        df = np.asarray(self.sites) - 2.0
        wide = stats.t.ppf((1 + level) / 2, np.where(df > 0, df, np.nan))
        half = wide * np.sqrt(self.tau2 + self.standard_errors**2)
        return self.coefficients[:, None] + half[:, None] * [-1, 1]


def fit(federation: Federation, predictors: int, *, minimum_sites: int = 3, between: Between = "dl") -> Meta:
    """Pool the sites' own fits; three sums, by REML about seven.

    Raises
    ------
    NotIdentifiable
        Fewer than `minimum_sites` have a fit of their own.
    """
    who = federation.sum(able)
    if who.sites < minimum_sites:
        raise NotIdentifiable(
            f"meta-analysis: {int(who.sites)} sites have a fit of their own (both classes at least {FEWEST} times, no "
            f'separation), {minimum_sites} are needed; use aggregation = "exact", which needs none'
        )

    def ask(tau2: Array, centre: Array) -> Sums:
        return federation.sum(sums, tau2=tau2, centre=centre)

    def ask_restricted(tau2: Array, centre: Array, unit: Array) -> Restricted:
        return federation.sum(restricted, tau2=tau2, centre=centre, unit=unit)

    by_reml = ask_restricted if between == "reml" else None
    return pool(ask, predictors + 1, int(who.sites), int(who.patients), by_reml)


def pool(
    ask: Callable[[Array, Array], Sums],
    k: int,
    sites: int | Counts,
    patients: int,
    by_reml: restricted_likelihood.Ask | None = None,
) -> Meta:
    """Random-effects means of k estimates; two sums, by REML one and one a step.

    Parameters
    ----------
    ask : callable
        ``ask(tau2, centre)`` gives the sites' weighted sums, each (k,).
    sites : int or (k,)
        Sites that contribute.
    by_reml : callable, optional
        As `restricted_likelihood.maximise` asks; unset, the variance between sites is DerSimonian and Laird's.
    """
    nothing = np.zeros(k)
    plain = ask(nothing, nothing)
    common = plain.first / plain.weight
    q = np.maximum(plain.second - plain.first**2 / plain.weight, 0.0)
    df = np.asarray(sites) - 1
    spread = plain.weight - plain.square / plain.weight  # 0 of one site
    tau2 = np.maximum(q - df, 0.0) / np.where(df > 0, spread, 1.0)
    if by_reml is None:
        pooled = ask(tau2, common)
    else:
        tau2, found, unit = restricted_likelihood.maximise(by_reml, tau2, common, sites / plain.weight)
        pooled = Sums(found.weight * unit, found.first * np.sqrt(unit), found.second, found.square * unit**2)
    return Meta(
        coefficients=common + pooled.first / pooled.weight,
        standard_errors=1 / np.sqrt(pooled.weight),
        q=q,
        tau2=tau2,
        common=common,
        common_errors=1 / np.sqrt(plain.weight),
        spread=np.maximum(pooled.second - pooled.first**2 / pooled.weight, 0.0),
        sites=sites,
        patients=patients,
    )
