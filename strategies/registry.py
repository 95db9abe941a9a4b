"""Registry: finds a local half by its public name, importing nothing else.

A site answers a statistics message in a fresh process; it must not pay for torch or for algorithms it does not need.
"""

import importlib

from cohortium.common.errors import WireError
from cohortium.common.federation import Statistic

MODULES = (
    "calibration", "chained", "class_histogram", "combat", "competing_risks",
    "concordance", "concordance_pairs", "correlation", "cox", "cox_screen", "cutoff",
    "decision_curve", "discrimination", "explanation", "fedavg", "firth", "firth_cox",
    "gradient_boosting", "linear", "linear_svm", "mlp",
    "heterogeneity", "icc", "lasso", "lasso_cox", "levels", "local_fits",
    "logistic", "meta_analysis", "moments", "noisy_logistic", "permutation", "proportional_hazards",
    "quantiles", "rank_correlation", "rank_tests", "reclassification",
    "score_bins", "screening", "shapley", "site_effects", "slope_within_sites", "survival",
    "survival_calibration", "survival_groups", "table_one",
)  # fmt: skip
"""The files under strategies/ whose local halves may be asked for; the first word of a statistic's name."""


def find(name: str) -> Statistic:
    """The local half called `name`, e.g. ``"logistic.terms"``.

    Raises
    ------
    WireError
        No installed algorithm has a statistic of this name; coordinator and site run different versions.
    """
    module_name = name.partition(".")[0]
    if module_name in MODULES:
        module = importlib.import_module(f"cohortium.strategies.{module_name}")
        for value in vars(module).values():
            if isinstance(value, Statistic) and value.name == name:
                return value
    raise WireError("a statistic that this site does not have; install the coordinator's version")
