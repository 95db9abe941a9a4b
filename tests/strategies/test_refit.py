"""Refit: four likelihoods and their tests equal to statsmodels on the pooled patients; the needed model is chosen."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.strategies import refit
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, odd_sites

NAMES = ("age", "marker", "stage")
BETA = np.array([-0.4, 0.8, -0.6, 0.5])
CENTRE, SCALE = np.array([0.3, -0.2, 0.1]), np.array([2.0, 1.5, 0.7])


def cohort(truth, n=900, seed=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.2, 1.1, (n, 3))
    y = (rng.random(n) < special.expit(np.column_stack([np.ones(n), x]) @ truth)).astype(float)
    return Labelled(x, y, np.zeros(n, np.int64))


def updated(rows, sites=PooledSites, coefficients=BETA, minimum_count=5):
    shares = odd_sites(rows, rows.y)
    recipe = {"blocks": ["all"], "centre": CENTRE, "scale": SCALE, "fill": CENTRE}
    asked = []

    def ask(of, patients):
        asked.append(patients)
        return sites([share if of["blocks"] else share._replace(x=share.x[:, :0]) for share in shares])

    model = {"names": NAMES, "coefficients": coefficients, "recipe": recipe}
    found = refit.closed_test(ask, model, minimum_count=minimum_count)
    assert asked in ([None, len(rows.y)], [None])
    return found


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_equals_statsmodels(sites):
    rows = cohort(np.array([0.2, 0.2, -0.9, 0.4]))
    found = updated(rows, sites)
    design = sm.add_constant(rows.x)
    score = design @ BETA
    none = float((rows.y * score - np.logaddexp(0, score)).sum())
    large = sm.GLM(rows.y, np.ones(900), family=sm.families.Binomial(), offset=score).fit(tol=1e-14)
    both = sm.Logit(rows.y, sm.add_constant(score)).fit(disp=0, tol=1e-14)
    full = sm.Logit(rows.y, design).fit(disp=0, tol=1e-14)
    for test, null, llf, df in zip(found["tests"], refit.NESTED, (none, large.llf, both.llf), (4, 3, 2), strict=True):
        assert (test["null"], test["alternative"], test["df"]) == (null, "refit", df)
        assert test["chi2"] == pytest.approx(2 * (full.llf - llf), abs=1e-8)
        assert test["p"] == pytest.approx(stats.chi2.sf(2 * (full.llf - llf), df), rel=1e-6)
    models = found["models"]
    assert models["intercept"]["intercept"] == pytest.approx(large.params[0], abs=1e-9)
    recalibrated = models["intercept_and_slope"]
    np.testing.assert_allclose([recalibrated["intercept"], recalibrated["slope"]], both.params, rtol=1e-8)
    in_units = sm.Logit(rows.y, sm.add_constant(CENTRE + SCALE * rows.x)).fit(disp=0, tol=1e-14)
    np.testing.assert_allclose([c["estimate"] for c in models["refit"]["coefficients"]], in_units.params, rtol=1e-8)
    np.testing.assert_allclose([c["se"] for c in models["refit"]["coefficients"]], in_units.bse, rtol=1e-7)
    assert [c["term"] for c in models["refit"]["coefficients"]] == ["(Intercept)", *NAMES]


@pytest.mark.parametrize(
    ("truth", "chosen"),
    [
        (BETA, "none"),
        (BETA + np.array([0.7, 0, 0, 0]), "intercept"),
        (BETA * 0.4 + np.array([0.5, 0, 0, 0]), "intercept_and_slope"),
        (BETA * np.array([1, -1, 1, 1]), "refit"),
    ],
)
def test_the_update_that_is_needed_is_chosen(truth, chosen):
    assert updated(cohort(truth, 4000, 8))["chosen"] == chosen


def test_of_one_column_the_refit_is_the_recalibration():
    rows = cohort(np.array([0.2, 0.3, 0, 0]))
    one = rows._replace(x=rows.x[:, :1])
    model = {
        "names": ["age"],
        "coefficients": BETA[:2],
        "recipe": {"blocks": ["all"], "centre": [0.0], "scale": [1.0], "fill": [0.0]},
    }

    def ask(of, _):
        return PooledSites([one if of["blocks"] else one._replace(x=one.x[:, :0])])

    found = refit.closed_test(ask, model, minimum_count=5)
    assert found["chosen"] in ("intercept", "intercept_and_slope")
    assert found["tests"][2] == pytest.approx(
        {"null": "intercept_and_slope", "alternative": "refit", "chi2": 0.0, "df": 0, "p": 1.0}, abs=1e-9
    )


def test_what_cannot_be_refitted_says_why():
    rows = cohort(BETA, 60)
    few = Labelled(rows.x[:11], np.arange(11.0) % 2, rows.fold[:11])
    assert updated(few) == {"withheld": "a refit of 3 columns needs 12 patients, and there are fewer"}
    rare = rows._replace(y=(np.arange(60) < 3).astype(float))
    assert "needs 5 patients with and as many without" in updated(rare)["withheld"]
    assert "needs 4 patients with" in updated(rare, minimum_count=1)["withheld"]
    separated = rows._replace(y=(rows.x[:, 1] > 0.2).astype(float))
    assert "marker separates the outcome" in updated(separated)["undefined"]
    same = rows._replace(x=np.column_stack([rows.x[:, :2], rows.x[:, 1]]))
    assert "determine each other" in updated(same)["undefined"]
    flat = updated(rows, coefficients=np.array([-0.4, 0, 0, 0]))  # a LASSO that has kept nothing scores all alike
    assert "all alike" in flat["undefined"]


def test_a_mean_of_fits_to_imputed_data_sets_has_no_refit():
    model = {"names": NAMES, "coefficients": np.zeros(7), "recipe": {}}
    found = refit.closed_test(lambda *_: PooledSites([]), model, minimum_count=5)
    assert "several imputed data sets" in found["undefined"]


def test_a_refusal_of_a_site_withholds_it():
    def ask(_of, _patients):
        raise SumRefused("logistic.terms", "not on the allow list")

    model = {"names": NAMES, "coefficients": BETA, "recipe": {}}
    assert refit.closed_test(ask, model, minimum_count=5) == {"withheld": "logistic.terms: not on the allow list"}
