"""Sums of a meta-analysis at many variances between sites: rational functions, whose poles are the sites."""

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.common.errors import SumRefused
from cohortium.common.fixed_point import MOST_BITS
from cohortium.strategies import meta_analysis, site_effects
from cohortium.strategies.rows import Labelled

SITES = 5
ESTIMATES = np.array([0.1, 0.7, 0.4, -0.2, 1.1])
VARIANCES = np.array([0.02, 0.05, 0.09, 0.14, 0.3])


def total(tau2):
    """What the coordinator reads of one coefficient: the sum over sites, to fixed point."""
    parts = [meta_analysis.contribution(b, v, tau2, 0.0) for b, v in zip(ESTIMATES, VARIANCES, strict=True)]
    return np.rint(np.array([sum(field) for field in zip(*parts, strict=True)]) * 2.0**MOST_BITS) / 2.0**MOST_BITS


def test_ten_sums_are_every_hospital_s_estimate():
    """Sum of 1 / (v + t) = P(t) / Q(t), whose coefficients are linear in 2 n values; the roots of Q are -v."""
    tau2 = np.linspace(0.0, 0.6, 2 * SITES) ** 2
    weight, first, *_ = np.array([total(t) for t in tau2]).T
    powers = tau2[:, None] ** np.arange(SITES)
    solved = np.linalg.solve(np.hstack([powers, -weight[:, None] * powers]), weight * tau2**SITES)
    found = np.sort(-np.roots(np.append(solved[SITES:], 1.0)[::-1]).real)
    np.testing.assert_allclose(found, VARIANCES, rtol=1e-3)
    weights = 1 / (found + tau2[:, None])
    estimates = np.linalg.lstsq(weights, first, rcond=None)[0]
    np.testing.assert_allclose(estimates, ESTIMATES, atol=1e-2)  # docs/threat-model.md: one hospital's, not whose


def test_a_study_without_such_a_model_answers_none(victims, raw_design):
    """No study but one with a meta-analysis, or with intercepts of sites, sums functions of the sites' own fits."""
    view = {"kind": "labelled", "rows": {"part": "train", "patients": 180}, "endpoint": "outcome", **raw_design}
    nobody = Labelled(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64))
    asked = [
        *((statistic, "aggregation", "meta") for statistic in (meta_analysis.able, meta_analysis.sums)),
        *((statistic, "site_effects", "random") for statistic in (site_effects.intercept, site_effects.marginal)),
    ]
    for statistic, key, value in asked:
        with pytest.raises(SumRefused, match=f"no model of this endpoint with {key}"):
            disclosure.check(victims.study, statistic.name, view, {}, nobody)
        model = victims.study.model["full"].model_copy(update={key: value})
        study = victims.study.model_copy(update={"model": {"full": model}})
        disclosure.check(study, statistic.name, view, {}, nobody)
        with pytest.raises(SumRefused, match=f"no model of this endpoint with {key}"):
            disclosure.check(study, statistic.name, view | {"endpoint": "other"}, {}, nobody)
