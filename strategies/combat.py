"""ComBat: features freed of site effects, with covariates whose effect is protected.

Model and empirical-Bayes estimates of Johnson, Li & Rabinovic (Biostatistics 8:118, 2007), parametric priors, as in
sva and neuroCombat:

    x_ij = alpha_j + c_i' beta_j + gamma_sj + delta_sj e_ij      for patient i of site s, feature j

Across sites only alpha, beta and the pooled variance are needed: three sums. A site's own gamma and delta, and the
priors that shrink them across its features, need its own patients alone and never leave it. So a site that was not in
training is harmonised too, against the frozen alpha, beta and variance.

Missing features are left out feature by feature; a missing covariate counts as its mean.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import NotIdentifiable, SiteError
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import moments, triangle
from cohortium.strategies.moments import Moments
from cohortium.strategies.rows import Array, Counts, Matrix

NO_SPREAD = 1e-11
"""Share of a feature's variance below which nothing varies inside the sites; fixed point leaves 1e-12 of noise."""
SETTLED = 1e-4
"""Relative change that ends the empirical-Bayes iteration; that of sva and neuroCombat, so that figures agree."""


class WithinSite(NamedTuple):
    """A site's cross-products about its own means, for p features and c covariates, both standardised."""

    present: Counts  # (p,), patients with the feature
    total: Array  # (p,), sum of the feature
    covariate_total: Array  # (p, c), sum of the covariates over them
    squares: Array  # (p,)
    products: Array  # (p, c), feature x covariate
    covariate_products: Array  # (p, c (c + 1) / 2), upper triangles


class Combat(NamedTuple):
    """What all sites share, in the units of the features and covariates."""

    grand_mean: Array  # (p,), for a patient with mean covariates
    pooled_variance: Array  # (p,), within sites; 0 where nothing varies inside them
    protect_coefficients: Array  # (c, p)
    protect_mean: Array  # (c,)

    def expected(self, protect: Array) -> Array:
        """Mean of each feature without site effects, (n, p), for covariates (n, c)."""
        away = np.nan_to_num(protect - self.protect_mean)  # a missing covariate counts as its mean
        return self.grand_mean + away @ self.protect_coefficients


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("combat.within_site", adds_over="sites")
def within_site(rows: Matrix, *, mean: Array, sd: Array, protected: int) -> WithinSite:
    """Cross-products of a site's rows about the site's own means.

    Parameters
    ----------
    mean, sd : (p + c,)
        Of all sites; columns with sd = 0 count as zero throughout.
    protected : int
        The last c columns of x are the covariates.
    """
    z = Moments(patients=0, n=np.zeros(0, dtype=np.int64), mean=mean, sd=sd).standardise(rows.x)
    p = z.shape[1] - protected
    known = ~np.isnan(z[:, :p])
    x, c = np.nan_to_num(z[:, :p]), np.nan_to_num(z[:, p:])
    n = known.sum(axis=0)
    site_mean = x.sum(axis=0) / n.clip(1)
    site_covariates = known.T.astype(np.float64) @ c / n.clip(1)[:, None]  # (p, c), over those who have the feature
    x = np.where(known, x - site_mean, 0.0)
    # c - mean of c over the patients of feature j, written out: the products of x take any centre, those of c do not
    first, second = np.triu_indices(protected)
    pairs = known.T.astype(np.float64) @ (c[:, first] * c[:, second])
    return WithinSite(
        present=n,
        total=site_mean * n,
        covariate_total=site_covariates * n[:, None],
        squares=(x**2).sum(axis=0),
        products=x.T @ c,
        covariate_products=pairs - n[:, None] * site_covariates[:, first] * site_covariates[:, second],
    )


def harmonise(x: Array, protect: Array, training: NDArray[np.bool_], combat: Combat) -> Array:
    """Features of one site without its location and scale; nothing is sent.

    Parameters
    ----------
    x : (n, p)
        A site's features in their units; NaN stays NaN.
    protect : (n, c)
        Its covariates.
    training : (n,) bool
        Patients from whom the site's gamma and delta are estimated; at a site that was not in training, all.
    combat : Combat

    Raises
    ------
    SiteError
        Patients to harmonise, but none to estimate from.
    """
    if len(x) and not np.any(training):
        raise SiteError("ComBat: no training patient at this site; estimate from all its patients instead")
    expected = combat.expected(protect)
    varies = combat.pooled_variance > 0
    sd = np.sqrt(combat.pooled_variance[varies])
    z = (x[:, varies] - expected[:, varies]) / sd
    gamma, delta = _location_and_scale(z[training])
    harmonised = np.where(np.isnan(x), np.nan, expected)  # where only the site made a difference, none is left
    harmonised[:, varies] += (z - gamma) / np.sqrt(delta) * sd
    return harmonised


def _location_and_scale(z: Array) -> tuple[Array, Array]:
    """Empirical-Bayes gamma (p,) and delta (p,), a variance, from a site's standardised training rows (n, p).

    One patient gives a location only, a single feature borrows from no other, an absent one stays as it is.
    """
    known = ~np.isnan(z)
    n = known.sum(axis=0)
    gamma = np.nan_to_num(z).sum(axis=0) / n.clip(1)
    squares = np.where(known, (z - gamma) ** 2, 0.0).sum(axis=0)
    located, scaled = n > 0, n > 1
    delta = np.where(scaled & (squares > 0), squares / (n - 1).clip(1), 1.0)
    if located.sum() < 2:
        return gamma, delta
    prior_mean, prior_variance = gamma[located].mean(), gamma[located].var(ddof=1)
    if scaled.sum() >= 2:
        gamma[scaled], delta[scaled] = _posterior(n[scaled], gamma[scaled], squares[scaled], prior_mean, prior_variance)
    alone = located & ~scaled
    gamma[alone] = _posterior_mean(n[alone], gamma[alone], delta[alone], prior_mean, prior_variance)
    return gamma, delta


def _posterior(n: Counts, mean: Array, squares: Array, prior_mean: float, prior_variance: float) -> tuple[Array, Array]:
    """Alternate the conditional posterior means of location and scale (Johnson 2007, section 3.2.3)."""
    variance = squares / (n - 1)
    centre = variance.mean()
    spread = max(variance.var(ddof=1), 1e-12 * centre**2)  # features of equal scale: all take the common one
    shape, rate = 2 + centre**2 / spread, centre + centre**3 / spread  # inverse gamma with these two moments
    gamma, delta = mean, variance
    change = np.inf
    while change > SETTLED:
        last = gamma, delta
        gamma = _posterior_mean(n, mean, delta, prior_mean, prior_variance)
        delta = (0.5 * (squares + n * (mean - gamma) ** 2) + rate) / (n / 2 + shape - 1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a location of exactly zero has no relative change
            # signed denominators, as in the reference implementations
            changes = np.concatenate([np.abs(new - old) / old for new, old in zip((gamma, delta), last, strict=True)])
        change = changes[np.isfinite(changes)].max(initial=-np.inf)
    return gamma, delta


def _posterior_mean(n: Counts, mean: Array, delta: Array, prior_mean: float, prior_variance: float) -> Array:
    if prior_variance == 0:
        return np.full_like(mean, prior_mean)
    return (n * prior_variance * mean + delta * prior_mean) / (n * prior_variance + delta)


# --- at the server --------------------------------------------------------------------------------------------


def fit(federation: Federation, columns: int, protected: int = 0) -> Combat:
    """What all sites share, from the training patients. Three sums.

    Parameters
    ----------
    federation : Federation
        Of `Matrix` rows in their units: x (n, columns + protected), the protected covariates last.
    columns, protected : int

    Raises
    ------
    NotIdentifiable
        The protected covariates do not vary inside the sites, or determine each other there.
    """
    scale = moments.fit(federation, columns + protected)
    at = federation.sum(within_site, mean=scale.mean, sd=scale.sd, protected=protected)
    coefficients = _coefficients(at, protected)
    # residual squares of least squares: b solves the normal equations, so b'(covariate products)b = b'products
    variance = (at.squares - (coefficients * at.products).sum(axis=1)) / at.present.clip(1)
    variance[variance <= NO_SPREAD] = 0.0
    grand_mean = (at.total - (coefficients * at.covariate_total).sum(axis=1)) / at.present.clip(1)
    unit, covariate_unit = scale.sd[:columns], scale.sd[columns:]
    return Combat(
        grand_mean=scale.mean[:columns] + grand_mean * unit,
        pooled_variance=variance * unit**2,
        protect_coefficients=coefficients.T * unit / np.where(covariate_unit > 0, covariate_unit, np.inf)[:, None],
        protect_mean=scale.mean[columns:],
    )


def _coefficients(at: WithinSite, protected: int) -> Array:
    """Within-site regression of each feature on the covariates, (p, c), standardised."""
    if at.products.size == 0:
        return np.zeros(at.products.shape)
    products = np.array([triangle.symmetric(line) for line in at.covariate_products])
    fullest = int(np.argmax(at.present))
    if np.linalg.eigvalsh(products[fullest])[0] <= 1e-9 * at.present[fullest]:
        what = (
            "the protected covariate is constant" if protected == 1 else "a protected covariate is constant or implied"
        )
        raise NotIdentifiable(f"ComBat: {what} inside every site; take it out of protect")
    # a feature that few patients have may not determine all effects: then the smallest ones
    inverse = np.linalg.pinv(products, rcond=1e-9, hermitian=True)
    return np.einsum("pij,pj->pi", inverse, at.products)
