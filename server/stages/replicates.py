"""Replicates: which fits a study needs, each named by the cross-validation folds it has not seen.

A model's final fit has seen all training patients: ``()``. With cross-validation, ``(j,)`` predicts fold j. A model
stacked on another is fitted on values that no patient has helped to make, so the model below is also fitted without
each further fold: ``(j, k)`` serves fold k inside j and fold j inside k, which halves the work.

Leave-one-site-out validation adds a replicate a training site, named by the site's number, which is above those of the
folds. All replicates are fitted side by side, so that they cost no rounds.
"""

from cohortium.common.study import Study
from cohortium.strategies.view_patients import left_out_number
from cohortium.strategies.views import cross_validation_folds


def replicates(study: Study) -> dict[str, list[tuple[int, ...]]]:
    """Replicates of each model, the final one first, then by number of folds left out."""
    folds = range(cross_validation_folds(study))
    needed: dict[str, set[tuple[int, ...]]] = {name: {()} for name in study.model}
    if study.split.folds:
        for name in needed:
            needed[name] |= {(fold,) for fold in folds}
    if study.validation.leave_one_site_out:
        for name in needed:
            needed[name] |= {(left_out_number(study, site),) for site in study.split.train}
    for name in reversed(study.model_order):
        model = study.model[name]
        for below in model.models_below:
            needed[below] |= needed[name]
            if model.stack == "out_of_fold":
                needed[below] |= {
                    tuple(sorted((*without, fold))) for without in needed[name] for fold in folds if fold not in without
                }
    return {name: sorted(found, key=lambda without: (len(without), without)) for name, found in needed.items()}


def in_words(study: Study, without: tuple[int, ...]) -> str:
    """What a replicate has not seen, in words: ``"fold 1 and fold 2"``, ``"site east"``."""
    sites = {left_out_number(study, site): f"site {site}" for site in study.split.train}
    return " and ".join(sites.get(number, f"fold {number}") for number in without)


def levels(study: Study) -> list[list[str]]:
    """Models in the order in which they can be fitted: each level only needs the scores of the levels before it."""
    depth: dict[str, int] = {}
    for name in study.model_order:
        depth[name] = 1 + max((depth[below] for below in study.model[name].models_below), default=-1)
    return [[name for name in study.model if depth[name] == d] for d in range(max(depth.values()) + 1)]
