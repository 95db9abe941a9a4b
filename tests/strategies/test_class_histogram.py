"""Class histogram: counts that one patient moves by little, and an AUC whose interval knows of the noise."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cohortium.common.errors import SumRefused, Undefined
from cohortium.common.federation import PooledSites
from cohortium.strategies.class_histogram import CELLS, noised_auc, patients
from cohortium.strategies.rows import Scored
from tests.strategies.additivity import check, odd_sites


def cohort(rng, n):
    y = (rng.random(n) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(-0.3, 1, n) + 1.1 * y)))
    return Scored(score=np.column_stack([score, 1 - score]), y=y, fold=np.zeros(n, np.int64))


@pytest.fixture(scope="module")
def rows():
    return cohort(np.random.default_rng(8), 900)


def test_adds_over_rows(rows):
    check(patients, rows, cells=CELLS)


def test_counts_are_numpys(rows):
    ours = PooledSites(odd_sites(rows, rows.y)).sum(patients, cells=CELLS).patients
    for model in (0, 1):
        for outcome in (0, 1):
            theirs, _ = np.histogram(rows.score[rows.y == outcome, model], bins=CELLS, range=(0, 1))
            np.testing.assert_array_equal(ours[model, outcome], theirs)


def test_the_auc_is_scikit_learns_within_its_bound(rows):
    counts = patients.local(rows, cells=CELLS).patients[0]
    estimate, (low, high), bound = noised_auc(counts, 0.0)
    theirs = roc_auc_score(rows.y, rows.score[:, 0])
    assert abs(estimate - theirs) <= bound
    assert low < theirs < high


def test_the_interval_covers_under_noise():
    rng = np.random.default_rng(11)
    sigma, covered = 6.0, []
    truth = noised_auc(patients.local(cohort(rng, 400_000), cells=CELLS).patients[0], 0.0)[0]
    for _ in range(400):
        counts = patients.local(cohort(rng, 1000), cells=CELLS).patients[0]
        noised = counts + np.rint(rng.normal(0, sigma, counts.shape)).astype(np.int64)
        _, (low, high), _ = noised_auc(noised, sigma)
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.98  # 95 % +- 3 standard errors of 400


def test_replacing_one_patient_moves_no_further_than_declared():
    rng = np.random.default_rng(2)
    odd = np.array([0.0, 1.0, -5.0, np.nan, np.inf, -np.inf, 0.5])
    for _ in range(200):
        told = [
            patients.local(
                Scored(rng.choice(odd, (1, 3)), rng.choice([0.0, 1.0, np.nan], 1), np.zeros(1, int)), cells=7
            )
            for _ in range(2)
        ]
        moved = np.linalg.norm((told[0].patients - told[1].patients).ravel())
        assert moved <= patients.sensitivity(told[0], cells=7)


def test_too_much_noise_is_undefined():
    with pytest.raises(Undefined, match="as large as"):
        noised_auc(np.ones((2, 20), np.int64), 5.0)


@pytest.mark.parametrize("cells", [1, 101, 2.5])
def test_cells_out_of_range(rows, cells):
    with pytest.raises(SumRefused, match="whole number"):
        patients.local(rows, cells=cells)
