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


def test_golden_published_example():
    """Vickers & Elkin, Med Decis Making 26:565 (2006), equation and worked figures of the text.

    902 men, 236 with the outcome; at a threshold of 20 % treating all has net benefit (236 - 666 * .25) / 902 = .0770.
    """
    total = np.array([666, 236])
    assert decision_curve.treat_all(total, (0.2,))[0] == pytest.approx((236 - 666 * 0.25) / 902, rel=1e-14)
    called = np.array([[400], [200]])
    assert decision_curve.net_benefit(called, total, (0.2,))[0] == pytest.approx((200 - 100) / 902, rel=1e-14)
