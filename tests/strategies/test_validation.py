"""Validation: a cohort's figures, equal to a pooled analysis, JSON-ready and honest about what does not exist."""

import json

import numpy as np
import pytest
from sklearn import metrics

from cohortium.common.federation import PooledSites
from cohortium.strategies import validation
from cohortium.strategies.rows import Scored
from tests.strategies.additivity import FixedPointSites, odd_sites, split
from tests.strategies.scored import MODELS, patients

CUTOFFS = {"sharp": 0.4, "blunt": 0.35}


def settings(**changes) -> validation.Settings:
    return validation.Settings(**({"score_resolution": "exact", "cutoffs": CUTOFFS, "folds": 5} | changes))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_exact_figures_equal_a_pooled_analysis(sites):
    rows = patients()
    federation = sites(odd_sites(rows, rows.y))
    figures = validation.validate_binary(federation, MODELS, settings())
    assert federation.rounds <= 10  # histogram, thresholds, Newton steps
    for m, name in enumerate(MODELS):
        score, ours = rows.score[:, m], figures[name]
        assert tuple(ours) == validation.BINARY_FIGURES
        assert (ours["n"], ours["events"]) == (600, int(rows.y.sum()))
        assert ours["auc"]["estimate"] == pytest.approx(metrics.roc_auc_score(rows.y, score), abs=1e-12)
        assert ours["auc"]["bound"] == 0
        folds = [metrics.roc_auc_score(rows.y[rows.fold == k], score[rows.fold == k]) for k in range(5)]
        assert ours["auc"]["folds_mean"] == pytest.approx(np.mean(folds), abs=1e-12)
        assert ours["brier"] == pytest.approx(metrics.brier_score_loss(rows.y, score), abs=1e-12)
        assert sum(n for *_, n in ours["calibration"]["curve"]) == 600
        if name in CUTOFFS:
            high = score >= CUTOFFS[name]
            assert ours["at_cutoff"]["sensitivity"] == pytest.approx(metrics.recall_score(rows.y, high))
            assert ours["at_cutoff"]["ppv"] == pytest.approx(metrics.precision_score(rows.y, high))
            assert ours["at_cutoff"]["accuracy"] == pytest.approx(metrics.accuracy_score(rows.y, high))
        else:
            assert "undefined" in ours["at_cutoff"]


def test_binned_figures_stay_close_and_certified():
    rows = patients()
    federation = PooledSites(split(rows, [400, 200]))
    binned = validation.validate_binary(federation, MODELS, settings(score_resolution="binned"))
    assert federation.rounds <= 13
    exact = validation.validate_binary(PooledSites([rows]), MODELS, settings())
    for name in MODELS:
        a, b = binned[name]["auc"], exact[name]["auc"]
        assert abs(a["estimate"] - b["estimate"]) <= a["bound"] + 1e-12
        for same in ("n", "events", "brier", "decision_curve", "at_cutoff"):  # exact sums in either resolution
            assert binned[name][same] == exact[name][same]
        assert binned[name]["calibration"]["slope"] == pytest.approx(exact[name]["calibration"]["slope"], rel=1e-8)
        assert binned[name]["calibration"]["ici"] == pytest.approx(exact[name]["calibration"]["ici"], abs=0.005)


def test_one_site_gets_the_same_figures_as_the_coordinator():
    rows = patients(300)
    alone = validation.validate_binary(PooledSites([rows]), MODELS, settings())
    many = validation.validate_binary(PooledSites(odd_sites(rows, rows.y)[::-1]), MODELS, settings())
    assert _numbers(alone) == pytest.approx(_numbers(many), rel=1e-9, abs=1e-12)


def test_comparisons():
    rows = patients()
    federation = PooledSites(split(rows, [300, 300]))
    pairs = [("sharp", "blunt"), ("blunt", "staged")]
    first, second = validation.compare(federation, MODELS, pairs, settings())
    assert federation.rounds == 3  # the last two side by side
    assert (first["a"], first["b"], first["test"]) == ("sharp", "blunt", "delong")
    expected = metrics.roc_auc_score(rows.y, rows.score[:, 1]) - metrics.roc_auc_score(rows.y, rows.score[:, 2])
    assert second["difference"] == pytest.approx(expected, abs=1e-12)
    assert second["ci"][0] < second["difference"] < second["ci"][1]


@pytest.mark.parametrize("resolution", ["binned", "exact"])
@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_small_cohort_is_withheld(n, resolution):
    rows = patients(n)
    asked = settings(score_resolution=resolution)
    for figures in validation.validate_binary(PooledSites([rows]), MODELS, asked).values():
        assert all(figures[name] == {"withheld": "the cohort has fewer than 5 patients"} for name in figures)
    for entry in validation.compare(PooledSites([rows]), MODELS, [("sharp", "blunt")], asked):
        assert "withheld" in entry["p"]


@pytest.mark.parametrize("resolution", ["binned", "exact"])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_one_class_gives_reasons_never_nan(y, resolution):
    rows = patients(40)._replace(y=np.full(40, y))
    asked = settings(score_resolution=resolution)
    figures = validation.validate_binary(PooledSites([rows]), MODELS, asked)["sharp"]
    for name in ("auc", "roc", "pr", "average_precision"):
        assert "undefined" in figures[name]
    assert "undefined" in figures["calibration"]["slope"]
    assert "undefined" in figures["at_cutoff"]["specificity" if y else "sensitivity"]
    assert isinstance(figures["brier"], float)
    json.dumps(figures, allow_nan=False)
    entry = validation.compare(PooledSites([rows]), MODELS, [("sharp", "blunt")], asked)[0]
    assert "undefined" in entry["z"]


@pytest.mark.parametrize("resolution", ["binned", "exact"])
def test_figures_are_json(resolution):
    figures = validation.validate_binary(PooledSites([patients(60)]), MODELS, settings(score_resolution=resolution))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_cutoffs_are_chosen_on_train():
    rows = patients()
    federation = PooledSites(split(rows, [300, 300]))
    youden = validation.choose_cutoffs(federation, MODELS, "youden", "exact")
    false_rate, true_rate, thresholds = metrics.roc_curve(rows.y, rows.score[:, 0])
    assert youden["sharp"] == thresholds[np.argmax(true_rate - false_rate)]
    median = validation.choose_cutoffs(federation, MODELS, "median", "binned")
    assert median["blunt"] == np.quantile(rows.score[:, 1], 0.5, method="inverted_cdf")
    assert validation.choose_cutoffs(federation, MODELS, 0.25, "binned") == dict.fromkeys(MODELS, 0.25)


def test_a_threshold_outside_the_risks_is_refused():
    with pytest.raises(ValueError, match=r"decision_thresholds = 1\.0"):
        settings(decision_thresholds=(0.5, 1.0))


def test_golden_uci_style_external_site():
    """Eight patients without the outcome among fifty: scikit-learn 1.9.1, roc_auc_score and brier_score_loss."""
    rng = np.random.default_rng(9)
    y = np.r_[np.zeros(8), np.ones(42)]
    rows = Scored(np.round(rng.beta(2 + 2 * y, 2), 4)[:, None], y, np.zeros(50, np.int64))
    figures = validation.validate_binary(PooledSites([rows]), ["m"], settings(folds=1))["m"]
    assert figures["auc"]["estimate"] == pytest.approx(0.6205357142857143, abs=1e-12)
    assert figures["brier"] == pytest.approx(0.17289773620000004, abs=1e-12)


def _numbers(figures) -> list[float]:
    """All numbers of nested figures, in order."""
    if isinstance(figures, dict):
        return [x for value in figures.values() for x in _numbers(value)]
    if isinstance(figures, list):
        return [x for value in figures for x in _numbers(value)]
    return [figures] if isinstance(figures, int | float) else []


def test_bootstrap_intervals_stand_beside_the_figures():
    rows = patients()
    asked = settings(bootstrap=200, seed=3)
    federation = PooledSites(split(rows, [300, 300]))
    figures = validation.validate_binary(federation, MODELS, asked)["sharp"]
    assert federation.rounds <= 10  # the bootstrap asks for nothing
    low, high = figures["auc"]["bootstrap_ci"]
    assert low < figures["auc"]["estimate"] < high
    np.testing.assert_allclose([low, high], figures["auc"]["ci"], atol=0.01)
    assert figures["average_precision_bootstrap_ci"][0] < figures["average_precision"]
    curve = figures["decision_curve"]
    limits = np.array(curve["net_benefit_bootstrap_ci"])
    assert limits.shape == (99, 2)
    assert (limits[:, 0] <= np.array(curve["net_benefit"]) + 1e-12).all()
    assert (limits[:, 1] >= np.array(curve["net_benefit"]) - 1e-12).all()
    one_class = rows._replace(y=np.zeros(600))
    assert "undefined" in validation.validate_binary(PooledSites([one_class]), MODELS, asked)["sharp"]["auc"]


@pytest.mark.parametrize("resolution", ["binned", "exact"])
def test_accuracy_equals_scikit_learn(resolution):
    rows = patients()
    figures = validation.validate_binary(
        FixedPointSites(split(rows, [450, 150])), MODELS, settings(score_resolution=resolution)
    )["blunt"]
    score = rows.score[:, 1]
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(rows.y, score), abs=1e-11)
    parts = figures["brier_parts"]
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_groups"]
    assert total == pytest.approx(metrics.brier_score_loss(rows.y, score), abs=1e-12)
    assert figures["at_cutoff"]["f1"] == pytest.approx(metrics.f1_score(rows.y, score >= CUTOFFS["blunt"]))
    ratios = metrics.class_likelihood_ratios(rows.y, score >= CUTOFFS["blunt"])
    assert figures["at_cutoff"]["positive_likelihood_ratio"] == pytest.approx(ratios[0])
    assert figures["at_cutoff"]["negative_likelihood_ratio"] == pytest.approx(ratios[1])
    assert figures["decision_curve"]["treat_none"] == [0.0] * 99
