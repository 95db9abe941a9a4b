"""Items of further figures of binary models: cut-offs, reclassification, calibration, subgroups, explanation."""

from typing import Any

import data
import numpy as np
import references_binary as references
from federations import at_sites
from item import Federate, Item
from references_validation import scores

from cohortium.strategies import (
    bootstrap,
    discrimination,
    explanation,
    heterogeneity,
    interactions,
    quantiles,
    validation,
)
from cohortium.strategies.rows import Matrix, Scored
from cohortium.strategies.validation_settings import Settings

MODELS = ("a", "b")
EXACT = Settings(score_resolution="exact", cutoffs=dict(zip(MODELS, references.GIVEN, strict=True)))
CELLS = np.arange(10_001)


def _sites(which: np.ndarray | None = None) -> list[Scored]:
    frame = data.breast_cancer()
    score, y = scores()
    at = np.ones(len(y), dtype=bool) if which is None else which
    return at_sites(Scored, frame[at], score=score[at], y=y[at].astype(float), fold=np.zeros(at.sum(), np.int64))


def _figures(federate: Federate, which: np.ndarray | None = None) -> list[dict[str, Any]]:
    found = validation.validate_binary(federate(_sites(which)), MODELS, EXACT)
    return [found[name] for name in MODELS]


def _at_cutoffs(federate: Federate) -> dict[str, Any]:
    chosen = validation.choose_cutoffs(federate(_sites()), MODELS, "youden", "exact")
    at = [figures["at_cutoff"] for figures in _figures(federate)]
    shares = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
    return {
        "youden": [chosen[name] for name in MODELS],
        "shares": [[of[name] for name in shares] for of in at],
        "wilson": [[of[f"{name}_ci"] for name in shares] for of in at],
        "f1": [of["f1"] for of in at],
        "odds": [of["diagnostic_odds_ratio"] for of in at],
    }


def _reclassification(federate: Federate) -> dict[str, Any]:
    (found,) = validation.compare(federate(_sites()), MODELS, [MODELS], EXACT)
    return {
        "nri": found["nri"]["estimate"], "nri_se": found["nri"]["se"],
        "nri_continuous": found["nri_continuous"]["estimate"], "nri_continuous_se": found["nri_continuous"]["se"],
        "idi": found["idi"]["estimate"], "idi_z": found["idi"]["z"],
    }  # fmt: skip


def _calibration(federate: Federate) -> dict[str, Any]:
    figures = _figures(federate)
    found = [of["calibration"] for of in figures]
    return {
        "hosmer_lemeshow": [[of["hosmer_lemeshow"]["chi2"], of["hosmer_lemeshow"]["p"]] for of in found],
        **{name: [of[name] for of in found] for name in ("ici", "e50", "e90")},
        "spiegelhalter": [of["spiegelhalter"]["z"] for of in found],
        "log_loss": [of["log_loss"] for of in figures],
        "observed_to_expected": [of["observed_to_expected"]["estimate"] for of in found],
    }


def _updating(federate: Federate) -> dict[str, Any]:
    found = [figures["updating"] for figures in _figures(federate)]
    models = [of["models"]["intercept_and_slope"] for of in found]
    return {
        "chi2": [[test["chi2"] for test in of["tests"]] for of in found],
        "intercept_and_slope": [[of["intercept"], of["slope"]] for of in models],
    }


def _interactions(federate: Federate) -> dict[str, Any]:
    large = (data.breast_cancer()["x00"] >= references.LARGE).to_numpy()
    cohorts: dict[str, Any] = {"internal": {}}
    for level, which in enumerate((~large, large)):
        cohorts[f"internal/subgroup:large={level}"] = dict(zip(MODELS, _figures(federate, which), strict=True))
    found = interactions.interactions(cohorts, ["large"])
    slopes = {entry["model"]: entry for entry in found if entry["figure"] == "calibration.slope"}
    return {key: [slopes[name][key] for name in MODELS] for key in ("chi2", "difference")}


def _heterogeneity(federate: Federate) -> dict[str, Any]:
    found = heterogeneity.summarise(
        federate(_sites()), MODELS, heterogeneity.BINARY, minimum_count=5, minimum_sites=3
    )  # fmt: skip
    names = {"auc": "auc", "slope": "calibration.slope"}
    keys = {"": "estimate", "_tau2": "tau2", "_q": "q"}
    return {
        f"{short}{end}": [found[m][figure][key] for m in MODELS]
        for short, figure in names.items()
        for end, key in keys.items()
    }


def _replicates(federate: Federate) -> dict[str, Any]:
    sums = federate(_sites()).sum(discrimination.histogram, edges=[CELLS, CELLS], folds=1)
    counts = sums.patients.sum(0)[0]
    drawn = np.random.default_rng(1).poisson(counts, (references.REPLICATES, *counts.shape))
    return {"drawn": drawn, "auc": bootstrap.auc(drawn), "average_precision": bootstrap.average_precision(drawn)}


def _matrix(x: np.ndarray) -> list[Matrix]:
    frame = data.breast_cancer()
    return at_sites(Matrix, frame, x=x, group=frame["y"].to_numpy(np.int64))


def _shap(federate: Federate) -> dict[str, Any]:
    x = data.standardised(data.breast_cancer(), references.FEATURES) + references.SHIFT
    found, _ = explanation.mean_absolute_shap(federate(_matrix(x)), references.BETA[1:], np.arange(3))
    return {"mean_absolute": found}


def _permutation(federate: Federate) -> dict[str, Any]:
    sites = federate(_matrix(data.standardised(data.breast_cancer(), references.FEATURES)))
    k = explanation.VALUES
    marginal = quantiles.fit(sites, ((np.arange(k) + 0.5) / k).tolist())
    replacements = [
        {"columns": np.array([j]), "values": of[:, None], "weights": np.full(k, 1 / k)} for j, of in enumerate(marginal)
    ]
    auc, falls = explanation.permutation_importance(sites, references.BETA, CELLS, replacements)
    return {"auc": auc, "falls": falls, "marginal": marginal}


BREAST = "breast_cancer, 4 sites"
ITEMS = (
    Item(name="Youden's cut-off; shares with Wilson's intervals, F1, diagnostic odds at a cut-off", data=BREAST,
         ours=_at_cutoffs, theirs=references.at_cutoffs, reference="scikit-learn, statsmodels proportion_confint"),
    Item(name="NRI with and without categories, IDI", data=BREAST, ours=_reclassification,
         theirs=references.reclassification, reference="counting; scipy Welch's test"),
    Item(name="Hosmer-Lemeshow, ICI, E50, E90, Spiegelhalter's z, log-loss, O:E", data=BREAST, ours=_calibration,
         theirs=references.calibration, reference="statsmodels Logit on Harrell's spline, scipy, scikit-learn"),
    Item(name="model updating: likelihood-ratio tests", data=BREAST, ours=_updating, theirs=references.updating,
         reference="statsmodels GLM, Logit"),
    Item(name="interaction of calibration slope and subgroup", data=BREAST, ours=_interactions,
         theirs=references.interactions, reference="statsmodels Logit with products"),
    Item(name="heterogeneity of AUC and calibration slope between sites: mean, tau2, Q",
         data="breast_cancer, 4 sites of which 3 have five of each class", ours=_heterogeneity,
         theirs=references.heterogeneity, reference="statsmodels Logit, combine_effects; DeLong pair by pair"),
    Item(name="bootstrap replicates of AUC and average precision", data=BREAST, ours=_replicates,
         theirs=references.replicates, reference="scikit-learn with weights"),
    Item(name="linear SHAP: mean absolute values", data=BREAST, ours=_shap, theirs=references.shap,
         reference="Shapley's definition, all coalitions"),
    Item(name="permutation importance against the global marginal", data=BREAST, ours=_permutation,
         theirs=references.permutation, reference="scikit-learn roc_auc_score over all draws"),
)  # fmt: skip
