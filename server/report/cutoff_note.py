"""Cut-off note: how a risk group's cut-off was chosen, where a test chose it."""

from collections.abc import Mapping
from typing import Any

from cohortium.server.report.text import absent, count, number, p_value


def cutoff_note(test: Any, *, cross_validated: bool) -> list[str]:
    """Sentences on a maximal log-rank cut-off; none where the cut-off has another source.

    >>> cutoff_note(None, cross_validated=False)
    []
    """
    if not isinstance(test, Mapping):
        return []
    missing = absent(test)
    if missing:
        return [f"No cut-off was chosen: {missing.reason}."]
    chosen_on = "cross-validated scores" if cross_validated else "scores of the training cohort"
    return [
        f"The cut-off {number(test['cutoff'], 4)} has the largest log-rank statistic of {count(test['candidates'])} "
        f"candidates on {chosen_on} (χ² {number(test['chi2'], 2)}; p {p_value(test['p_corrected'])} corrected "
        f"for the choice, {p_value(test['p'])} without). Log-rank tests and hazard ratios of the training patients, "
        "who chose it, are too large; read them in other patients."
    ]
