"""Survival of risk groups: medians with intervals, survival and restricted means at horizons, a test within sites.

All but the test are functions of the counts that `survival.exits_by_group` has brought: no further sum. The log-rank
test within sites adds two numbers a model; no time of a patient leaves for it.
Brookmeyer & Crowley, Biometrics 1982; Royston & Parmar, BMC Med Res Methodol 2013 (restricted means); Mantel 1966.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import survival
from cohortium.strategies.rows import Array, Counts, ScoredSurvival
from cohortium.strategies.score_bins import grid
from cohortium.strategies.survival import Curve, at_risk, time_cell
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined
from cohortium.strategies.wald import interval

GROUPS = ("low", "high")

# --- at each site ---------------------------------------------------------------------------------------------


class WithinSite(NamedTuple):
    """Log-rank terms of a site's own patients, for the high risk group of each model."""

    excess: Array  # (models,): events less those expected
    variance: Array  # (models,): hypergeometric


@statistic("survival_groups.log_rank_within_site", adds_over="sites")
def log_rank_within_site(rows: ScoredSurvival, *, cutoffs: Counts, time_step: float) -> WithinSite:
    """Compare high with low risk (grid score >= cut-off) among the site's own patients."""
    points, interval = np.unique(time_cell(rows.time, time_step), return_inverse=True)
    excess, variance = np.zeros(len(cutoffs)), np.zeros(len(cutoffs))
    for m, cut in enumerate(cutoffs):
        high = (grid(rows.score[:, m]) >= cut).astype(np.int64)
        events, exits = np.zeros((2, 2, len(points)), np.int64)
        np.add.at(exits, (high, interval), 1)
        np.add.at(events, (high, interval), rows.event.astype(np.int64))
        excess[m], variance[m] = survival.log_rank_terms(events, at_risk(exits))
    return WithinSite(excess, variance)


# --- at the server --------------------------------------------------------------------------------------------


def stratified_log_rank(federation: Federation, cutoffs: Counts, *, time_step: float) -> list[Figure]:
    """Log-rank test of high against low risk, stratified by site, of every model; one sum of two numbers each."""
    sums = federation.sum(log_rank_within_site, cutoffs=cutoffs, time_step=time_step)

    def test(excess: float, variance: float) -> Figure:
        chi2, p = survival.chi_squared(excess, variance)
        return {"chi2": chi2, "p": p}

    return [defined(lambda e=e, v=v: test(float(e), float(v))) for e, v in zip(*sums, strict=True)]


def median_interval(curve: Curve) -> tuple[float, float | None]:
    """Times at which the lower and the upper limit of the curve reach one half (Brookmeyer & Crowley).

    Returns
    -------
    lower, upper : float; upper None where the upper limit stays above one half, as it often does

    Raises
    ------
    Undefined
        Even the lower limit stays above one half.
    """
    low, high = (limit <= 0.5 + 1e-12 for limit in (curve.lower, curve.upper))
    if not low.any():
        raise Undefined("the lower limit of survival stays above one half for as long as the curve is shown")
    # a limit that is carried on where survival is 0 says nothing new
    return float(curve.time[np.argmax(low)]), float(curve.time[np.argmax(high)]) if high.any() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RestrictedMean:
    """Mean of the time survived up to a horizon."""

    estimate: float
    standard_error: float

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        return interval(self.estimate, self.standard_error, level)


def restricted_mean(time: Array, events: Counts, at_risk: Counts, horizon: float) -> RestrictedMean:
    """Area under the Kaplan-Meier curve up to the horizon, with Greenwood's variance.

    The variance is the sum over event times t of A(t)^2 d / (n (n - d)), where A is the area from t to the horizon. A
    last event that leaves nobody at risk has no area after it, and adds nothing.

    Parameters
    ----------
    time, events, at_risk : (k,)
        At rising times.
    """
    shown = (events > 0) & (time <= horizon)
    d, n, t = events[shown].astype(float), at_risk[shown].astype(float), np.asarray(time, float)[shown]
    steps = np.concatenate([[1.0], np.cumprod(1 - d / n)])
    area = steps * np.diff(np.concatenate([[0.0], t, [horizon]]))
    after = np.cumsum(area[::-1])[::-1][1:]
    variance = np.divide(after**2 * d, n * (n - d), out=np.zeros_like(d), where=n > d).sum()
    return RestrictedMean(estimate=float(area.sum()), standard_error=float(np.sqrt(variance)))


def figures(time: Array, events: Counts, at_risk: Counts, settings: Settings) -> dict[str, dict[str, Figure]]:
    """Survival and restricted mean of both groups at each horizon, and the difference of the means.

    Parameters
    ----------
    time : (k,)
        Beginning with 0; the first point after each horizon is among them.
    events, at_risk : (2, k)
        Of low and high risk, none of them too small to be shown.
    """
    found: dict[str, dict[str, Figure]] = {"survival_at": {}, "rmst_at": {}}
    for horizon in settings.horizon:
        up_to = np.rint(time / settings.time_step) <= time_cell(np.array(horizon), settings.time_step)
        known = [_known(at_risk[g], up_to, settings.minimum_count) for g in range(2)]
        key, means = f"{horizon:.10g}", {}
        found["survival_at"][key], found["rmst_at"][key] = {}, {}
        for g, group in enumerate(GROUPS):
            if known[g] is not None:
                found["survival_at"][key][group] = found["rmst_at"][key][group] = known[g]
                continue
            counts = (time[up_to], events[g, up_to], at_risk[g, up_to])
            curve = survival.kaplan_meier(*counts)
            found["survival_at"][key][group] = {
                "estimate": float(curve.survival[-1]),
                "ci": [float(curve.lower[-1]), float(curve.upper[-1])],
                "at_risk": int(at_risk[g, ~up_to][0]),
            }
            means[group] = restricted_mean(*counts, horizon)
            found["rmst_at"][key][group] = _shown(means[group])
        found["rmst_at"][key]["difference"] = _difference(means)
    return found


def _known(at_risk: Counts, up_to: NDArray[np.bool_], minimum_count: int) -> Mapping[str, Any] | None:
    """Why survival at a horizon is not shown, if it is not."""
    beyond = int(at_risk[~up_to][0]) if (~up_to).any() else 0
    if beyond == 0:
        return undefined("nobody is followed beyond this time")
    if beyond < minimum_count:
        return {"withheld": f"fewer than {minimum_count} patients are followed beyond this time"}
    return None


def _difference(means: Mapping[str, RestrictedMean]) -> Figure:
    """High less low risk."""
    if len(means) < 2:
        return undefined("a difference needs the restricted mean of both groups")
    error = float(np.hypot(means["low"].standard_error, means["high"].standard_error))
    found = RestrictedMean(estimate=means["high"].estimate - means["low"].estimate, standard_error=error)
    p = {"p": float(2 * stats.norm.sf(abs(found.estimate) / error))} if error > 0 else {}
    return _shown(found) | (p or {"p": undefined("nobody had the event")})


def _shown(mean: RestrictedMean) -> dict[str, Figure]:
    return {"estimate": mean.estimate, "se": mean.standard_error, "ci": list(mean.confidence_interval())}
