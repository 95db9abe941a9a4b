"""Competing risks: cumulative incidence of risk groups (Aalen-Johansen) and Gray's test, from counts on the time grid.

Where another event can come first (death before relapse), one less Kaplan-Meier is not the share of patients with the
event. Time grid and points are found as for Kaplan-Meier, over events of any cause; a further sum counts causes by
group.
Aalen & Johansen, Scand J Stat 1978; Gray, Ann Stat 1988; Marubini & Valsecchi 1995 (variance).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation, statistic
from cohortium.strategies import cutoff, survival
from cohortium.strategies.rows import Array, Counts, ScoredCompeting
from cohortium.strategies.score_bins import grid
from cohortium.strategies.survival import at_risk, time_cell
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined

GROUPS = ("low", "high")
CAUSES = 3
"""Censored (0), the event of interest (1), a competing event (2)."""

# --- at each site ---------------------------------------------------------------------------------------------


class Causes(NamedTuple):
    """Why patients leave, by model, risk group and time interval."""

    patients: Counts  # (models, 2, points + 1, 3)


@statistic("competing_risks.causes", adds_over="rows")
def causes(rows: ScoredCompeting, *, points: Counts, cutoffs: Counts, time_step: float) -> Causes:
    """Count patients by cause; intervals and groups as in `survival.exits_by_group`."""
    interval = np.searchsorted(points, time_cell(rows.time, time_step), side="right")
    patients = np.zeros((len(cutoffs), 2, len(points) + 1, CAUSES), np.int64)
    for m, cut in enumerate(cutoffs):
        high = (grid(rows.score[:, m]) >= cut).astype(np.int64)
        np.add.at(patients[m], (high, interval, rows.cause), 1)
    return Causes(patients)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Incidence:
    """Cumulative incidence at the times of its events, beginning with time 0; arrays are (k,)."""

    time: Array
    incidence: Array
    standard_error: Array
    at_risk: Counts

    def limits(self, level: float = 0.95) -> tuple[Array, Array]:
        """Interval on the log(-log) scale; (0, 0) before the first event."""
        inside = (self.incidence > 0) & (self.incidence < 1 - 1e-12)
        f = np.where(inside, self.incidence, 0.5)
        half = float(stats.norm.ppf((1 + level) / 2)) * self.standard_error / (f * -np.log(f))
        low, high = (np.where(inside, f ** np.exp(sign * half), self.incidence) for sign in (1, -1))
        return low, high

    def at(self, time: float) -> int:
        """Index of the last event up to a time."""
        return int(np.searchsorted(self.time, time * (1 + 1e-12), side="right")) - 1


def aalen_johansen(time: Array, causes: Counts, *, minimum_count: int = 1) -> Incidence:
    """Cumulative incidence of cause 1, with the variance of Marubini & Valsecchi (the delta method; as lifelines).

    The curve stops before the first time of either event with fewer than `minimum_count` at risk.

    Parameters
    ----------
    time : (k,)
        Rising.
    causes : (k, 3)
        Patients who leave at each time (or after it, before the next, where censored), by cause.

    Raises
    ------
    Undefined
        No patients.
    """
    n_all = at_risk(causes.sum(1))
    if not len(n_all) or n_all[0] < 1:
        raise Undefined("a cumulative incidence needs patients")
    happened = np.any(causes[:, 1:], axis=1)
    few = happened & (n_all < max(minimum_count, 1))
    happened[np.argmax(few) if few.any() else len(few) :] = False
    d1, d = causes[happened, 1].astype(float), causes[happened, 1:].sum(1).astype(float)
    n = n_all[happened].astype(float)
    before = np.concatenate([[1.0], np.cumprod(1 - d / n)])[:-1]
    incidence = np.cumsum(before * d1 / n)
    left = np.divide(d, n * (n - d), out=np.zeros_like(d), where=n > d)
    own = before**2 * d1 * (n - d1) / n**3
    cross = before * d1 / n**2
    # sum over earlier events of (F(t) - F(t_j))^2 left_j + own_j - 2 (F(t) - F(t_j)) cross_j
    variance = (
        incidence**2 * np.cumsum(left)
        - 2 * incidence * np.cumsum(incidence * left + cross)
        + np.cumsum(incidence**2 * left + own + 2 * incidence * cross)
    )
    shown = d1 > 0
    return Incidence(
        time=np.concatenate([[0.0], np.asarray(time, float)[happened][shown]]),
        incidence=np.concatenate([[0.0], incidence[shown]]),
        standard_error=np.concatenate([[0.0], np.sqrt(np.maximum(variance[shown], 0.0))]),
        at_risk=np.concatenate([n_all[:1], n_all[happened][shown]]),
    )


def gray(causes: Counts) -> tuple[float, float]:
    """Gray's test of the cumulative incidence of cause 1 in two groups (rho = 0): chi-squared with 1 df, and p.

    In the notation of the paper: R_k = Y_k (1 - F_k(t-)) / S_k(t-) is who has not had the event, h_k = Y_k / S_k(t-);
    the score adds up R_2 (dF_2 / (1 - F_2) - dF / (1 - F)) over times. Its variance adds up, over groups and causes,
    the variance of each number of events times the square of what the score moves by with one more of them (the
    integrals of a, c and their products in the paper); tied numbers vary as in the hypergeometric distribution.

    Parameters
    ----------
    causes : (2, k, 3)

    Raises
    ------
    Undefined
        A group is empty, or nobody had the event while both groups were at risk.
    """
    present = causes[:, :, 1:].any((0, 2))
    n = at_risk(causes.sum(2))[:, present].astype(float)
    events, rivals = (causes[:, present, cause].astype(float) for cause in (1, 2))
    share = np.divide(1.0, n, out=np.zeros_like(n), where=n > 0)
    free = np.cumprod(1 - (events + rivals) * share, axis=1)  # S_k(t)
    free_before = np.hstack([np.ones((2, 1)), free[:, :-1]])
    before = _before(np.cumsum(free_before * events * share, axis=1, dtype=np.float64))  # F_k(t-)
    weight = np.divide(n, free_before, out=np.zeros_like(n), where=free_before > 0)  # h_k
    both, died = weight.sum(0), events.sum(0)
    at_stake = weight * (1 - before)  # R_k
    pooled = np.cumsum(_over(died, both))  # F(t)
    score = float((events[1] - died * _over(at_stake[1], at_stake.sum(0))).sum())

    # what the score moves by with an event in a group: at once, and later through the risk sets of all that follows
    at_once = _over(weight[0] * weight[1], both) * np.array([[-1.0], [1.0]])
    moved = np.cumsum(at_once * _over(died, both * (1 - _before(pooled))), axis=1)
    later = moved[:, -1:] - moved
    left = np.divide(1 - pooled, free, out=np.zeros_like(n), where=free > 0)
    by_event = at_once + np.where(free > 0, 1 - left, 1.0) * later
    by_rival = left * later
    of_events = free_before * share * _over(died, both) * (1 - _over((died - 1).clip(0), both * free_before - 1))
    of_rivals = rivals * (free_before * share) ** 2 * (1 - _over((rivals - 1).clip(0), n - 1))
    variance = float((by_event**2 * of_events + by_rival**2 * of_rivals).sum())
    if not (variance > 1e-12):
        raise Undefined("Gray's test needs an event while both groups are at risk")
    chi2 = score**2 / variance
    return chi2, float(stats.chi2.sf(chi2, 1))


def _before(steps: Array) -> Array:
    """Values just before each step of functions that begin at 0, along the last axis."""
    return np.concatenate([np.zeros_like(steps[..., :1]), steps[..., :-1]], axis=-1)


def _over(a: Array, b: Array) -> Array:
    """Quotient, and 0 where b is not positive: nobody is at risk there."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 0)


def validate_competing(
    federation: Federation, models: tuple[str, ...], settings: Settings
) -> dict[str, dict[str, Figure]]:
    """Figures under ``competing_risks`` of every model on one cohort; 3 messages beside those of its survival.

    Parameters
    ----------
    federation : Federation
        Its rows are `ScoredCompeting`.
    """
    if not settings.cutoffs:
        return dict.fromkeys(models, undefined("no cut-off was chosen for this model"))
    step = settings.time_step
    total = survival.timeline(federation, step)
    if total.exits.sum() < settings.minimum_count:
        small = {"withheld": f"the cohort has fewer than {settings.minimum_count} patients"}
        return dict.fromkeys(models, small)
    horizons = time_cell(np.array(settings.horizon, float), step)
    points = np.union1d(np.flatnonzero(total.events), horizons + 1)
    cutoffs = cutoff.on_grid(np.array([settings.cutoffs.get(name, 0.0) for name in models]))
    table = federation.sum(causes, points=points, cutoffs=cutoffs, time_step=step).patients
    time = np.concatenate([[0.0], points * step])
    none = undefined("no cut-off was chosen for this model")
    return {
        name: _figures(time, table[m], settings) if name in settings.cutoffs else none for m, name in enumerate(models)
    }


def _figures(time: Array, causes: Counts, settings: Settings) -> dict[str, Figure]:
    patients = causes.sum((1, 2))
    least = settings.minimum_count
    found: dict[str, Figure] = {
        "events": int(causes[:, :, 1].sum()),
        "competing": int(causes[:, :, 2].sum()),
        "cumulative_incidence": {},
        "incidence_at": {f"{horizon:.10g}": {} for horizon in settings.horizon},
    }
    for g, group in enumerate(GROUPS):
        if 0 < patients[g] < least or not patients[g]:
            small = {"withheld": f"a risk group has fewer than {least} patients"}
            why = small if patients[g] else undefined("no patient is in this risk group")
            found["cumulative_incidence"][group] = why
            for at in found["incidence_at"].values():
                at[group] = why
            continue
        curve = aalen_johansen(time, causes[g], minimum_count=least)
        low, high = curve.limits()
        columns = (curve.time, curve.incidence, low, high)
        found["cumulative_incidence"][group] = [
            [*map(float, row), int(n)] for *row, n in zip(*columns, curve.at_risk, strict=True)
        ]
        for horizon in settings.horizon:
            beyond = causes[g, np.rint(time / settings.time_step) > time_cell(np.array(horizon), settings.time_step)]
            i = curve.at(horizon)
            known = {"estimate": float(curve.incidence[i]), "ci": [float(low[i]), float(high[i])]}
            too_few = undefined(f"fewer than {max(least, 1)} patients are followed beyond this time")
            found["incidence_at"][f"{horizon:.10g}"][group] = known if beyond.sum() >= max(least, 1) else too_few

    def test() -> Figure:
        chi2, p = gray(causes)
        return {"chi2": chi2, "p": p}

    shown = not (0 < patients.min() < least)
    small = {"withheld": f"a risk group has fewer than {least} patients"}
    return found | {"gray": defined(test) if shown else small}
