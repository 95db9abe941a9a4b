"""Fitters: one file a kind of model; each fits one replicate on columns that were selected for it."""

from collections.abc import Callable
from typing import Any

from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.server.stages.fitted import Fit
from cohortium.server.stages.fitters import cox, gradient_boosting, lasso, linear, logistic, mlp, network, staging, svm

Fitter = Callable[[StudyFederation, str, dict[str, Any], Columns, Any], Fit]
"""``fit(federation, model name, rows of the replicate, columns, the LASSO path of its selection or None)``."""

GIVEN = ("staging",)
"""Kinds in which nothing is fitted: a column of one value keeps its points."""
NEEDS_PREDICTORS = ("network", "mlp", "rff_svm", "gradient_boosting")
"""Kinds that are nothing without a column; the others fall back on their intercept."""
FITTERS: dict[str, Fitter] = {"logistic": logistic.fit, "lasso": lasso.fit, "cox": cox.fit, "network": network.fit}
FITTERS |= {"mlp": mlp.fit, "linear_svm": svm.fit, "rff_svm": svm.fit, "staging": staging.fit}
FITTERS |= {"gradient_boosting": gradient_boosting.fit, "linear": linear.fit}
