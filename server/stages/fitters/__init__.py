"""Fitters: one file a kind of model; each fits one replicate on columns that were selected for it."""

from collections.abc import Callable
from typing import Any

from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit
from cohortium.server.stages.fitters import cox, lasso, logistic, network

Fitter = Callable[[StudyFederation, str, dict[str, Any], Columns, Any], Fit]
"""``fit(federation, model name, rows of the replicate, columns, the LASSO path of its selection or None)``."""

NEEDS_PREDICTORS = ("cox", "network")  # the others have an intercept to fall back on
FITTERS: dict[str, Fitter] = {"logistic": logistic.fit, "lasso": lasso.fit, "cox": cox.fit, "network": network.fit}
