"""Nomogram: adding up points gives the model's risk; the widest axis has 100 points."""

import numpy as np
import pytest
from scipy import special

from cohortium.strategies import nomogram

AXES = {
    "age": [(40.0, 40 * 0.05), (80.0, 80 * 0.05)],
    "marker": [(0.5, -0.5), (3.0, -3.0)],
    "sex": [(0, 0.0), (1, 0.7)],
}


def points(axes, variable, value):
    (axis,) = (a for a in axes if a["variable"] == variable)
    return np.interp(value, *zip(*axis["points"], strict=True))


def test_points_add_up_to_the_risk():
    found = nomogram.nomogram(-3.0, AXES)
    for age, marker, sex in patients():
        total = sum(points(found["axes"], *pair) for pair in (("age", age), ("marker", marker), ("sex", sex)))
        risk = special.expit(-3.0 + 0.05 * age - marker + 0.7 * sex)
        assert special.expit(found["lowest"] + total / found["points_per_unit"]) == pytest.approx(risk, rel=1e-12)
        assert 0 <= total <= found["highest_total"]
    for total, risk in found["risk"]:
        assert special.expit(found["lowest"] + total / found["points_per_unit"]) == pytest.approx(risk, rel=1e-10)


def patients():
    return [(age, marker, sex) for age in (40, 55, 80) for marker in (0.5, 1.7, 3.0) for sex in (0, 1)]


def test_the_widest_axis_has_a_hundred_points():
    found = nomogram.nomogram(0.0, AXES)
    widest = {axis["variable"]: max(p for _, p in axis["points"]) for axis in found["axes"]}
    assert widest["marker"] == pytest.approx(100)
    assert widest["age"] == pytest.approx(100 * 2.0 / 2.5)
    assert widest["sex"] == pytest.approx(100 * 0.7 / 2.5)
    assert all(min(p for _, p in axis["points"]) == 0 for axis in found["axes"])


def test_a_model_without_effects_has_no_points():
    found = nomogram.nomogram(0.2, {"age": [(40.0, 0.0), (80.0, 0.0)]})
    assert found["points_per_unit"] == 0
    assert found["risk"] == []


def test_axes_leave_the_extremes_out():
    assert nomogram.percentiles(2000, 5) == (0.01, 0.99)
    assert nomogram.percentiles(100, 5) == (0.05, 0.95)
    assert nomogram.percentiles(4, 5) == (0.5, 0.5)
