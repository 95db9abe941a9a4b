"""Cox screen: which features go with survival, each by the score test of a Cox model of it alone, stratified by site.

Score and information at coefficient 0 of every column, in one sum: two numbers a column, no matrix and no time. A site
is a stratum: its patients are compared among themselves, so that sites may differ in their baseline hazard. Efron's
ties; of a binary column without tied events this is the log-rank test stratified by site.
Cox, JRSS B 1972; Efron, JASA 1977.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.risk_sets import stratum_terms
from cohortium.strategies.rows import Array, Counts, Survival

# --- at each site ---------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Derivatives of p partial likelihoods at coefficient 0, within one site."""

    gradient: Array  # (p,)
    information: Array  # (p,): of each column alone
    events: Counts  # ()


@statistic("cox_screen.score", adds_over="sites")
def score(rows: Survival, *, time_step: float | None) -> Score:
    """Compare those with the event with those at risk at the same site; `time_step` None takes times as they are."""
    zero = np.zeros(rows.x.shape[1])
    _, deaths, of_x = stratum_terms(rows, zero, "efron", time_step)
    _, _, of_squares = stratum_terms(rows._replace(x=rows.x**2), zero, "efron", time_step)
    return Score(
        gradient=of_x.gradient,
        information=(of_squares.mean_x - of_x.mean_x**2).sum(axis=0),
        events=np.asarray(deaths.sum(), np.int64),
    )


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTests:
    """A test of each column, (p,); NaN where none exists: a column that is constant wherever somebody has the event."""

    chi2: Array
    p: Array


def score_tests(federation: Federation, *, time_step: float | None = None) -> ScoreTests:
    """Test every column of `Survival` rows, standardised. One sum.

    Raises
    ------
    NotIdentifiable
        No events.
    """
    sums = federation.sum(score, time_step=time_step)
    events = int(sums.events)
    if not events:
        raise NotIdentifiable("no patient had the event; take a longer follow-up or another endpoint")
    varies = sums.information > 1e-9 * events  # above the rounding of a sum
    chi2 = np.where(varies, sums.gradient**2 / np.where(varies, sums.information, 1.0), np.nan)
    return ScoreTests(chi2=chi2, p=stats.chi2.sf(chi2, 1))


def screen(tests: ScoreTests, p_threshold: float, keep_at_most: int | None = None) -> Counts:
    """Columns with p < `p_threshold`, the largest statistic first, at most `keep_at_most`; ties by column order."""
    order = np.argsort(-tests.chi2, kind="stable")  # NaN sorts last
    return order[tests.p[order] < p_threshold][:keep_at_most]
