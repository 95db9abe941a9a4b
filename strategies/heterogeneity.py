"""Heterogeneity: how far a model's performance differs between sites, from sums that tell no site's own figure.

Each site computes its own AUC, calibration intercept and slope (of a survival model C-index and slope, of a number
explained variance, error and slope) on scores of models that have not seen it, each with its variance, and sends
weighted sums: mean, variance between sites, and the interval in which the figure of another hospital is expected. AUC
and C are pooled on the logit scale, where their estimates are closer to normal (Snell et al., Stat Methods Med Res
2018), errors on the logarithmic one. A site whose figure cannot exist, or with fewer than minimum_count events (of a
binary endpoint, or others; patients, where the outcome is a number), contributes nothing. Three sums for all models
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
from cohortium.strategies.rows import Array, Counts, Matrix, Scored, ScoredSurvival
from cohortium.strategies.score_bins import GRID
from cohortium.strategies.validation_settings import Figure, undefined

Rows = Scored | ScoredSurvival | Matrix
BINARY = ("auc", "calibration.intercept", "calibration.slope")
SURVIVAL = ("c_index", "calibration_slope")
CONTINUOUS = ("r_squared", "rmse", "mean_difference", "calibration.slope")
FEWEST = 3
"""Sites: of two, each could subtract its own."""
ROUNDING = 1e-12
"""Of numbers, by their size: what differs by less is alike."""
EXACT = 1e-8
"""Errors of predictions, by the outcome's spread: fits are sums of integers, and no better than that."""


class Scale(NamedTuple):
    """A scale on which figures are pooled, and the way back."""

    name: str
    back: Callable[[Any], Any]


IDENTITY = Scale("identity", np.asarray)
LOGIT = Scale("logit", special.expit)
SCALES = {"auc": LOGIT, "c_index": LOGIT, "rmse": Scale("log", np.exp)}
SCALES |= {"r_squared": Scale("-log(1 - R2)", lambda value: -np.expm1(-np.asarray(value)))}

# --- at each site ---------------------------------------------------------------------------------------------


class Able(NamedTuple):
    """Sites that have each figure of each model, and their events; (figures, models)."""

    sites: Counts
    events: Counts


@statistic("heterogeneity.able", adds_over="sites")
def able(rows: Rows, *, minimum_count: int, time_step: float) -> Able:
    """Which figures exist at this site; `time_step` is the width of the time grid, without times unused."""
    estimate, _ = estimates(rows, minimum_count, time_step)
    exists = np.isfinite(estimate).astype(np.int64)
    events = len(rows.x) if isinstance(rows, Matrix) else (rows.y if isinstance(rows, Scored) else rows.event).sum()
    return Able(exists, exists * int(events))


@statistic("heterogeneity.sums", adds_over="sites")
def sums(
    rows: Rows,
    *,
    minimum_count: int,
    time_step: float,
    tau2: Array,
    centre: Array,
    unit: Array,
    measure: Array | float = 1.0,
) -> Sums:
    """Weighted sums of this site's figures at a variance between sites; all (figures, models).

    Figures, and `tau2` and `centre` with them, are counted in `measure`s, their weights in `unit`s.
    """
    estimate, variance = estimates(rows, minimum_count, time_step)
    estimate, variance = estimate / measure, variance / measure**2
    known = np.isfinite(estimate)
    part = contribution(np.where(known, estimate, centre), np.where(known, variance, 1.0), tau2, centre)
    powers = {"weight": 1, "first": 1, "second": 1, "square": 2}
    return Sums(**{name: np.where(known, getattr(part, name) / unit**p, 0.0) for name, p in powers.items()})


@statistic("heterogeneity.restricted", adds_over="sites")
def restricted(
    rows: Rows, *, minimum_count: int, time_step: float, tau2: Array, centre: Array, unit: Array
) -> Restricted:
    """Parts of the derivatives of the restricted likelihood, in `unit`s; all (figures, models)."""
    estimate, variance = estimates(rows, minimum_count, time_step)
    known = np.isfinite(estimate)
    estimate, variance = np.where(known, estimate, centre), np.where(known, variance, 1.0)
    part = restricted_likelihood.contribution(estimate, variance, tau2, centre, unit)
    return Restricted(*(np.where(known, field, 0.0) for field in part))


def estimates(rows: Rows, minimum_count: int, time_step: float = 1.0) -> tuple[Array, Array]:
    """A site's own figures and their variances, (figures, models) each; NaN where there is none."""
    figures, models = shape(rows)
    nothing = np.full((2, len(figures), models), np.nan)
    if isinstance(rows, Matrix):
        found = _continuous(rows, nothing) if len(rows.x) >= max(minimum_count, 4) else nothing
    elif isinstance(rows, Scored):
        events = int(rows.y.sum())
        enough = min(events, len(rows.y) - events) >= max(minimum_count, 2)
        found = _binary(rows, nothing) if enough else nothing
    else:
        found = _survival(rows, nothing, time_step) if rows.event.sum() >= max(minimum_count, 2) else nothing
    estimate, variance = found
    exists = np.isfinite(estimate) & (variance > 0)
    return np.where(exists, estimate, np.nan), np.where(exists, variance, np.nan)


def shape(rows: Rows) -> tuple[tuple[str, ...], int]:
    """Figures of such rows, and how many models they hold."""
    if isinstance(rows, Matrix):  # outcome, predictions, errors, errors without sign
        return CONTINUOUS, rows.x.shape[1] // 3
    return BINARY if isinstance(rows, Scored) else SURVIVAL, rows.score.shape[1]


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


def _continuous(rows: Matrix, found: Array) -> Array:
    """Figures of predicted numbers; variances of means, of ratios of means (delta method), of a least-squares slope."""
    n, models = len(rows.x), rows.x.shape[1] // 3
    y, predicted, error = rows.x[:, :1], rows.x[:, 1 : models + 1], rows.x[:, models + 1 : 2 * models + 1]
    spread, apart = _about_mean(y), _about_mean(predicted)
    squares, total, along = (error**2).mean(axis=0), (spread**2).mean(), (apart**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # what cannot exist is not finite, or has no variance
        slope = (apart * spread).sum(axis=0) / along
        left = ((spread - slope * apart) ** 2).sum(axis=0) / (n - 2)
        share = error**2 / squares
        found[0] = -np.log(squares / total), np.log(squares) / 2, error.mean(axis=0), slope
        parts = (share - spread**2 / total, share / 2, error, error)
        found[1] = [_about_mean(part).var(axis=0, ddof=1) / n for part in parts]
        found[1, 3] = left / along
    # predicted to the last digit: what is left is rounding
    exact = squares <= np.maximum(EXACT**2 * total, ROUNDING**2 * (y**2).mean())
    found[:, :, exact] = np.nan
    return found


def _about_mean(columns: Array) -> Array:
    """Columns less their means; 0 throughout where a column has one value, whose mean is that only up to rounding."""
    alike = np.ptp(columns, axis=0) <= ROUNDING * np.abs(columns).max(axis=0)
    return np.where(alike, 0.0, columns - columns.mean(axis=0))


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
    error_sd: Sequence[float] = (),
) -> dict[str, dict[str, Figure]]:
    """Mean and heterogeneity of every figure of every model over the sites; three sums.

    Parameters
    ----------
    federation : Federation
        Rows are `Scored` (`figures` BINARY) or `ScoredSurvival` (SURVIVAL), one column of scores a model, or `Matrix`
        (CONTINUOUS) with the columns of `view_continuous.predicted`, no pairs.
    minimum_sites : int
        Fewest sites of a summary; three at least.
    log_hazards : sequence of str
        Survival models whose score is a log relative hazard, so that it has a slope.
    between : {"dl", "reml"}
        How the variance between sites is estimated.
    error_sd : sequence of float
        Of CONTINUOUS: each model's standard deviation of errors, so that sums of mean errors have no unit.

    Returns
    -------
    dict of model to dict of figure to record, as under ``heterogeneity`` in results.json
    """
    asked = {"minimum_count": minimum_count, "time_step": time_step}
    who = federation.sum(able, **asked)
    least = max(minimum_sites, FEWEST)
    kept = who.sites >= least
    unit = np.where(kept, who.events / np.maximum(who.sites, 1), 1.0)  # about the size of a weight
    measure = np.ones(kept.shape)
    if "mean_difference" in figures:
        measure[figures.index("mean_difference")] = [sd if sd > 0 else 1.0 for sd in error_sd]
    measured: dict[str, Any] = {} if (measure == 1).all() else {"measure": measure}

    def ask(tau2: Array, centre: Array) -> Sums:
        full, per, back = np.zeros((2, *kept.shape)), measure[kept], unit[kept] / measure[kept] ** 2
        full[:, kept] = tau2 / per**2, centre / per
        found = federation.sum(sums, **asked, tau2=full[0], centre=full[1], unit=unit, **measured)
        weight, first, second, square = (field[kept] for field in found)
        return Sums(weight * back, first * back * per, second * unit[kept], square * back**2)

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
                have, counted = int(who.sites[f, m]), "patients" if "rmse" in figures else "events"
                reason = f"{have} site{'s' * (have != 1)} with this figure, {least} are needed"
                records[name][figure] = undefined(f"{reason}, each with {minimum_count} {counted}")
            else:
                records[name][figure] = _record(pooled, int(place[f, m]), SCALES.get(figure, IDENTITY))
                records[name][figure] |= {} if between == "dl" else {"method": METHODS[between]}
    return records


def _record(pooled: Meta, i: int, scale: Scale) -> dict[str, Any]:
    back = scale.back
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
        "scale": scale.name,
    }
