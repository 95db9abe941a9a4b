"""Privacy plan: how the budget of a study under differential privacy is laid out, the same at site and coordinator.

Two data sets are neighbours if one patient of one site is replaced by any other. The number of patients is therefore
public, as are the flow counts that each site declares. Every answer that leaves a site in a sum is noised, or refused.
A statistic's share of the budget is spread evenly over the times that the study asks it of one part.
"""

import math

from cohortium.common.errors import SumRefused
from cohortium.common.privacy_accountant import affordable, cost
from cohortium.common.study import Study

SHARES = {"levels.level_counts": 0.2, "noisy_logistic.gradient": 0.6, "class_histogram.patients": 0.2}
"""Statistics that may leave under differential privacy, with their weight in the budget: fitting takes most."""
ROUNDS = 25
"""Gradient sums of a noisy logistic fit."""
LEAST_SHARE = 4
"""Smallest standard deviation of a site's noise, in grid steps: sums of such shares are discrete Gaussian to 1e-60."""


def available(study: Study) -> tuple[str, ...]:
    """Statistics that a study under differential privacy may ask."""
    dp = study.privacy.dp
    return () if dp is None else tuple(name for name in SHARES if name in dp.statistics)


def budget(study: Study) -> float:
    """Rho that all answers of one part may cost together."""
    assert study.privacy.dp is not None
    return affordable(study.privacy.dp.epsilon, study.privacy.dp.delta)


def rho_each(study: Study, statistic: str) -> float:
    """Rho of one answer.

    Raises
    ------
    SumRefused
        The statistic is not among those that may leave; the text names them.
    """
    names = available(study)
    if statistic not in names:
        raise SumRefused(
            statistic, f"cannot leave under [privacy.dp]; what can, in this study, is {', '.join(names) or 'nothing'}"
        )
    times = {
        "levels.level_counts": sum(variable.kind != "continuous" for variable in study.variable),
        "noisy_logistic.gradient": ROUNDS * len(study.model),
        "class_histogram.patients": len({model.endpoint for model in study.model.values()}),
    }
    whole = sum(SHARES[name] for name in names if times[name])
    return budget(study) * SHARES[statistic] / whole / max(times[statistic], 1)


def noise_of_a_site(study: Study, statistic: str, sensitivity: float) -> int:
    """Standard deviation of the noise that one site adds, in grid steps.

    Any n - c sites together add enough: c accomplices of the coordinator could take out their own.
    """
    assert study.privacy.dp is not None
    whole = sensitivity / math.sqrt(2 * rho_each(study, statistic))
    honest = len(study.sites) - study.privacy.dp.accomplices
    return max(LEAST_SHARE, math.ceil(whole / math.sqrt(honest)))


def charged(study: Study, sensitivity: float, share: int) -> float:
    """Rho of an answer in which every site's noise has standard deviation `share`."""
    assert study.privacy.dp is not None
    return cost(sensitivity, share * math.sqrt(len(study.sites) - study.privacy.dp.accomplices))
