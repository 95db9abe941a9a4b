"""Stratified log-rank: risk groups compared among patients of one level of a variable at a time, over all sites.

The counts of risk groups are asked once more of each level, a subset of the cohort like a subgroup; excess events and
variances of the levels add up (Mantel 1966). Equal to R's ``survdiff(Surv(time, event) ~ high + strata(variable))`` on
the study's grid of times. Patients without a value of the variable are left out, as there.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation
from cohortium.strategies import cutoff, survival
from cohortium.strategies.rows import Counts
from cohortium.strategies.validation_settings import Figure, Settings, defined, undefined


def figures(
    federation: Federation, strata: Mapping[str, Sequence[Federation]], models: Sequence[str], settings: Settings
) -> dict[str, dict[str, Figure]]:
    """The test of high against low risk of each model, by stratifying variable; one message after the time grid's.

    Parameters
    ----------
    federation : Federation
        Rows are `ScoredSurvival` of the whole cohort, one column of scores a model.
    strata : mapping of variable to federations
        Of each level's patients, rows as above.
    models : sequence of str
    settings : Settings

    Returns
    -------
    dict of model to dict of variable to ``chi2``, ``p``, ``strata`` (levels that somebody has), as under
    ``log_rank_stratified`` in results.json
    """
    none = undefined("no cut-off was chosen for this model")
    if not settings.cutoffs:
        return {name: dict.fromkeys(strata, none) for name in models}
    points = np.flatnonzero(survival.timeline(federation, settings.time_step).events)
    cutoffs = cutoff.on_grid(np.array([settings.cutoffs.get(name, 0.0) for name in models]))

    def counts(level: Federation) -> survival.Exits:
        return level.sum(survival.exits_by_group, points=points, cutoffs=cutoffs, time_step=settings.time_step)

    def of(variable: str) -> list[Figure]:
        try:
            levels = federation.together([lambda level=level: counts(level) for level in strata[variable]])
        except SumRefused as refusal:
            return [{"withheld": str(refusal)}] * len(models)
        return [
            _test([level.events[m] for level in levels], [level.exits[m] for level in levels], settings)
            for m in range(len(models))
        ]

    tasks: list[Callable[[], list[Figure]]] = [lambda variable=variable: of(variable) for variable in strata]
    found = dict(zip(strata, federation.together(tasks), strict=True))
    return {
        name: {variable: tests[m] if name in settings.cutoffs else none for variable, tests in found.items()}
        for m, name in enumerate(models)
    }


def _test(events: Sequence[Counts], exits: Sequence[Counts], settings: Settings) -> Figure:
    """Test of one model from the (2, k) counts of each level."""
    at_risk = [survival.at_risk(of_level) for of_level in exits]
    patients = np.array([of_level[:, 0] for of_level in at_risk])  # (levels, 2)
    least = settings.minimum_count
    if any(0 < held < least for held in (*patients.sum(0), *patients.sum(1))):
        return {"withheld": f"a risk group or a level has fewer than {least} patients"}

    def test() -> Figure:
        terms = [survival.log_rank_terms(*of_level) for of_level in zip(events, at_risk, strict=True)]
        chi2, p = survival.chi_squared(sum(excess for excess, _ in terms), sum(variance for _, variance in terms))
        return {"chi2": chi2, "p": p, "strata": int(np.count_nonzero(patients.sum(1)))}

    return defined(test)
