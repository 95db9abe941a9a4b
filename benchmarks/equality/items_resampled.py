"""Items of models fitted again: repeated cross-validation, optimism, and the closed test that ends with a refit."""

from types import SimpleNamespace
from typing import Any

import data
import numpy as np
import references_resampled as references
from federations import Part, at_sites
from item import Federate, Item
from scipy import special

from cohortium.common import cohort
from cohortium.server.stages.resampled import resampled_figures
from cohortium.strategies import logistic, refit, validation
from cohortium.strategies.rows import Labelled, Scored
from cohortium.strategies.validation_settings import Settings

EXACT = Settings(score_resolution="exact")
FOLDS, REPEATS = references.FOLDS, references.REPEATS
STUDY: Any = SimpleNamespace(
    split=SimpleNamespace(folds=FOLDS, repeats=REPEATS),
    validation=SimpleNamespace(optimism=True),
    model={"a": None},
    endpoint_of=lambda _: SimpleNamespace(kind="binary"),
)
"""What the figures of repeats ask of a study."""


def _folds(frame: Any) -> np.ndarray:
    """Fold of each patient in each repeat, (repeats, n)."""
    ids, y, found = references.identifiers(frame), frame["y"].to_numpy(), np.empty((REPEATS, len(frame)), np.int64)
    for offset, site in enumerate(np.unique(frame["site"])):
        mine = np.flatnonzero(frame["site"] == site)
        for repeat in range(REPEATS):
            label = f"repeat{repeat + 1}" if repeat else ""
            found[repeat, mine] = cohort.assign_folds(
                references.SEED, f"site{site}", offset, ids[mine], y[mine], FOLDS, label=label
            )
    return found


def _again(federate: Federate) -> dict[str, Any]:
    """``repeated`` and ``optimism`` as in results.json; all fits side by side, then all their figures."""
    frame = data.breast_cancer()
    x, y, folds = data.standardised(frame, references.FOUR), frame["y"].to_numpy(float), _folds(frame)
    cell = FOLDS * folds[0] + folds[1]  # a patient's folds in both repeats
    without = [[c for c in range(FOLDS**2) if divmod(c, FOLDS)[r] == k] for r in range(REPEATS) for k in range(FOLDS)]
    sites = federate(at_sites(Labelled, frame, x=x, y=y, fold=cell))
    fits = sites.together([lambda left=left: logistic.fit(Part(sites, without=left), 4) for left in [[], *without]])
    b = np.array([fit.coefficients for fit in fits])
    score = np.rint(special.expit(b[:, 0] + x @ b[:, 1:].T) * 1e4) / 1e4
    n, repeats = np.arange(len(x)), range(REPEATS)
    unseen = [score[n, 1 + FOLDS * r + folds[r]] for r in repeats]
    scored = federate(at_sites(Scored, frame, score=np.column_stack([score, *unseen]), y=y, fold=cell))

    def figures(column: int, left: list[int]) -> Any:
        return validation.validate_binary(Part(scored, [column], left), ["a"], EXACT)

    wanted = [(0, []), *enumerate(without, 1), *((len(fits) + r, []) for r in repeats)]
    found = scored.together([lambda w=w: figures(*w) for w in wanted])
    trained = {f"without {k}": figure for k, figure in enumerate(found[1 : len(fits)])}
    cohorts = {"train": found[0], "cross_validated": found[len(fits)]}
    return resampled_figures(STUDY, cohorts, {"repeat2": found[-1], **trained})["a"]


def _repeated(federate: Federate) -> dict[str, Any]:
    found = _again(federate)["repeated"]
    return {f"{name} {key}": found[name][key] for name in references.MAIN for key in ("values", "mean", "sd")}


def _optimism(federate: Federate) -> dict[str, Any]:
    found = _again(federate)["optimism"]
    keys = ("apparent", "training", "tested", "optimism", "corrected")
    return {name: [found[name][key] for key in keys] for name in references.MAIN}


def _closed_test(federate: Federate) -> dict[str, Any]:
    frame = data.breast_cancer()
    raw = frame[references.THREE].to_numpy()
    x = (raw - references.CENTRE) / references.SCALE
    fold = np.zeros(len(x), np.int64)
    sites = federate(at_sites(Labelled, frame, x=x, y=frame["y"].to_numpy(float), fold=fold))
    recipe = {"blocks": ["all"], "centre": references.CENTRE, "scale": references.SCALE, "fill": references.CENTRE}
    model = {"names": references.THREE, "coefficients": references.BETA, "recipe": recipe}
    found: Any = refit.closed_test(lambda of, _: Part(sites, range(3) if of["blocks"] else []), model, minimum_count=5)
    models, tests = found["models"], found["tests"]
    return {
        "chi2": [test["chi2"] for test in tests], "p": [test["p"] for test in tests],
        "log_likelihood": [models[name]["log_likelihood"] for name in (*refit.NESTED, "refit")],
        "updates": [[models[name][key] for key in ("intercept", "slope")] for name in refit.NESTED],
        "coefficients": [c["estimate"] for c in models["refit"]["coefficients"]],
        "se": [c["se"] for c in models["refit"]["coefficients"]],
    }  # fmt: skip


BREAST = "breast_cancer, 4 sites"
ITEMS = (
    Item(name="cross-validation twice in 3 folds: AUC, Brier score, calibration of each repeat; exact scores",
         data=BREAST, ours=_repeated, theirs=references.repeated,
         reference="statsmodels Logit on folds of the published hash, scikit-learn"),
    Item(name="optimism of AUC, Brier score and calibration from the fits without a fold; exact scores", data=BREAST,
         ours=_optimism, theirs=references.optimism,
         reference="statsmodels Logit on folds of the published hash, scikit-learn"),
    Item(name="closed test of updates that ends with a refit: chi-squared, all four models", data=BREAST,
         ours=_closed_test, theirs=references.closed_test, reference="statsmodels GLM, Logit"),
)  # fmt: skip
