"""Outcome: an endpoint that is a number, standardised over the training patients of one replicate, and back again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import NotIdentifiable
from cohortium.server.federation import StudyFederation
from cohortium.strategies import moments

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Mean and standard deviation of the outcome, in its unit."""

    centre: float
    scale: float

    @property
    def recipe(self) -> dict[str, Any]:
        """The part of a view that standardises the outcome."""
        return {"outcome": {"centre": self.centre, "scale": self.scale}}

    def in_its_unit(self, coefficients: Array) -> Array:
        """Coefficients (intercept first) of the outcome, from those of the standardised one."""
        back = coefficients * self.scale
        back[0] += self.centre
        return back


def standardise(federation: StudyFederation, rows: dict[str, Any]) -> Outcome:
    """Learn mean and spread of the outcome of some patients; two sums.

    Raises
    ------
    NotIdentifiable
        It has one value, or no patient has any.
    """
    known = moments.fit(federation.rows({"kind": "outcome", "rows": rows, "endpoint": rows["endpoint"]}), 1)
    if not known.sd[0] > 0:
        raise NotIdentifiable("the outcome has one value in the training patients; nothing can be fitted")
    return Outcome(centre=float(known.mean[0]), scale=float(known.sd[0]))
