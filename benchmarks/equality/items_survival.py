"""Items of further survival figures: risk groups, accuracy in time, calibration, cut-offs, competing risks."""

from collections.abc import Sequence
from typing import Any

import data
import numpy as np
import references_survival as references
from federations import CountedSites, at_sites
from item import Federate, Figures, Item

from cohortium.strategies import competing_risks, concordance, max_log_rank, survival, time_dependent
from cohortium.strategies.rows import ScoredCompeting, ScoredSurvival
from cohortium.strategies.validation_settings import Settings
from cohortium.strategies.validation_survival import validate_survival

MODELS = ("a", "b")
HORIZONS = [str(horizon) for horizon in references.HORIZONS]
ASKED = Settings(
    score_resolution="exact", horizon=references.HORIZONS, cutoffs={"a": references.HIGH}, log_hazards=MODELS,
    decision_thresholds=references.THRESHOLDS, baseline_survival={"a": references.BASELINE}, compare=(MODELS,),
    calibration_slope="within_sites", minimum_count=1,
)  # fmt: skip


def _sites(frame: Any, score: np.ndarray) -> list[ScoredSurvival]:
    return at_sites(ScoredSurvival, frame, score=score, time=frame["time"].to_numpy(), event=frame["event"].to_numpy())


def _figures(federate: Federate) -> list[dict[str, Any]]:
    found = validate_survival(federate(_sites(*references.cohort())), MODELS, ASKED)
    return [found[name] for name in MODELS]


def _groups(federate: Federate) -> dict[str, Any]:
    found, names = _figures(federate)[0], ("low", "high")
    median, at, means = found["median"], found["survival_at"], found["rmst_at"]

    def limits(group: str) -> list[float]:
        low_high = median[f"{group}_ci"]
        return [np.nan if isinstance(limit, dict) else limit for limit in low_high]

    return {
        "median": [np.inf if isinstance(median[g], dict) else median[g] for g in names],
        "median_ci": [limits(g) for g in names],
        "survival": [[at[h][g]["estimate"] for h in HORIZONS] for g in names],
        "at_risk": [[at[h][g]["at_risk"] for h in HORIZONS] for g in names],
        "rmst": [[means[h][g]["estimate"] for h in HORIZONS] for g in names],
        "rmst_se": [[means[h][g]["se"] for h in HORIZONS] for g in names],
    }


def _log_ranks(federate: Federate) -> dict[str, Any]:
    found = _figures(federate)[0]
    return {
        name: [found[key]["chi2"], found[key]["p"]]
        for name, key in (("log_rank", "log_rank"), ("within_sites", "log_rank_within_sites"))
    }


def _hazard_ratio(federate: Federate) -> dict[str, Any]:
    return _figures(federate)[0]["hazard_ratio"]


def _discrimination(federate: Federate) -> dict[str, Any]:
    found = _figures(federate)
    return {
        "uno": [of["uno_c"]["estimate"] for of in found],
        "auc": [[of["auc_at"][h] for h in HORIZONS] for of in found],
        "difference": found[0]["compared"][0]["difference"],
    }


def _binned(federate: Federate) -> dict[str, Any]:
    frame, score = references.cohort()
    coarse = Settings(horizon=references.HORIZONS, time_step=references.MONTH)
    found = validate_survival(federate(_sites(frame, score)), MODELS, coarse)
    indices = {"harrell": "c_index", "uno": "uno_c"}
    return {
        name: [[found[m][key][of] for m in MODELS] for of in ("estimate", "bound")] for name, key in indices.items()
    }


def _within_bound(ours: Figures) -> Figures:
    """The exact figure's estimate where it lies within the printed bound, else one that is infinitely far."""
    exact = references.of_months()
    return {
        name: [np.where(np.abs(np.subtract(estimate, exact[name])) <= np.array(bound) + 1e-12, estimate, np.inf), bound]
        for name, (estimate, bound) in ours.items()
    }


def _brier(federate: Federate) -> dict[str, Any]:
    frame, score = references.cohort()
    sites = federate(_sites(frame, score))
    total = survival.timeline(sites, 1.0)
    cells = time_dependent.evaluation_cells(references.HORIZONS, 1.0)
    cells = cells[cells >= frame["time"].min()]  # scikit-survival takes no time before the first
    baseline = np.tile(np.exp(-references.HAZARD * cells), (2, 1))
    scores = concordance.brier(sites, total, cells, baseline, time_step=1.0)[0]
    return {"cells": cells, "brier": scores, "integrated": time_dependent.integrated(scores, cells)}


def _calibration(federate: Federate) -> dict[str, Any]:
    found = _figures(federate)
    at = found[0]["calibration_at"]
    return {
        "slope": [of["calibration_slope"]["estimate"] for of in found],
        "within_sites": [of["calibration_slope_within_sites"]["estimate"] for of in found],
        "expected": [at[h]["expected"] for h in HORIZONS],
        "observed": [at[h]["observed"] for h in HORIZONS],
        "net_benefit": [found[0]["decision_curve_at"][h]["net_benefit"] for h in HORIZONS],
    }


def _best_cut(federate: Federate) -> dict[str, Any]:
    frame = data.gbsg2()
    sites = federate(_sites(frame, frame[["tsize"]].to_numpy()))
    (found,) = max_log_rank.choose(sites, 1, resolution="exact", time_step=1.0)
    return {name: getattr(found, name) for name in ("cutoff", "chi2", "p_corrected", "candidates")}


def _causes(sites: CountedSites, step: float) -> np.ndarray:
    points = np.flatnonzero(survival.timeline(sites, step).events)
    found = sites.sum(competing_risks.causes, points=points, cutoffs=np.array([5000]), time_step=step)
    return np.concatenate([[0.0], points * step]), found.patients[0]


def _competing(federate: Federate, times: str) -> CountedSites:
    frame = references.transplants()
    cause = frame["cause"].to_numpy()
    return federate(
        at_sites(
            ScoredCompeting, frame, score=frame[["aml"]].to_numpy(), time=frame[times].to_numpy(),
            event=(cause > 0).astype(float), cause=cause,
        )
    )  # fmt: skip


def _incidence(federate: Federate) -> dict[str, Any]:
    time, causes = _causes(_competing(federate, "untied"), 1e-4)
    found: Sequence[Any] = [competing_risks.aalen_johansen(time, of_group) for of_group in causes]
    return {
        "incidence": np.concatenate([of.incidence[1:] for of in found]),
        "variance": np.concatenate([of.standard_error[1:] ** 2 for of in found]),
    }


def _gray(federate: Federate) -> dict[str, Any]:
    causes = _causes(_competing(federate, "months"), 0.01)[1]
    tests = [competing_risks.gray(causes), competing_risks.gray(causes[:, :, [0, 2, 1]])]
    return {"chi2": [chi2 for chi2, _ in tests], "p": [p for _, p in tests]}


GBSG2, TRANSPLANTS = "gbsg2, 4 sites", "177 transplants (Scrucca 2010), 4 sites"
ITEMS = (
    Item(name="median survival, survival and restricted mean at two times, with errors, by risk group", data=GBSG2,
         ours=_groups, theirs=references.groups, reference="lifelines; Greenwood's formula"),
    Item(name="log-rank test of risk groups, and stratified by site", data=GBSG2, ours=_log_ranks,
         theirs=references.log_ranks, reference="lifelines, statsmodels survdiff"),
    Item(name="hazard ratio of risk groups", data=GBSG2, ours=_hazard_ratio, theirs=references.hazard_ratio,
         reference="lifelines CoxPHFitter"),
    Item(name="Uno's C, cumulative/dynamic AUC, difference of Harrell's C", data=GBSG2, ours=_discrimination,
         theirs=references.discrimination, reference="scikit-survival, lifelines"),
    Item(name="Harrell's and Uno's C of binned scores and 30-day times, inside their certified bounds", data=GBSG2,
         ours=_binned, theirs=_within_bound, reference="lifelines, scikit-survival, times cut to 30 days", target=0.0),
    Item(name="IPCW Brier scores and their integral", data=GBSG2, ours=_brier, theirs=references.brier,
         reference="scikit-survival"),
    Item(name="calibration of survival: slope, within sites, observed and expected risk, net benefit", data=GBSG2,
         ours=_calibration, theirs=references.calibration, reference="statsmodels PHReg, lifelines"),
    Item(name="maximal log-rank cut-off and its corrected p", data=GBSG2, ours=_best_cut, theirs=references.best_cut,
         reference="lifelines at every cut-off; formula of Miller & Siegmund 1982"),
    Item(name="cumulative incidence with variance under competing risks (Aalen-Johansen)", data=TRANSPLANTS,
         ours=_incidence, theirs=references.incidence, reference="lifelines AalenJohansenFitter"),
    Item(name="Gray's test", data=TRANSPLANTS, ours=_gray, theirs=references.gray, target=5e-3,
         reference="published by R's cmprsk; the public copy has rounded times, whose ties matter by up to 5e-3"),
)  # fmt: skip
