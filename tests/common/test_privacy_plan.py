"""Privacy plan: what a study asks of one part costs its budget, and what accomplices know does not weaken the rest."""

import math

import pytest

from cohortium.common import privacy_plan
from cohortium.common.errors import SumRefused
from cohortium.common.privacy_accountant import epsilon
from cohortium.common.study import load_study

TABLES = """
[model.a]
kind = "logistic"
predictors = ["stage"]

[model.b]
kind = "logistic"
predictors = ["stage"]

[privacy.dp]
epsilon = 1.0
delta = 1e-6
"""


def study(write_study, folder, more=""):
    return load_study(write_study(folder, TABLES + more))


def test_the_releases_of_a_part_cost_its_budget(write_study, tmp_path):
    found = study(write_study, tmp_path)
    times = {  # one counted variable, two models of one endpoint
        "levels.level_counts": 1,
        "noisy_logistic.gradient": 2 * privacy_plan.ROUNDS,
        "class_histogram.patients": 1,
    }
    whole = sum(n * privacy_plan.rho_each(found, name) for name, n in times.items())
    assert whole == pytest.approx(privacy_plan.budget(found))
    assert epsilon(whole, 1e-6) == pytest.approx(1.0)


def test_fewer_statistics_share_all_of_it(write_study, tmp_path):
    found = study(write_study, tmp_path, 'statistics = ["noisy_logistic.gradient"]\n')
    each = privacy_plan.rho_each(found, "noisy_logistic.gradient")
    assert 2 * privacy_plan.ROUNDS * each == pytest.approx(privacy_plan.budget(found))
    with pytest.raises(SumRefused, match=r"what can, in this study, is noisy_logistic\.gradient"):
        privacy_plan.rho_each(found, "levels.level_counts")


@pytest.mark.parametrize("accomplices", [0, 1, 2])
def test_those_who_keep_their_noise_secret_add_enough(write_study, tmp_path, accomplices):
    found = study(write_study, tmp_path, f"accomplices = {accomplices}\n")
    sensitivity = 2.0**17
    share = privacy_plan.noise_of_a_site(found, "noisy_logistic.gradient", sensitivity)
    rho = privacy_plan.rho_each(found, "noisy_logistic.gradient")
    needed = sensitivity**2 / (2 * rho)  # zCDP of a Gaussian (Bun & Steinke 2016, proposition 1.6)
    assert needed <= share**2 * (4 - accomplices) <= needed * 1.0001
    assert privacy_plan.charged(found, sensitivity, share) <= rho


def test_a_share_is_never_below_four_steps(write_study, tmp_path):
    found = study(write_study, tmp_path)
    share = privacy_plan.noise_of_a_site(found, "class_histogram.patients", 1e-3)
    assert share == privacy_plan.LEAST_SHARE
    assert privacy_plan.charged(found, 1e-3, share) == pytest.approx(1e-6 / (2 * 4 * 16))
    assert math.isfinite(privacy_plan.budget(found))
