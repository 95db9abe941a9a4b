"""Privacy accountant: its epsilon agrees with other accountants, its budget holds whatever happens in between."""

import math
import sqlite3
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import optimize, stats

from cohortium.common.errors import SumRefused
from cohortium.common.privacy_accountant import FILE, Accountant, affordable, cost, epsilon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # opacus warns of its own imports
    from opacus.accountants.analysis import rdp as opacus_rdp

RHO = 0.05


def gaussian_delta(eps, mu):
    """Privacy profile of the Gaussian mechanism, mu = sensitivity / sigma (Balle & Wang, ICML 2018, theorem 8)."""
    return stats.norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * stats.norm.cdf(-mu / 2 - eps / mu)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0])
class TestOneMechanism:
    def test_agrees_with_opacus(self, mu, delta):
        orders = 1 + np.geomspace(1e-3, 1e4, 4000)
        spent = opacus_rdp.compute_rdp(q=1.0, noise_multiplier=1 / mu, steps=1, orders=orders)
        theirs, _ = opacus_rdp.get_privacy_spent(orders=orders, rdp=spent, delta=delta)
        assert epsilon(cost(mu, 1.0), delta) == pytest.approx(theirs, rel=1e-5)  # both minimise over a grid of orders

    def test_is_above_the_exact_profile_and_near_it(self, mu, delta):
        exact = optimize.brentq(lambda eps: gaussian_delta(eps, mu) - delta, 0, 200)
        ours = epsilon(cost(mu, 1.0), delta)
        assert exact <= ours <= 1.2 * exact + 0.02  # RDP of a Gaussian loses up to a fifth


def test_many_mechanisms_agree_with_opacus():
    multipliers = [2.0, 3.0, 3.0, 5.0, 8.0] * 4
    orders = 1 + np.geomspace(1e-3, 1e4, 4000)
    spent = sum(opacus_rdp.compute_rdp(q=1.0, noise_multiplier=m, steps=1, orders=orders) for m in multipliers)
    theirs, _ = opacus_rdp.get_privacy_spent(orders=orders, rdp=spent, delta=1e-5)
    assert epsilon(sum(cost(1.0, m) for m in multipliers), 1e-5) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 8.0])
def test_the_discrete_law_itself_is_within_what_is_charged(sigma):
    """Hockey-stick divergence of two discrete Gaussians 3 apart, summed over the integers."""
    y = np.arange(-200, 204)
    p, q = (np.exp(-((y - shift) ** 2) / (2 * sigma**2)) for shift in (0, 3))
    p, q = p / p.sum(), q / q.sum()
    eps = epsilon(cost(3, sigma), 1e-5)
    assert np.maximum(p - math.exp(eps) * q, 0).sum() <= 1e-5


def test_a_sum_of_shares_is_as_good_as_one_discrete_gaussian():
    """Four shares of sigma 4 against one of sigma 8: apart by less than 1e-15 of a double everywhere."""
    y = np.arange(-160, 161)
    share = np.exp(-(y**2) / 32.0)
    total = share / share.sum()
    for _ in range(3):
        total = np.convolve(total, share / share.sum())
    at = np.arange(-640, 641)
    one = np.exp(-(at**2) / 128.0)
    np.testing.assert_allclose(total, one / one.sum(), atol=1e-16)


@pytest.mark.parametrize(("eps", "delta"), [(0.1, 1e-5), (1.0, 1e-6), (8.0, 1e-3)])
def test_affordable_is_the_other_way_round(eps, delta):
    rho = affordable(eps, delta)
    assert epsilon(rho, delta) <= eps < epsilon(rho * (1 + 1e-9), delta) * (1 + 1e-6)


def test_nothing_costs_nothing():
    assert epsilon(0.0, 1e-5) == 0
    for wrong in ((-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="must be at least 0"):
            epsilon(*wrong)


# --- on disk --------------------------------------------------------------------------------------------------------


class Noise:
    """Counts how often an answer was made; every one is another."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return [np.full(3, self.made), np.array([-self.made])]


def ask(folder, query, make, *, study="a" * 64, part="train", rho=RHO, budget=3 * RHO):
    """Every question at a fresh accountant, as in a fresh process."""
    terms = {"study": study, "part": part, "statistic": "levels.level_counts", "rho": rho, "budget": budget}
    return Accountant(folder).answer(query, **terms, make=make)


def test_the_same_query_gets_the_same_noise_and_costs_once(tmp_path):
    noise = Noise()
    first = ask(tmp_path, b"one", noise)
    again = ask(tmp_path, b"one", noise)
    assert noise.made == 1
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert Accountant(tmp_path).spent("a" * 64) == RHO


def test_fresh_noise_is_a_new_charge(tmp_path):
    """The same statistic over other rows or sites has another digest: other noise, and a charge of its own."""
    noise = Noise()
    assert (ask(tmp_path, b"one", noise)[0] != ask(tmp_path, b"two", noise)[0]).all()
    assert Accountant(tmp_path).spent("a" * 64) == 2 * RHO


def test_the_budget_ends_and_what_was_answered_stays(tmp_path):
    noise = Noise()
    for query in (b"one", b"two"):
        ask(tmp_path, query, noise)
    with pytest.raises(SumRefused, match="more than is left of the epsilon"):
        ask(tmp_path, b"dear", noise, rho=1.01 * RHO)
    assert noise.made == 2
    ask(tmp_path, b"three", noise, budget=3 * RHO * (1 + 1e-12))
    with pytest.raises(SumRefused, match="privacy budget"):
        ask(tmp_path, b"four", noise)
    assert (ask(tmp_path, b"one", noise)[0] == 1).all()
    assert len(Accountant(tmp_path).charges()) == 3


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_cost_that_is_none(tmp_path, rho):
    with pytest.raises(SumRefused):
        ask(tmp_path, b"one", Noise(), rho=rho)


def test_parts_are_other_patients_and_studies_are_not(tmp_path):
    for query, study, part in (
        (b"1", "a", "train"),
        (b"2", "a", "internal"),
        (b"3", "b", "train"),
        (b"4", "a", "train"),
    ):
        ask(tmp_path, query, Noise(), study=study, part=part)
    accountant = Accountant(tmp_path)
    assert accountant.spent("a") == 2 * RHO
    assert accountant.spent("unknown") == 0
    assert accountant.spent() == pytest.approx(3 * RHO)


def test_a_failure_while_answering_charges_nothing(tmp_path):
    def broken():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        ask(tmp_path, b"one", broken)
    assert Accountant(tmp_path).spent() == 0


def test_the_charge_is_on_disk_before_the_answer_is_given(tmp_path):
    ask(tmp_path, b"one", Noise())
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT rho FROM charge").fetchall() == [(RHO,)]
    database.close()


def _spend(folder, query):
    try:
        ask(folder, query, Noise())
    except SumRefused:
        return 0
    return 1


def test_overlapping_answers_do_not_spend_the_same_remainder(tmp_path):
    """Each thread has a connection of its own, as processes have."""
    with ThreadPoolExecutor(4) as pool:
        paid = sum(pool.map(lambda i: _spend(tmp_path, bytes([i])), range(8)))
    assert paid in (2, 3)  # three times RHO may round above the budget
    assert Accountant(tmp_path).spent() <= 3 * RHO
