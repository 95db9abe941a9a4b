"""Validation of survival: a cohort's figures, equal to lifelines, JSON-ready and honest about what does not exist."""

import json

import numpy as np
import pytest
from lifelines import KaplanMeierFitter, datasets
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index

from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, validation
from cohortium.strategies.rows import ScoredSurvival, Survival
from cohortium.strategies.validation_survival import SURVIVAL_FIGURES
from tests.strategies.additivity import FixedPointSites, odd_sites, split, take

MODELS = ("nodes", "age")


@pytest.fixture(scope="module")
def fitted() -> tuple[ScoredSurvival, cox.Cox]:
    """gbsg2 with the linear predictor of a Cox model, and age."""
    frame = datasets.load_gbsg2()
    x = np.column_stack([np.log1p(frame.pnodes), frame.horTh == "yes"]).astype(float)
    x = (x - x.mean(0)) / x.std(0)
    time, event = frame.time.to_numpy(float), frame.cens.to_numpy(float)
    model = cox.fit(PooledSites([Survival(x, time, event)]), 2)
    return ScoredSurvival(np.round(np.column_stack([x @ model.coefficients, frame.age / 100]), 4), time, event), model


def settings(**changes) -> validation.Settings:
    asked = {"score_resolution": "exact", "horizon": (1095, 1825), "cutoffs": {"nodes": 0.0}, "cutoff_rule": 0.0}
    return validation.Settings(**(asked | changes))


@pytest.mark.parametrize("sites", [PooledSites, FixedPointSites])
def test_figures_equal_lifelines(fitted, sites):
    rows, model = fitted
    baseline = {"nodes": tuple(model.baseline.survival(np.array([1095, 1825]))), "age": ()}
    federation = sites(odd_sites(rows, rows.event))
    figures = validation.validate_survival(federation, MODELS, settings(baseline_survival=baseline))
    assert federation.rounds <= 9  # 4 messages: the sums of each travel together
    nodes, age = figures["nodes"], figures["age"]
    assert set(nodes) == set(SURVIVAL_FIGURES)
    assert (nodes["n"], nodes["events"]) == (686, 299)
    for m, of in enumerate((nodes, age)):
        expected = concordance_index(rows.time, -rows.score[:, m], rows.event)
        assert of["c_index"]["estimate"] == pytest.approx(expected, abs=1e-12)
        assert of["c_index"]["bound"] == 0
    high = rows.score[:, 0] >= 0
    test = logrank_test(rows.time[high], rows.time[~high], rows.event[high], rows.event[~high])
    assert nodes["log_rank"] == pytest.approx({"chi2": test.test_statistic, "p": test.p_value}, rel=1e-8)
    curve = KaplanMeierFitter().fit(rows.time[high], rows.event[high])
    shown = np.array(nodes["kaplan_meier"]["high"])
    np.testing.assert_allclose(shown[:, 1], curve.survival_function_.iloc[:, 0].loc[shown[:, 0]], rtol=1e-12)
    assert shown[:, 4].min() >= 5
    assert nodes["median"]["high"] == curve.median_survival_time_
    assert nodes["hazard_ratio"]["estimate"] > 1.5
    assert set(nodes["auc_at"]) == set(nodes["brier_at"]) == {"1095", "1825"}
    assert 0.1 < nodes["brier_at"]["1095"] < 0.25
    assert "undefined" in age["brier_at"]["1095"]
    assert "undefined" in age["kaplan_meier"]
    assert "undefined" in age["hazard_ratio"]


def test_binned_scores_and_coarse_times(fitted):
    rows, _ = fitted
    coarse = rows._replace(time=np.floor(rows.time / 30) * 30)
    federation = PooledSites(split(rows, [400, 286]))
    binned = validation.validate_survival(federation, MODELS, settings(score_resolution="binned", time_step=30.0))
    exact = validation.validate_survival(PooledSites([coarse]), MODELS, settings(horizon=(1080, 1800)))
    for name in MODELS:
        a, b = binned[name]["c_index"], exact[name]["c_index"]
        assert abs(a["estimate"] - b["estimate"]) <= a["bound"] + 1e-12
    assert binned["nodes"]["kaplan_meier"] == exact["nodes"]["kaplan_meier"]
    assert binned["nodes"]["log_rank"] == exact["nodes"]["log_rank"]


def test_within_site_sends_no_joint_table(fitted):
    rows, _ = fitted
    federation = PooledSites(split(rows, [400, 286]))
    figures = validation.validate_survival(federation, MODELS, settings(concordance="within_site"))["nodes"]
    assert federation.rounds == 4  # extent, exits, pairs, groups
    assert 0.6 < figures["c_index"]["estimate"] < 0.75
    assert "undefined" in figures["auc_at"]


def test_one_site_gets_the_same_figures_as_the_coordinator(fitted):
    rows, _ = fitted
    alone = validation.validate_survival(PooledSites([rows]), MODELS, settings())
    many = validation.validate_survival(PooledSites(odd_sites(rows, rows.event)[::-1]), MODELS, settings())
    assert alone == many  # counts only


@pytest.mark.parametrize("resolution", ["binned", "exact"])
@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_small_cohort_is_withheld(fitted, n, resolution):
    some = PooledSites([take(fitted[0], slice(0, n))])
    for figures in validation.validate_survival(some, MODELS, settings(score_resolution=resolution)).values():
        assert all("withheld" in figures[name] for name in SURVIVAL_FIGURES)


@pytest.mark.parametrize("resolution", ["binned", "exact"])
def test_no_events_give_reasons_never_nan(fitted, resolution):
    rows = take(fitted[0], slice(0, 60))
    lost = PooledSites([rows._replace(event=np.zeros(60))])
    asked = settings(score_resolution=resolution, baseline_survival={"age": (0.9, 0.8)}, horizon=(1095, 99999))
    figures = validation.validate_survival(lost, MODELS, asked)
    json.dumps(figures, allow_nan=False)
    assert "undefined" in figures["nodes"]["c_index"]
    assert "undefined" in figures["nodes"]["log_rank"]
    assert "undefined" in figures["nodes"]["hazard_ratio"]
    assert "undefined" in figures["age"]["brier_at"]["99999"]
    assert figures["nodes"]["kaplan_meier"]["low"] == [[0, 1, 1, 1, len(rows.time) - (rows.score[:, 0] >= 0).sum()]]


def test_small_and_empty_groups_are_not_shown(fitted):
    rows = fitted[0]
    third = float(np.sort(rows.score[:, 0])[-3])
    few = validation.validate_survival(PooledSites([rows]), MODELS, settings(cutoffs={"nodes": third}))["nodes"]
    assert "withheld" in few["kaplan_meier"]["high"]
    assert "withheld" in few["hazard_ratio"]
    assert isinstance(few["kaplan_meier"]["low"], list)
    none = validation.validate_survival(PooledSites([rows]), MODELS, settings(cutoffs={"nodes": 100.0}))["nodes"]
    assert "undefined" in none["kaplan_meier"]["high"]
    assert "undefined" in none["log_rank"]


def test_figures_are_json(fitted):
    figures = validation.validate_survival(PooledSites([fitted[0]]), MODELS, settings(score_resolution="binned"))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
