"""Brier score: parts that add up, equal to scikit-learn; Spiegelhalter's z as he defines it."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from cohortium.common.errors import Undefined
from cohortium.strategies import brier, calibration_groups
from tests.strategies.scored import patients


def in_groups(y, score):
    """Ten groups by rank, as `calibration_groups.groups` would make of single scores."""
    order = np.array_split(np.argsort(score, kind="stable"), 10)
    return calibration_groups.Groups(
        patients=np.array([len(g) for g in order]),
        events=np.array([int(y[g].sum()) for g in order]),
        predicted=np.array([score[g].sum() for g in order]),
    ), order


def test_parts_add_up_and_are_murphys():
    rows = patients()
    y, score = rows.y, rows.score[:, 0]
    groups, members = in_groups(y, score)
    value = metrics.brier_score_loss(y, score)
    parts = brier.decomposition(groups, value)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_groups
    assert total == pytest.approx(value, abs=1e-15)
    # where all scores of a group are its mean, Murphy's three parts are the whole Brier score
    flat = np.concatenate([np.full(len(g), score[g].mean()) for g in members])
    of_flat = metrics.brier_score_loss(np.concatenate([y[g] for g in members]), flat)
    assert brier.decomposition(groups, of_flat).within_groups == pytest.approx(0, abs=1e-15)
    assert brier.scaled(groups, value) == pytest.approx(1 - value / y.var(), abs=1e-14)


def test_spiegelhalter_has_a_standard_normal_z_under_calibration():
    """Exact mean and variance of the Brier score of calibrated scores; scipy's normal gives p."""
    rng = np.random.default_rng(3)
    score = np.round(rng.beta(2, 3, 200), 4)
    drawn = (rng.random((4000, 200)) < score).astype(float)
    excess = ((drawn - score) * (1 - 2 * score)).sum(1)
    variance = ((1 - 2 * score) ** 2 * score * (1 - score)).sum()
    # the numerator is the Brier score less its expectation, times n
    np.testing.assert_allclose(excess, ((drawn - score) ** 2 - score * (1 - score)).sum(1), atol=1e-10)
    z = np.array([brier.spiegelhalter(e, variance)[0] for e in excess])
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert brier.spiegelhalter(excess[0], variance)[1] == pytest.approx(2 * stats.norm.sf(abs(z[0])), rel=1e-12)


def test_what_has_no_figure_says_so():
    one_class = calibration_groups.Groups(
        patients=np.array([5, 5]), events=np.array([0, 0]), predicted=np.array([1.0, 2.0])
    )
    with pytest.raises(Undefined, match="with and without"):
        brier.scaled(one_class, 0.1)
    with pytest.raises(Undefined, match="with and without"):
        calibration_groups.observed_to_expected(one_class)
    with pytest.raises(Undefined, match="other than 0"):
        brier.spiegelhalter(0.0, 0.0)
    assert brier.decomposition(one_class, 0.1).uncertainty == 0


def test_observed_to_expected_and_expected_calibration_error():
    """By hand: O = 27, E = 22.5, N = 200; standard error of log O:E is sqrt((1 - O / N) / O) (Debray et al. 2017)."""
    groups = calibration_groups.Groups(
        patients=np.array([100, 100]), events=np.array([7, 20]), predicted=np.array([8.0, 14.5])
    )
    ratio, (low, high) = calibration_groups.observed_to_expected(groups)
    assert ratio == pytest.approx(1.2)
    half = stats.norm.ppf(0.975) * np.sqrt((1 - 27 / 200) / 27)
    assert (np.log(high) - np.log(low)) / 2 == pytest.approx(half, rel=1e-12)
    assert calibration_groups.expected_calibration_error(groups) == pytest.approx((1.0 + 5.5) / 200)
