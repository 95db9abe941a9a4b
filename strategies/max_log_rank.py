"""Maximal log-rank: the cut-off of a score that parts survival best, and a p value that knows it was chosen.

Candidates are the lower edges of the score's cells with between 10 and 90 % of the patients below. All of them follow
from one joint table of times and cells. The largest of many tests is large by chance; its p value is that of the
maximum of a standardised Brownian bridge over this range.
Lausen & Schumacher, Biometrics 1992; Miller & Siegmund, Biometrics 1982 (the formula); Altman et al., JNCI 1994.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import Federation
from cohortium.strategies import concordance, score_bins, survival
from cohortium.strategies.rows import Counts
from cohortium.strategies.score_bins import GRID, Resolution

RANGE = (0.1, 0.9)
"""Shares of patients below a candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A chosen cut-off and its test."""

    cutoff: float
    chi2: float
    candidates: int

    @property
    def p(self) -> float:
        """As if the cut-off had been given; too small."""
        return float(stats.chi2.sf(self.chi2, 1))

    @property
    def p_corrected(self) -> float:
        """Corrected for the choice."""
        return corrected_p(self.chi2)


def choose(
    federation: Federation, models: int, *, resolution: Resolution, time_step: float
) -> list[Choice | Undefined]:
    """Each model's cut-off with the largest log-rank statistic; 4 messages: cells beside times, then the joint table.

    Parameters
    ----------
    federation : Federation
        Its rows are `ScoredSurvival`, of the training part.

    Returns
    -------
    list of Choice, or of why there is none
    """
    first: list[Callable[[], Any]] = [
        lambda: score_bins.edges(federation, models, scale="linear", resolution=resolution),
        lambda: survival.timeline(federation, time_step),
    ]
    edges, total = federation.together(first)
    points = np.flatnonzero(total.events)
    tables = federation.sum(concordance.joint, edges=edges, points=points, time_step=time_step).patients
    found: list[Choice | Undefined] = []
    for m, lower in enumerate(edges):
        try:
            found.append(largest(tables[m, :, :, : len(lower)], lower))
        except Undefined as why:
            found.append(why)
    return found


def largest(patients: Counts, lower: Counts) -> Choice:
    """The candidate with the largest log-rank statistic; of equals the highest.

    Parameters
    ----------
    patients : (points + 1, 2, cells)
        Joint table of one model.
    lower : (cells,)
        Lower edges in grid units.

    Raises
    ------
    Undefined
        No candidate, or no events on both sides of any.
    """
    n = patients.sum((0, 1))
    share = (np.cumsum(n) - n) / max(int(n.sum()), 1)
    candidates = np.flatnonzero((share >= RANGE[0]) & (share <= RANGE[1]) & (n > 0))
    high = np.cumsum(patients[:, :, ::-1], 2)[:, :, ::-1]  # patients of this cell and above
    chi2 = []
    for c in candidates:
        above = high[:, :, c]
        groups = np.stack([high[:, :, 0] - above, above])  # (2, points + 1, 2)
        excess, variance = survival.log_rank_terms(groups[:, :, 1], survival.at_risk(groups.sum(2)))
        chi2.append(excess**2 / variance if variance > 0 else -1.0)
    if not chi2 or max(chi2) < 0:
        raise Undefined("a maximal log-rank test needs events, and scores that part the patients")
    best = len(chi2) - 1 - int(np.argmax(np.array(chi2[::-1]) >= max(chi2) * (1 - 1e-12)))
    return Choice(cutoff=float(lower[candidates[best]] / GRID), chi2=chi2[best], candidates=len(candidates))


def corrected_p(chi2: float, low: float = RANGE[0], high: float = RANGE[1]) -> float:
    """Chance that the largest of the tests between two shares is as large as this one (Miller & Siegmund 1982).

    An approximation for large statistics; never below the p value of one test nor above 1.
    """
    b = float(np.sqrt(max(chi2, 0.0)))
    one = float(stats.chi2.sf(chi2, 1))
    if b < 1:
        return 1.0
    density = float(stats.norm.pdf(b))
    p = density * (b - 1 / b) * np.log(high * (1 - low) / ((1 - high) * low)) + 4 * density / b
    return float(min(max(p, one), 1.0))
