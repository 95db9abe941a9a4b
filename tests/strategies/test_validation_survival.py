"""Validation of survival: a cohort's figures, equal to lifelines, JSON-ready and honest about what does not exist."""

import json
from dataclasses import replace

import numpy as np
import pytest
from lifelines import KaplanMeierFitter, datasets
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sksurv.metrics import concordance_index_ipcw, integrated_brier_score
from sksurv.util import Surv

from cohortium.common.federation import PooledSites
from cohortium.strategies import cox, time_dependent, validation
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
    assert federation.rounds <= 11  # 4 messages: the sums of each travel together
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
    assert nodes["median"]["high_ci"][0] < nodes["median"]["high"] < nodes["median"]["high_ci"][1]
    assert nodes["auc_at_ci"]["1095"][0] < nodes["auc_at"]["1095"] < nodes["auc_at_ci"]["1095"][1]
    outcome = Surv.from_arrays(rows.event == 1, rows.time)
    tau = concordance_index_ipcw(outcome, outcome, rows.score[:, 1], tau=1825)[0]
    assert age["uno_c"]["estimate"] == pytest.approx(tau, abs=1e-12)
    assert nodes["survival_at"]["1095"]["high"]["estimate"] == pytest.approx(float(curve.predict(1095)), abs=1e-12)
    assert 0 < nodes["scaled_brier_at"]["1095"] < 0.3
    assert "undefined" in nodes["integrated_brier"]  # no curve was given


def test_figures_of_predictions(fitted):
    rows, model = fitted
    cells = time_dependent.evaluation_cells((1095, 1825), 1.0)
    asked = settings(
        baseline_survival={"nodes": tuple(model.baseline.survival(np.array([1095, 1825])))},
        baseline_curve={"nodes": tuple(model.baseline.survival(cells))},
        log_hazards=("nodes",),
    )
    found = validation.validate_survival(PooledSites(odd_sites(rows, rows.event)), MODELS, asked)
    nodes, age = found["nodes"], found["age"]
    assert nodes["calibration_slope"]["estimate"] == pytest.approx(1, abs=1e-3)  # on its own patients
    assert "undefined" in age["calibration_slope"]
    assert 0.9 < nodes["calibration_at"]["1095"]["observed_to_expected"]["estimate"] < 1.1
    assert 5 <= len(nodes["calibration_at"]["1095"]["curve"]) <= 11
    assert max(nodes["decision_curve_at"]["1095"]["net_benefit"]) > 0.1
    assert "undefined" in age["decision_curve_at"]["1095"]
    predicted = np.array([model.baseline.survival(cells)]) ** np.exp(rows.score[:, [0]])
    outcome = Surv.from_arrays(rows.event == 1, rows.time)
    theirs = integrated_brier_score(outcome, outcome, predicted[:, 1:], cells[1:])
    assert nodes["integrated_brier"]["estimate"] == pytest.approx(theirs, rel=0.05)  # without its first time
    assert nodes["integrated_brier"]["scaled"] > 0.05
    binned = validation.validate_survival(PooledSites([rows]), MODELS, replace(asked, score_resolution="binned"))
    assert "undefined" in binned["nodes"]["calibration_slope"]
    a, b = (f["nodes"]["calibration_at"]["1095"]["observed_to_expected"] for f in (found, binned))
    assert a["estimate"] == pytest.approx(b["estimate"], abs=1e-10)
    json.dumps(found, allow_nan=False)


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
    assert federation.rounds == 5  # extent, exits, pairs, groups, groups within sites
    assert 0.6 < figures["c_index"]["estimate"] < 0.75
    assert "undefined" in figures["auc_at"]


def test_one_site_gets_the_same_figures_as_the_coordinator(fitted):
    rows, _ = fitted
    alone = validation.validate_survival(PooledSites([rows]), MODELS, settings())
    many = validation.validate_survival(PooledSites(odd_sites(rows, rows.event)[::-1]), MODELS, settings())
    for figures in (alone["nodes"], many["nodes"]):
        assert figures.pop("log_rank_within_sites")["chi2"] > 0  # the sites differ
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
