"""Interactions: the Wald test of one logistic model with products, by statsmodels; DeLong's errors side by side."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from cohortium.common.federation import PooledSites
from cohortium.strategies import interactions, validation
from tests.strategies.additivity import FixedPointSites, take
from tests.strategies.scored import MODELS, patients


def by_level(sites, levels):
    rows = patients()
    level = np.random.default_rng(2).integers(0, levels, 600)
    asked = validation.Settings(score_resolution="exact")
    cohorts = {"internal": {}}
    for k in range(levels):
        mine = take(rows, level == k)
        found = validation.validate_binary(
            sites([take(mine, slice(0, 50)), take(mine, slice(50, None))]), MODELS, asked
        )
        cohorts[f"internal/subgroup:stage={k}"] = found
    return rows, level, interactions.interactions(cohorts, ["stage"])


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
@pytest.mark.parametrize("levels", [2, 3])
def test_slopes_are_the_products_of_one_model(sites, levels):
    rows, level, found = by_level(sites, levels)
    dummies = np.eye(levels)[level]
    for m, name in enumerate(MODELS):
        logits = special.logit(rows.score[:, m])
        design = np.column_stack([dummies, logits, dummies[:, 1:] * logits[:, None]])
        fit = sm.Logit(rows.y, design).fit(disp=0, tol=1e-14)
        products = np.eye(design.shape[1])[levels + 1 :]
        wald = fit.wald_test(products, scalar=True, use_f=False)
        (entry,) = (e for e in found if e["model"] == name and e["figure"] == "calibration.slope")
        assert entry["chi2"] == pytest.approx(float(wald.statistic), rel=1e-7, abs=1e-9)
        assert entry["df"] == levels - 1
        assert entry["p"] == pytest.approx(float(wald.pvalue), rel=1e-7)
        assert entry["p_holm"] >= entry["p_bh"] >= entry["p"]
        if levels == 2:
            assert entry["difference"] == pytest.approx(fit.params[-1], rel=1e-8)
            np.testing.assert_allclose(entry["ci"], fit.conf_int()[-1], rtol=1e-7)


def test_heterogeneity_of_two_is_the_squared_z():
    z = (0.8 - 0.7) / np.hypot(0.03, 0.04)
    q, df, p = interactions.heterogeneity([0.7, 0.8], [0.03, 0.04])
    assert (q, df) == (pytest.approx(z**2, rel=1e-12), 1)
    assert p == pytest.approx(2 * stats.norm.sf(z), rel=1e-12)


def test_levels_without_a_figure_are_left_out_and_named():
    area = {"auc": {"estimate": 0.8, "se": 0.02}}
    cohorts = {
        "internal": {"m": area},
        "internal/subgroup:sex=0": {"m": area},
        "internal/subgroup:sex=1": {"m": {"auc": {"undefined": "one class"}}},
    }
    (entry,) = interactions.interactions(cohorts, ["sex"])
    assert entry["levels"] == ["0"]
    assert "undefined" in entry["p"]
    assert interactions.interactions(cohorts, []) == []
