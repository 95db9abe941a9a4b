"""Items of validation: figures as results.json holds them, of scores of no model on the grid of 1e-4."""

from typing import Any

import data
import numpy as np
import references_validation as references
from item import Federate, Figures, Item
from scipy import stats

from cohortium.strategies import validation
from cohortium.strategies.rows import Scored, ScoredSurvival
from cohortium.strategies.validation_settings import Settings
from cohortium.strategies.validation_survival import validate_survival

EXACT = Settings(score_resolution="exact", decision_thresholds=references.THRESHOLDS)
BINNED = Settings(decision_thresholds=references.THRESHOLDS)
DAYS = Settings(score_resolution="exact", time_step=1.0, horizon=(730.0,))


def scored_sites() -> list[Scored]:
    """Two scores of breast_cancer at each site."""
    score, y = references.scores()
    site = data.breast_cancer()["site"].to_numpy()
    at = [np.flatnonzero(site == s) for s in np.unique(site)]
    return [Scored(score=score[i], y=y[i].astype(float), fold=np.zeros(len(i), np.int64)) for i in at]


def survival_sites(score: np.ndarray) -> list[ScoredSurvival]:
    """A score of gbsg2 at each site."""
    frame, _ = references.risk_groups()
    time, event, site = frame["time"].to_numpy(), frame["event"].to_numpy(float), frame["site"].to_numpy()
    at = [np.flatnonzero(site == s) for s in np.unique(site)]
    return [ScoredSurvival(score=score[i, None], time=time[i], event=event[i]) for i in at]


def _half(figure: Any) -> float:
    """Half an interval that is not clipped: z times the standard error."""
    return (figure["ci"][1] - figure["ci"][0]) / 2


def _ranking(federate: Federate) -> dict[str, Any]:
    sites = federate(scored_sites())
    found = [sites.together([lambda: validation.validate_binary(sites, ["a", "b"], EXACT),
                             lambda: validation.compare(sites, ["a", "b"], [("a", "b")], EXACT)])]  # fmt: skip
    figures, (difference,) = found[0]
    models = [figures["a"], figures["b"]]
    return {
        "auc": [m["auc"]["estimate"] for m in models],
        "se": [_half(m["auc"]) / stats.norm.ppf(0.975) for m in models],
        "average_precision": [_estimate(m["average_precision"]) for m in models],
        "brier": [_estimate(m["brier"]) for m in models],
        "z": difference["z"],
        "p": difference["p"],
    }


def _estimate(figure: Any) -> float:
    return figure["estimate"] if isinstance(figure, dict) else figure


def _binned(federate: Federate) -> dict[str, Any]:
    figures = validation.validate_binary(federate(scored_sites()), ["a", "b"], BINNED)
    return {"auc": [figures[m]["auc"]["estimate"] for m in "ab"], "bound": [figures[m]["auc"]["bound"] for m in "ab"]}


def _within_bound(ours: Figures) -> Figures:
    """The exact AUC where it lies within the printed bound, else one that is a bound away."""
    exact = references.auc(ours)["auc"]
    outside = np.abs(np.array(ours["auc"]) - exact) > np.array(ours["bound"])
    return {"auc": np.where(outside, np.inf, ours["auc"])}


def _calibration(federate: Federate) -> dict[str, Any]:
    figures = validation.validate_binary(federate(scored_sites()), ["a", "b"], EXACT)
    found = [figures[m]["calibration"] for m in "ab"]
    return {key: [of[key] for of in found] for key in ("intercept", "intercept_ci", "slope", "slope_ci")}


def _decision(federate: Federate) -> dict[str, Any]:
    figures = validation.validate_binary(federate(scored_sites()), ["a", "b"], EXACT)
    return {"net_benefit": [figures[m]["decision_curve"]["net_benefit"] for m in "ab"]}


def _kaplan_meier(federate: Federate) -> dict[str, Any]:
    """By grade, as a score with a cut-off; all patients together as the group above a cut-off that all reach."""
    frame, _ = references.risk_groups()
    grade = frame["tgrade"].to_numpy()
    sites = federate(survival_sites(grade))

    def cut_at(value: float) -> Any:
        settings = Settings(score_resolution="exact", horizon=(730.0,), cutoffs={"a": value}, minimum_count=1)
        return validate_survival(sites, ["a"], settings)["a"]

    everybody, by_grade = sites.together([lambda: cut_at(0.0), lambda: cut_at(3.0)])
    curve = np.array(everybody["kaplan_meier"]["high"], float)
    test = by_grade["log_rank"]
    return {"time": curve[:, 0], "survival": curve[:, 1], "chi2": test["chi2"], "p": test["p"]}


def _concordance(federate: Federate) -> dict[str, Any]:
    _, score = references.risk_groups()
    return {"c": validate_survival(federate(survival_sites(score)), ["a"], DAYS)["a"]["c_index"]["estimate"]}


BREAST, GBSG2 = "breast_cancer, 4 sites", "gbsg2, 4 sites"
ITEMS = (
    Item(name="AUC, DeLong's SE and paired test, average precision, Brier score; exact scores", data=BREAST,
         ours=_ranking, theirs=references.auc, reference="scikit-learn; DeLong pair by pair"),
    Item(name="AUC of binned scores, inside its certified bound", data=BREAST, ours=_binned, theirs=_within_bound,
         reference="scikit-learn", target=0.0),
    Item(name="calibration intercept and slope with intervals", data=BREAST, ours=_calibration,
         theirs=references.calibration, reference="statsmodels GLM, Logit"),
    Item(name="decision curve", data=BREAST, ours=_decision, theirs=references.decision_curve, reference="counting"),
    Item(name="Kaplan-Meier curve, log-rank test by grade; exact days", data=GBSG2, ours=_kaplan_meier,
         theirs=references.kaplan_meier, reference="lifelines"),
    Item(name="Harrell's C, exact scores and days", data=GBSG2, ours=_concordance, theirs=references.concordance,
         reference="lifelines concordance_index"),
)  # fmt: skip
