"""Heterogeneity: how far a model's performance differs between sites, from sums that tell no site's own figure.

Each site computes its own AUC, calibration intercept and slope (of a survival model C-index and slope) on scores of
models that have not seen it, each with its variance, and sends weighted sums: mean, variance between sites, and the
interval in which the figure of another hospital is expected. AUC and C are pooled on the logit scale, where their
estimates are closer to normal (Snell et al., Stat Methods Med Res 2018). A site whose figure cannot exist, or with
fewer than minimum_count events (of a binary endpoint, or others), contributes nothing. Three sums for all models
together, about seven where the variance between sites is by REML.

Debray et al., BMJ 356:i6460, 2017; Riley, Higgins & Deeks, BMJ 342:d549, 2011.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, PooledSites, statistic
from cohortium.strategies import calibration, concordance, discrimination, restricted_likelihood, slope_within_sites
from cohortium.strategies.meta_analysis import METHODS, Between, Meta, Sums, contribution, pool
from cohortium.strategies.restricted_likelihood import Restricted
from cohortium.strategies.rows import Array, Counts, Scored, ScoredSurvival
from cohortium.strategies.score_bins import GRID
from cohortium.strategies.validation_settings import Figure, undefined

BINARY = ("auc", "calibration.intercept", "calibration.slope")
SURVIVAL = ("c_index", "calibration_slope")
ON_LOGIT_SCALE = ("auc", "c_index")
FEWEST = 3
"""Sites: of two, each could subtract its own."""

# --- at each site ---------------------------------------------------------------------------------------------


class Able(NamedTuple):
    """Sites that have each figure of each model, and their events; (figures, models)."""

    sites: Counts
    events: Counts


@statistic("heterogeneity.able", adds_over="sites")
def able(rows: Scored | ScoredSurvival, *, minimum_count: int, time_step: float) -> Able:
    """Which figures exist at this site; `time_step` is the width of the time grid, of a binary endpoint unused."""
    estimate, _ = estimates(rows, minimum_count, time_step)
    exists = np.isfinite(estimate).astype(np.int64)
    events = rows.y if isinstance(rows, Scored) else rows.event
    return Able(exists, exists * int(events.sum()))


@statistic("heterogeneity.sums", adds_over="sites")
def sums(
    rows: Scored | ScoredSurvival, *, minimum_count: int, time_step: float, tau2: Array, centre: Array, unit: Array
) -> Sums:
    """Weighted sums of this site's figures at a variance between sites; weights in `unit`s, all (figures, models)."""
    estimate, variance = estimates(rows, minimum_count, time_step)
    known = np.isfinite(estimate)
    part = contribution(np.where(known, estimate, centre), np.where(known, variance, 1.0), tau2, centre)
    powers = {"weight": 1, "first": 1, "second": 1, "square": 2}
    return Sums(**{name: np.where(known, getattr(part, name) / unit**p, 0.0) for name, p in powers.items()})


@statistic("heterogeneity.restricted", adds_over="sites")
def restricted(
    rows: Scored | ScoredSurvival, *, minimum_count: int, time_step: float, tau2: Array, centre: Array, unit: Array
) -> Restricted:
    """Parts of the derivatives of the restricted likelihood, in `unit`s; all (figures, models)."""
    estimate, variance = estimates(rows, minimum_count, time_step)
    known = np.isfinite(estimate)
    estimate, variance = np.where(known, estimate, centre), np.where(known, variance, 1.0)
    part = restricted_likelihood.contribution(estimate, variance, tau2, centre, unit)
    return Restricted(*(np.where(known, field, 0.0) for field in part))


def estimates(rows: Scored | ScoredSurvival, minimum_count: int, time_step: float = 1.0) -> tuple[Array, Array]:
    """A site's own figures and their variances, (figures, models) each; NaN where there is none."""
    figures = BINARY if isinstance(rows, Scored) else SURVIVAL
    nothing = np.full((2, len(figures), rows.score.shape[1]), np.nan)
    if isinstance(rows, Scored):
        events = int(rows.y.sum())
        enough = min(events, len(rows.y) - events) >= max(minimum_count, 2)
        found = _binary(rows, nothing) if enough else nothing
    else:
        found = _survival(rows, nothing, time_step) if rows.event.sum() >= max(minimum_count, 2) else nothing
    estimate, variance = found
    exists = np.isfinite(estimate) & (variance > 0)
    return np.where(exists, estimate, np.nan), np.where(exists, variance, np.nan)


def _binary(rows: Scored, found: Array) -> Array:
    site = PooledSites([rows])
    edges = [np.arange(GRID + 1)] * rows.score.shape[1]
    counted = site.sum(discrimination.histogram, edges=edges, folds=1)
    patients = counted.patients.sum(0)
    for m, lower in enumerate(edges):
        area = discrimination.auc(patients[m], lower)
        found[:, 0, m] = _on_logit_scale(area.estimate, area.variance)
    for m, fit in enumerate(calibration.fit(site, patients, counted.score_sum)):
        for f, (value, ci) in enumerate(((fit.intercept, fit.intercept_ci), (fit.slope, fit.slope_ci)), start=1):
            if not isinstance(value, Undefined) and not isinstance(ci, Undefined):
                found[:, f, m] = value, ((ci[1] - ci[0]) / 2 / stats.norm.ppf(0.975)) ** 2
    return found


def _survival(rows: ScoredSurvival, found: Array, time_step: float) -> Array:
    site = PooledSites([rows])
    try:
        for m, index in enumerate(concordance.within_site(site, time_step=time_step)):
            found[:, 0, m] = _on_logit_scale(index.estimate, index.standard_error**2)
    except Undefined:
        pass  # all events at one time: no pair to compare
    for m, slope in enumerate(slope_within_sites.slopes(site, rows.score.shape[1], time_step=time_step)):
        if not isinstance(slope, Undefined):
            found[:, 1, m] = slope.value, slope.standard_error**2
    return found


def _on_logit_scale(value: float, variance: float) -> tuple[float, float]:
    """A share and its variance (delta method); NaN at 0 and 1, which have no logit."""
    if not 0 < value < 1:
        return np.nan, np.nan
    return float(special.logit(value)), variance / (value * (1 - value)) ** 2


# --- at the server --------------------------------------------------------------------------------------------


def summarise(
    federation: Federation,
    models: Sequence[str],
    figures: Sequence[str],
    *,
    minimum_count: int,
    minimum_sites: int,
    time_step: float = 1.0,
    log_hazards: Sequence[str] = (),
    between: Between = "dl",
) -> dict[str, dict[str, Figure]]:
    """Mean and heterogeneity of every figure of every model over the sites; three sums.

    Parameters
    ----------
    federation : Federation
        Rows are `Scored` (`figures` BINARY) or `ScoredSurvival` (SURVIVAL), one column of scores a model.
    minimum_sites : int
        Fewest sites of a summary; three at least.
    log_hazards : sequence of str
        Survival models whose score is a log relative hazard, so that it has a slope.
    between : {"dl", "reml"}
        How the variance between sites is estimated.

    Returns
    -------
    dict of model to dict of figure to record, as under ``heterogeneity`` in results.json
    """
    asked = {"minimum_count": minimum_count, "time_step": time_step}
    who = federation.sum(able, **asked)
    least = max(minimum_sites, FEWEST)
    kept = who.sites >= least
    unit = np.where(kept, who.events / np.maximum(who.sites, 1), 1.0)  # about the size of a weight

    def ask(tau2: Array, centre: Array) -> Sums:
        full = np.zeros((2, *kept.shape))
        full[:, kept] = tau2, centre
        found = federation.sum(sums, **asked, tau2=full[0], centre=full[1], unit=unit)
        back = unit[kept]
        return Sums(*((field[kept] * back ** (1 + (i == 3))) for i, field in enumerate(found)))

    def ask_restricted(tau2: Array, centre: Array, unit: Array) -> Restricted:
        full = np.ones((3, *kept.shape))
        full[:, kept] = tau2, centre, unit
        found = federation.sum(restricted, **asked, tau2=full[0], centre=full[1], unit=full[2])
        return Restricted(*(field[kept] for field in found))

    by_reml = ask_restricted if between == "reml" else None
    pooled = pool(ask, int(kept.sum()), who.sites[kept], 0, by_reml) if kept.any() else None
    place = np.cumsum(kept).reshape(kept.shape) - 1
    records: dict[str, dict[str, Figure]] = {name: {} for name in models}
    for f, figure in enumerate(figures):
        for m, name in enumerate(models):
            if figure == "calibration_slope" and name not in log_hazards:
                records[name][figure] = undefined("the score of this model is no log hazard")
            elif pooled is None or not kept[f, m]:
                have = f"{int(who.sites[f, m])} sites have this figure"
                records[name][figure] = undefined(f"{have}, {least} are needed, each with {minimum_count} events")
            else:
                records[name][figure] = _record(pooled, int(place[f, m]), logit=figure in ON_LOGIT_SCALE)
                records[name][figure] |= {} if between == "dl" else {"method": METHODS[between]}
    return records


def _record(pooled: Meta, i: int, *, logit: bool) -> dict[str, Any]:
    back: Callable[[Any], Any] = special.expit if logit else np.asarray
    return {
        "estimate": float(back(pooled.coefficients[i])),
        "ci": back(pooled.confidence_interval()[i]).tolist(),
        "ci_hartung_knapp": back(pooled.hartung_knapp_interval()[i]).tolist(),
        "prediction_interval": back(pooled.prediction_interval()[i]).tolist(),
        "tau2": float(pooled.tau2[i]),
        "i2": float(pooled.i2[i]),
        "q": float(pooled.q[i]),
        "p": float(pooled.q_p_values[i]),
        "sites": int(np.broadcast_to(pooled.sites, pooled.q.shape)[i]),
        "scale": "logit" if logit else "identity",
    }
