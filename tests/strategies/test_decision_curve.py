"""Decision curve: equal to its definition on the pooled patients."""

import numpy as np
import pytest

from cohortium.common.errors import Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies import decision_curve
from tests.strategies.additivity import FixedPointSites, odd_sites
from tests.strategies.scored import patients


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_equals_the_definition_patient_by_patient(sites):
    rows = patients()
    federation = sites(odd_sites(rows, rows.y))
    ours, everyone = decision_curve.curves(federation, 3)
    assert federation.rounds == 1
    for k, t in enumerate(decision_curve.THRESHOLDS):
        worth = np.where(rows.y == 1, 1.0, -t / (1 - t))  # a patient's gain from being treated
        treated = np.round(rows.score * 1e4) >= round(t * 1e4)
        np.testing.assert_allclose(ours[:, k], (worth[:, None] * treated).mean(0), rtol=1e-12, atol=1e-15)
        assert everyone[k] == pytest.approx(worth.mean(), rel=1e-12)


def test_nobody_is_undefined():
    with pytest.raises(Undefined, match="needs patients"):
        decision_curve.curves(PooledSites([patients(0)]), 3)


def test_one_class():
    rows = patients(30)
    ours, everyone = decision_curve.curves(PooledSites([rows._replace(y=np.zeros(30))]), 3, (0.2,))
    np.testing.assert_allclose(everyone, [-0.25])
    np.testing.assert_allclose(ours[:, 0], -0.25 * (rows.score >= 0.2).mean(0))


def test_golden_worked_by_hand():
    """100 patients, 30 with the outcome; at 25 % a false positive weighs 1/3 (Vickers & Elkin 2006, their equation).

    Called: 24 with and 18 without: 24/100 - 18/100 / 3 = .18. All: 30/100 - 70/100 / 3 = .0667.
    """
    total, called = np.array([70, 30]), np.array([[18], [24]])
    assert decision_curve.net_benefit(called, total, (0.25,))[0] == pytest.approx(0.18, rel=1e-14)
    assert decision_curve.treat_all(total, (0.25,))[0] == pytest.approx(0.2 / 3, rel=1e-14)
    # in 100 patients: 52 are spared, at 6 missed events worth 3 treatments each: 34
    assert decision_curve.interventions_avoided(called, total, (0.25,))[0] == pytest.approx(52 - 6 * 3, rel=1e-13)
