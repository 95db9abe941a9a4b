"""Rows of perturbed contours: own contour first, raw; nobody is left out of them who is in the other sums."""

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.common.study import parse_study
from cohortium.common.table import Table, perturbed
from cohortium.strategies import icc, moments, views
from cohortium.strategies.view_patients import Context

FEATURES = [f"features.r/ct/tumour/original_firstorder_{name}" for name in ("Mean", "Median", "Minimum")]
ROWS = {"part": "train", "without": [], "patients": 60}
SELECTION = [{"method": "icc"}]


def study(selection=SELECTION):
    return parse_study(
        {
            "study": {"name": "s", "primary": "e"},
            "endpoint": {"e": {"kind": "binary", "column": "e"}},
            "variable": [{"name": "age", "kind": "continuous"}],
            "image": {"ct": {"modality": "CT"}},
            "region": {"tumour": {}},
            "features": {
                "r": {
                    "kind": "radiomics",
                    "images": ["ct"],
                    "regions": ["tumour"],
                    "bin_count": 8,
                    "classes": ["firstorder"],
                    "perturbations": 2,
                }
            },
            "split": {"train": ["a", "b", "c"]},
            "model": {"m": {"kind": "logistic", "predictors": ["features.r"], "selection": selection}},
        }
    )


@pytest.fixture
def contexts():
    """Three sites; of one patient the second contour could not be measured, another has no median at all."""
    rng = np.random.default_rng(0)
    made = []
    for site in "abc":
        columns = {name: rng.normal(5, 2, 20) for name in FEATURES}
        for number in (1, 2):
            columns |= {perturbed(name, number): columns[name] + rng.normal(0, 0.5, 20) for name in FEATURES}
        if site == "b":
            columns |= {perturbed(name, 2): np.where(np.arange(20) == 3, np.nan, columns[name]) for name in FEATURES}
            columns[FEATURES[1]][5] = np.nan
        ids = np.array([f"{site}{i}" for i in range(20)])
        part = np.array(["train"] * 18 + ["internal"] * 2)
        made.append(Context(Table(site, ids, part, columns), study(), site, {}))
    return made


def rows(contexts, **view):
    return [views.build({"kind": "repeated", "rows": ROWS, "features": "r", **view}, context) for context in contexts]


def test_own_contour_first_of_the_features_asked(contexts):
    x = rows(contexts, at=np.array([2, 0]))[0].x
    assert x.shape == (18, 2, 3)
    columns = contexts[0].table.columns
    assert np.array_equal(x[:, 0, 0], columns[FEATURES[2]][:18])
    assert np.array_equal(x[:, 1, 2], columns[perturbed(FEATURES[0], 2)][:18])


def test_no_patient_is_the_difference_to_other_sums(contexts):
    centre, scale = np.full(3, 5.0), np.full(3, 2.0)
    of_contours = PooledSites(rows(contexts, at=np.arange(3))).sum(icc.agreement, centre=centre, scale=scale)
    view = {"kind": "matrix", "rows": ROWS, "blocks": [{"features": "r", "at": None}]}
    plain = PooledSites([views.build(view, context) for context in contexts])
    known = moments.fit(plain, 3)
    assert of_contours.patients.tolist() == known.n.tolist() == [54, 53, 54]
    own = of_contours.total[:, 0] * scale + centre * known.n
    assert own == pytest.approx(known.n * known.mean, rel=1e-12)


def test_contours_answer_the_step_of_the_study_and_nothing_else(contexts):
    view = {"kind": "repeated", "rows": ROWS, "features": "r", "at": np.arange(3)}
    one = rows(contexts, at=np.arange(3))[0]
    asked = {"centre": np.zeros(3), "scale": np.ones(3)}
    disclosure.check(study(), "icc.agreement", view, asked, one)
    with pytest.raises(SumRefused, match="selection step icc"):
        disclosure.check(study(selection=["screen"]), "icc.agreement", view, asked, one)
    with pytest.raises(SumRefused, match="selection step icc"):
        disclosure.check(study(), "moments.power_sums", view, {"centre": np.zeros((1, 3)), "power": 1}, one)
    with pytest.raises(SumRefused, match="selection step icc"):
        disclosure.check(study(), "icc.agreement", {**view, "kind": "matrix"}, asked, one)
