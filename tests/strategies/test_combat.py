"""ComBat: equal to the pooled method and to neuroCombat, and at ease with sites that are new, tiny or incomplete."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable, SiteError
from cohortium.common.federation import PooledSites
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.strategies import combat, views
from cohortium.strategies.rows import Matrix
from tests.strategies.additivity import FixedPointSites, check

SITE = np.repeat([0, 1, 2], [120, 100, 80])
UNITS = np.logspace(-12, 12, 12)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Features (300, 12) with site effects, covariates (300, 2): class and age."""
    source = load_breast_cancer()
    x, y = source.data[:300, :12], 1 - source.target[:300]
    x = x * (1 + 0.1 * SITE[:, None]) + x.std(0) * 0.3 * SITE[:, None]
    return x, np.column_stack([y, np.round(60 + 8 * y + 9 * np.sin(np.arange(300)))])


def sites(x, protect, site=SITE) -> list[Matrix]:
    both = np.column_stack([x, protect])
    return [Matrix(both[site == s], np.zeros(np.sum(site == s), dtype=np.int64)) for s in np.unique(site)]


def harmonised(x, protect, fitted, site=SITE) -> np.ndarray:
    out = np.empty_like(x)
    for s in np.unique(site):
        mine = site == s
        out[mine] = combat.harmonise(x[mine], protect[mine], np.ones(mine.sum(), dtype=bool), fitted)
    return out


def pooled_combat(x, site, protect) -> np.ndarray:
    """The method on pooled rows, from the paper's formulas: sites as dummies, priors and iteration site by site."""
    dummies = (site[:, None] == np.unique(site)).astype(float)
    design = np.column_stack([dummies, protect])
    coefficients = np.linalg.lstsq(design, x, rcond=None)[0]
    k = dummies.shape[1]
    stand_mean = dummies.mean(0) @ coefficients[:k] + protect @ coefficients[k:]
    sd = np.sqrt(((x - design @ coefficients) ** 2).mean(0))
    out = np.empty_like(x)
    for s in np.unique(site):
        mine = site == s
        out[mine] = without_site((x[mine] - stand_mean[mine]) / sd) * sd + stand_mean[mine]
    return out


def without_site(z) -> np.ndarray:
    """One site's standardised rows, freed of its shrunk location and scale."""
    n, g_hat, d_hat = len(z), z.mean(0), z.var(0, ddof=1)
    g_bar, t2, m, s2 = g_hat.mean(), g_hat.var(ddof=1), d_hat.mean(), d_hat.var(ddof=1)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    g, d, change = g_hat, d_hat, 1.0
    while change > 1e-4:
        g_new = (t2 * n * g_hat + d * g_bar) / (t2 * n + d)
        d_new = (0.5 * ((z - g_new) ** 2).sum(0) + b) / (n / 2 + a - 1)
        change = max((np.abs(g_new - g) / g).max(), (np.abs(d_new - d) / d).max())
        g, d = g_new, d_new
    return (z - g) / np.sqrt(d)


@pytest.mark.parametrize("kind", [PooledSites, FixedPointSites])
def test_equals_the_pooled_method(data, kind):
    x, protect = data
    federation = kind(sites(x, protect))
    ours = harmonised(x, protect, combat.fit(federation, 12, 2))
    np.testing.assert_allclose(ours, pooled_combat(x, SITE, protect), rtol=1e-9)
    assert federation.rounds == 3


def test_golden_numbers_of_neurocombat(data):
    """neuroCombat 0.2.12 on the same rows: batch_col = site, continuous_cols = class, age; features 0, 3, 9."""
    x, protect = data
    ours = harmonised(x, protect, combat.fit(FixedPointSites(sites(x, protect)), 12, 2))
    golden = [
        [2.08148418143699e01, 1.22930930852628e03, 8.31766839096592e-02],
        [1.48149664421509e01, 6.28151597869674e02, 6.87583163950362e-02],
        [1.11448552272142e01, 3.34506314722219e02, 7.67306090316037e-02],
    ]
    np.testing.assert_allclose(ours[[0, 150, 299]][:, [0, 3, 9]], golden, rtol=1e-8)


def test_without_protected_covariates(data):
    x, _ = data
    nothing = np.empty((300, 0))
    ours = harmonised(x, nothing, combat.fit(FixedPointSites(sites(x, nothing)), 12))
    np.testing.assert_allclose(ours, pooled_combat(x, SITE, nothing), rtol=1e-9)


def test_units_do_not_matter(data):
    x, protect = data
    other = protect * [1, 365.25]
    ours = harmonised(x * UNITS, other, combat.fit(FixedPointSites(sites(x * UNITS, other)), 12, 2))
    np.testing.assert_allclose(ours / UNITS, pooled_combat(x, SITE, protect), rtol=1e-8)


def test_site_effects_go_and_the_protected_effect_stays(data):
    x, protect = data
    ours = harmonised(x, protect, combat.fit(PooledSites(sites(x, protect)), 12, 2))
    design = np.column_stack([SITE[:, None] == [0, 1, 2], protect]).astype(float)

    def effects(features):
        return np.linalg.lstsq(design, features / x.std(0), rcond=None)[0]

    before, after = effects(x), effects(ours)
    assert (np.ptp(after[:3], axis=0) < 0.15 * np.ptp(before[:3], axis=0)).all()  # shrunk, so not quite zero
    np.testing.assert_allclose(after[3], before[3], rtol=0.3)


def test_a_site_that_was_not_in_training(data):
    x, protect = data
    trained = SITE < 2
    fitted = combat.fit(PooledSites(sites(x[trained], protect[trained], SITE[trained])), 12, 2)
    new = combat.harmonise(x[~trained], protect[~trained], np.ones(80, dtype=bool), fitted)
    residual = (new - fitted.expected(protect[~trained])) / np.sqrt(fitted.pooled_variance)
    assert np.abs(residual.mean(0)).max() < 0.1  # from about 1
    with pytest.raises(SiteError, match="no training patient"):
        combat.harmonise(x[~trained], protect[~trained], np.zeros(80, dtype=bool), fitted)


def test_a_new_site_equals_the_formulas_against_the_frozen_pool(data):
    """Grand mean, covariate effects and variance of the training sites by least squares; its own location and scale."""
    x, protect = data
    trained, new = SITE < 2, SITE == 2
    dummies = (SITE[trained, None] == [0, 1]).astype(float)
    design = np.column_stack([dummies, protect[trained]])
    coefficients = np.linalg.lstsq(design, x[trained], rcond=None)[0]
    sd = np.sqrt(((x[trained] - design @ coefficients) ** 2).mean(0))
    expected = dummies.mean(0) @ coefficients[:2] + protect[new] @ coefficients[2:]
    fitted = combat.fit(FixedPointSites(sites(x[trained], protect[trained], SITE[trained])), 12, 2)
    ours = combat.harmonise(x[new], protect[new], np.ones(80, dtype=bool), fitted)
    np.testing.assert_allclose(ours, without_site((x[new] - expected) / sd) * sd + expected, rtol=1e-9)


def test_which_patients_of_a_site_tell_its_effect(data, write_study, tmp_path):
    """At a training site its training patients outside the folds left out; at a site without any, all of its own."""
    x, protect = data
    study = load_study(
        write_study(tmp_path / "study", "folds = 5\n[model.m]\nkind = 'logistic'\npredictors = ['age']\n")
    )
    fitted = combat.fit(PooledSites(sites(x, protect[:, 1:])), 12, 1)
    published = {"protect": ["age"], "combat": fitted._asdict()}
    mine = SITE == 1
    n = int(mine.sum())
    columns = {f"features.f/ct/tumour/{j:02d}": x[mine, j] for j in range(12)}
    columns |= {"age": protect[mine, 1], "endpoint.outcome": protect[mine, 0]}
    ids = np.array([f"p{i}" for i in range(n)])
    for parts, without in ((["train"] * n, (2,)), (["train"] * 60 + ["internal"] * 40, ()), (["external"] * n, ())):
        table = Table("east", ids, np.array(parts), columns)
        context = views.Context(table=table, study=study, site="east", objects={"d": published})
        block = {"features": "f", "at": None, "harmonise": "d"}
        ours = views.block_values(context, block, without, "final")
        telling = table.part == "train" if "train" in parts else np.ones(n, dtype=bool)
        if without:
            telling &= ~np.isin(views.folds_of(context), without)
            assert 0 < telling.sum() < n
        theirs = combat.harmonise(x[mine], protect[mine, 1:], telling, fitted)
        np.testing.assert_array_equal(ours, theirs)


def test_only_training_patients_tell_the_site_effect(data):
    x, protect = data
    fitted = combat.fit(PooledSites(sites(x, protect)), 12, 2)
    training = np.arange(120) % 3 > 0
    spoiled = np.where(training[:, None], x[:120], 1e3 * x[:120])
    one = combat.harmonise(x[:120], protect[:120], training, fitted)
    other = combat.harmonise(spoiled, protect[:120], training, fitted)
    np.testing.assert_array_equal(one[training], other[training])


def test_missing_features_are_left_out_feature_by_feature(data):
    x, protect = (part.copy() for part in data)
    gone = np.random.default_rng(1).random(300) < 0.2
    x[gone, 5] = np.nan
    fitted = combat.fit(FixedPointSites(sites(x, protect)), 12, 2)
    ours = harmonised(x, protect, fitted)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(x))
    alone = combat.fit(PooledSites(sites(x[~gone], protect[~gone], SITE[~gone])), 12, 2)
    for mine, theirs in (
        (fitted.pooled_variance, alone.pooled_variance),
        (fitted.grand_mean, alone.expected(fitted.protect_mean)),
    ):
        assert mine[5] == pytest.approx(theirs[5], rel=1e-9)
    np.testing.assert_allclose(fitted.protect_coefficients[:, 5], alone.protect_coefficients[:, 5], rtol=1e-8)


def test_a_missing_covariate_counts_as_its_mean(data):
    x, protect = data
    fitted = combat.fit(PooledSites(sites(x, protect)), 12, 2)
    unknown, mean = protect.copy(), protect.copy()
    unknown[7], mean[7] = np.nan, protect.mean(0)
    np.testing.assert_allclose(harmonised(x, unknown, fitted), harmonised(x, mean, fitted), rtol=1e-12)
    assert np.isfinite(combat.fit(PooledSites(sites(x, unknown)), 12, 2).grand_mean).all()


def test_constant_features(data):
    x, protect = data
    x = np.column_stack([x[:, :3], np.full(300, 0.1), SITE * 2.0])  # constant; constant inside every site
    fitted = combat.fit(FixedPointSites(sites(x, protect)), 5, 2)
    ours = harmonised(x, protect, fitted)
    np.testing.assert_allclose(ours[:, 3], 0.1, rtol=1e-12)
    np.testing.assert_allclose(ours[:, 4], x[:, 4].mean(), rtol=1e-9)
    np.testing.assert_allclose(ours[:, :3], pooled_combat(x[:, :3], SITE, protect), rtol=1e-9)


def test_odd_sites(data):
    x, protect = data
    site = np.concatenate([[0], np.ones(2), np.full(5, 2), SITE[8:] + 3]).astype(int)
    rows = [*sites(x, protect, site), Matrix(np.empty((0, 14)), np.empty(0, dtype=np.int64))]
    fitted = combat.fit(FixedPointSites(rows), 12, 2)
    ours = harmonised(x, protect, fitted, site)
    assert np.isfinite(ours).all()
    assert combat.harmonise(x[:0], protect[:0], np.empty(0, dtype=bool), fitted).shape == (0, 12)


def test_a_single_feature_borrows_from_no_other(data):
    x, protect = data[0][:, :1], data[1]
    fitted = combat.fit(PooledSites(sites(x, protect)), 1, 2)
    residual = harmonised(x, protect, fitted) - fitted.expected(protect)
    for s in range(3):
        mine = residual[s == SITE, 0]
        assert mine.mean() == pytest.approx(0, abs=1e-9)
        assert mine.var(ddof=1) == pytest.approx(fitted.pooled_variance[0], rel=1e-9)


def test_order_of_sites_does_not_matter(data):
    x, protect = data
    one = combat.fit(PooledSites(sites(x, protect)), 12, 2)
    other = combat.fit(PooledSites(sites(x, protect)[::-1]), 12, 2)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_covariates_that_only_sites_explain(data):
    x, _ = data
    with pytest.raises(NotIdentifiable, match="constant inside every site"):
        combat.fit(FixedPointSites(sites(x, SITE[:, None].astype(float))), 12, 1)


def test_local_half_keeps_its_contract(data):
    x, protect = data
    both = np.column_stack([x, protect])
    both[3, 2] = np.nan
    rows = Matrix(both, np.zeros(300, dtype=np.int64))
    check(combat.within_site, rows, mean=np.nanmean(both, axis=0), sd=np.nanstd(both, axis=0), protected=2)
