"""Items of Table 1, screening and correlation."""

from typing import Any

import data
import numpy as np
import references_tables as references
from item import Federate, Item

from cohortium.strategies import correlation, group_differences, moments, quantiles, screening, table_one
from cohortium.strategies.rows import Matrix

FEATURES = references.FEATURES


def matrix_sites(frame: Any, x: np.ndarray) -> list[Matrix]:
    """Rows of each site, grouped by outcome."""
    return [
        Matrix(x=x[at], group=frame["y"].to_numpy(np.int64)[at])
        for at in (np.flatnonzero(frame["site"] == site) for site in sorted(frame["site"].unique()))
    ]


def _raw() -> list[Matrix]:
    frame = data.breast_cancer()
    return matrix_sites(frame, frame[FEATURES].to_numpy())


def _standardised() -> list[Matrix]:
    frame = data.breast_cancer()
    return matrix_sites(frame, data.standardised(frame, FEATURES))


def _moments(federate: Federate) -> dict[str, Any]:
    found = moments.fit_groups(federate(_raw()), 30, 2)
    return {"mean": [m.mean for m in found], "sd": [m.sd for m in found]}


def _quartiles(federate: Federate) -> dict[str, Any]:
    return {"quartiles": quantiles.fit_groups(federate(_raw()), (0.25, 0.5, 0.75), 2)}


def _t_test(federate: Federate) -> dict[str, Any]:
    sites = federate(_raw())
    student = screening.t_test(sites, 30)
    groups = moments.fit_groups(sites, 30, 2)
    welch = screening.compare(*groups, variances="welch")
    return {"t": student.t, "p": student.p, "t_welch": welch.t, "p_welch": welch.p}


def _differences(federate: Federate) -> dict[str, Any]:
    groups = moments.fit_groups(federate(_raw()), 30, 2)
    found = [
        group_differences.of_means(*(np.array([getattr(g, name)[j] for g in groups]) for name in ("n", "mean", "sd")))
        for j in range(30)
    ]
    return {"standardised_difference": [of["standardised_difference"] for of in found]}


def _independence(federate: Federate) -> dict[str, Any]:
    frame = data.breast_cancer()
    codes = references.quarter_of(frame).astype(float)[:, None]
    counted = table_one.categorical(federate(matrix_sites(frame, codes)), 4, 2)
    return {"chi2_p": table_one.independence(counted.counts[:, 0])[1]}


def _correlation(federate: Federate) -> dict[str, Any]:
    return {"r": correlation.gram(federate(_standardised()))}


DATA = "breast_cancer, 4 sites"
ITEMS = (
    Item(name="mean and SD by outcome, 30 features", data=DATA, ours=_moments, theirs=references.moments,
         reference="pandas groupby mean, std", target=1e-12),
    Item(name="quartiles by outcome, 30 features", data=DATA, ours=_quartiles, theirs=references.quartiles,
         reference="pandas quantile (type 7)", target=6e-7),
    Item(name="Student's and Welch's t-test", data=DATA, ours=_t_test, theirs=references.t_test,
         reference="scipy.stats.ttest_ind"),
    Item(name="standardised differences, 30 features", data=DATA, ours=_differences, theirs=references.differences,
         reference="Austin's formula on pandas"),
    Item(name="chi-squared of a table of 4 levels", data=DATA, ours=_independence, theirs=references.independence,
         reference="scipy.stats.chi2_contingency"),
    Item(name="Pearson correlations, 30 features", data=DATA, ours=_correlation, theirs=references.correlation,
         reference="numpy.corrcoef"),
)  # fmt: skip
