import numpy as np
from scipy import stats

from cohortium.client.quality_report import outliers, robust_z
from cohortium.common.table import Table


def test_robust_z_is_that_of_scipy():
    values = np.random.default_rng(0).normal(5, 3, (40, 6))
    scale = stats.median_abs_deviation(values, axis=0, scale="normal")
    # 1.4826 is 1 / norm.ppf(.75) to five digits
    np.testing.assert_allclose(robust_z(values), (values - np.median(values, axis=0)) / scale, rtol=1e-4)


def test_gaps_stay_gaps_and_constants_have_no_outliers():
    values = np.array([[1.0, 7.0, np.nan], [np.nan, 7.0, np.nan], [3.0, 7.0, np.nan], [2.0, 9.0, np.nan]])
    z = robust_z(values)
    assert np.array_equal(np.isnan(z), np.isnan(values))
    assert (z[:, 1] == 0).all()


def test_the_odd_patient_is_named_with_its_farthest_features():
    values = np.random.default_rng(1).normal(size=(30, 5))
    values[7, 2], values[7, 3], values[9, 0] = 60.0, -90.0, 40.0
    names = [f"features.radiomics/ct/tumour/f{i}" for i in range(5)]
    ids = np.array([f"p{i}" for i in range(30)])
    table = Table("a", ids, np.full(30, "train"), {name: values[:, i] for i, name in enumerate(names)})
    found = outliers(table)
    assert [(patient.patient_id, patient.features) for patient in found] == [("p7", 2), ("p9", 1)]
    assert [name for name, _ in found[0].farthest] == [names[3], names[2]]
    assert found[0].farthest[0][1] < -50
