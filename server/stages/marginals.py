"""Marginals: how the variables of a model are distributed over all sites, from sums that are public anyway.

What explanations put in the place of a patient's values: of a measured column a few quantiles, of levels their shares.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohortium.common.study import Study
from cohortium.server.stages.columns import Column, Columns
from cohortium.strategies.explanation import Replacement
from cohortium.strategies.rows import Array, Counts


def is_level(study: Study, column: Column) -> bool:
    """Whether a column is 0 or 1: a level, a binary variable, or which values are missing."""
    variable = study.variables.get(column.variable)
    return variable is not None and (variable.kind != "continuous" or column.name.endswith(":missing"))


@dataclass(frozen=True, kw_only=True)
class Marginals:
    """Of each of a model's p columns; those of one variable share a number in `group`."""

    columns: Columns
    group: Counts  # (p,)
    level: NDArray[np.bool_]  # (p,), as `is_level`
    mean: Array  # (p,), standardised
    quantiles: Array  # (p, k), raw; unused of levels

    def measured(self, variable: int) -> Replacement:
        """Values of a variable, standardised; where one column says what is missing, that one is left as it is."""
        at = np.flatnonzero(self.group == variable)
        values = at[~self.level[at]]
        if not len(values):
            return self._levels(at)
        k = self.quantiles.shape[1]
        centre, scale = self.columns.centre[values], self.columns.scale[values]
        standardised = (self.quantiles[values].T - centre) / scale
        return {"columns": values, "values": standardised, "weights": np.full(k, 1 / k)}

    def whole(self, variable: int) -> Replacement:
        """As `measured`, and the column that says what is missing goes with what fills the gap."""
        found = self.measured(variable)
        at = np.flatnonzero(self.group == variable)
        if len(found["columns"]) == len(at):
            return found
        columns = self.columns.take(at)
        absent = int(np.flatnonzero(self.level[at])[0])
        share = float(np.clip(self.mean[at[absent]] * columns.scale[absent] + columns.centre[absent], 0, 1))
        filled, known = (columns.fill - columns.centre) / columns.scale, found["values"]
        values = np.tile(filled, (len(known) + 1, 1))
        values[:-1, np.arange(len(at)) != absent] = known
        values[:, absent] = (np.append(np.zeros(len(known)), 1) - columns.centre[absent]) / columns.scale[absent]
        # the marginal is that of filled values: those nearest to the filling make way for the patients it stands for
        order = np.argsort(np.abs(known[:, 0] - np.delete(filled, absent)[0]), kind="stable")
        weights = found["weights"].copy()
        before = np.cumsum(weights[order]) - weights[order]
        weights[order] -= np.clip(share - before, 0, weights[order])
        return {"columns": at, "values": values, "weights": np.append(weights, share)}

    def _levels(self, at: Counts) -> Replacement:
        """Levels of a variable and their shares; the reference level has what is left."""
        centre, scale = self.columns.centre[at], self.columns.scale[at]
        share = np.clip(self.mean[at] * scale + centre, 0, 1)
        levels = (np.vstack([np.zeros(len(at)), np.eye(len(at))]) - centre) / scale
        return {"columns": at, "values": levels, "weights": np.array([max(0.0, 1 - share.sum()), *share])}
