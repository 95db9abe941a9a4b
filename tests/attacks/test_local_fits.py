"""Averages of local fits: a coordinator that wants one hospital's coefficients, and what it gets."""

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.common.errors import NotIdentifiable, SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import local_fits, meta_analysis
from cohortium.strategies.rows import Labelled

TRAIN = {"part": "train", "endpoint": "outcome", "patients": 180}
LOGISTIC = {"kind": "logistic", "settings": {}}
LASSO = {"kind": "lasso", "settings": {"n_lambda": 50, "folds": 10, "rule": "min", "mixing": 1.0}}


@pytest.fixture
def view(raw_design):
    return {"kind": "labelled", "rows": TRAIN, "endpoint": "outcome", **raw_design}


def own(rows):
    """Each site's own coefficients, (sites, p + 1)."""
    return np.array([local_fits.fit(PooledSites([site]), minimum_sites=1, **LOGISTIC).coefficients for site in rows])


def averaged(study, model, **changed):
    """The study with a model whose local fits are averaged."""
    model = study.model[model].model_copy(update={"aggregation": "fedavg", **changed})
    return study.model_copy(update={"model": {"full": model}})


def test_the_total_is_that_of_other_hospitals_too(victims, view):
    """Coefficients differ between hospitals; any others of the same mean would give the coordinator the same."""
    rows = victims.rows(view)
    total = local_fits.fit(PooledSites(rows), minimum_sites=3, **LOGISTIC)
    fits, share = own(rows), np.array([len(site.x) for site in rows]) / total.patients
    assert np.ptp(fits, axis=0).min() > 1e-3
    np.testing.assert_allclose(total.coefficients, share @ fits, rtol=1e-9)
    others = fits + np.outer([1 / share[0], -1 / share[1], 0], np.ones(3))
    np.testing.assert_allclose(share @ others, total.coefficients, rtol=1e-9)
    assert np.abs(total.coefficients - fits).min(axis=1).max() > 1e-4  # it is none of theirs


@pytest.mark.parametrize("statistic", [local_fits.able, meta_analysis.able])
def test_no_scale_of_the_columns_leaves_one_hospital_alone(victims, view, statistic):
    """A column scaled so that the coefficients of all but one are too large to count, or do not settle."""
    asked = LOGISTIC if statistic is local_fits.able else {}
    for centre, scale in ((0.0, 1.0), (0.0, 1e3), (0.0, 1e6), (1e3, 1.0), (-1e6, 1e-3)):
        steep = victims.sums(view | {"centre": np.full(2, centre), "scale": np.full(2, scale)})
        assert int(steep.sum(statistic, **asked).sites) == 3
    # steepness between the coefficients of two hospitals
    largest = np.sort(np.abs(own(victims.rows(view))[:, 1:]).max(axis=1))
    between = np.sqrt(largest[0] * largest[1]) / local_fits.LARGEST
    rows = [site._replace(x=site.x * between) for site in victims.rows(view)]
    assert int(PooledSites(rows).sum(statistic, **asked).sites) == 3
    assert largest[0] / between < local_fits.LARGEST < largest[1] / between


def test_columns_that_do_not_vary_elsewhere_still_leave_one(victims, view):
    """What is left (docs/threat-model.md): an honest coordinator stops here; a site cannot tell one that does not."""
    rows = [site if i == 0 else site._replace(x=site.x * [1, 0]) for i, site in enumerate(victims.rows(view))]
    with pytest.raises(NotIdentifiable, match="1 sites have a local fit"):
        local_fits.fit(PooledSites(rows), minimum_sites=3, **LOGISTIC)
    alone = PooledSites(rows).sum(local_fits.shares, patients=len(rows[0].x), **LOGISTIC)
    np.testing.assert_allclose(alone.coefficients, own(rows[:1])[0], rtol=1e-9)


def test_only_the_local_fits_of_the_study(victims, view):
    """Fits of other kinds or settings, one beside the other, would be more equations about a hospital."""
    told = 'the study has no such model with aggregation = "fedavg"'
    for statistic, more in ((local_fits.able, {}), (local_fits.shares, {"patients": 180})):
        assert told in victims.refusal("north", statistic, view, **LOGISTIC, **more)
    study = averaged(victims.study, "full")
    nobody = Labelled(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))
    disclosure.check(study, "local_fits.shares", view, LOGISTIC | {"patients": 180}, nobody)
    for other in (LASSO, LOGISTIC | {"settings": {"n_lambda": 3}}):
        with pytest.raises(SumRefused, match=told):
            disclosure.check(study, "local_fits.shares", view, other | {"patients": 180}, nobody)
