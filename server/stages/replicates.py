"""Replicates: which fits a study needs, each named by the cross-validation folds it has not seen.

A model's final fit has seen all training patients: ``()``. With cross-validation, ``(j,)`` predicts fold j. A model
stacked on another is fitted on values that no patient has helped to make, so the model below is also fitted without
each further fold: ``(j, k)`` serves fold k inside j and fold j inside k, which halves the work.

A repeat of cross-validation has folds of its own, whose numbers follow those of the repeat before; no replicate leaves
out folds of two. Leave-one-site-out validation adds a replicate a training site, named by the site's number, which is
above those of all folds. All replicates are fitted side by side, so that they cost no rounds.
"""

from cohortium.common.study import Study
from cohortium.strategies.view_patients import fold_numbers, left_out_number, repeat_of


def replicates(study: Study) -> dict[str, list[tuple[int, ...]]]:
    """Replicates of each model, the final one first, then by number of folds left out."""
    needed: dict[str, set[tuple[int, ...]]] = {name: {()} for name in study.model}
    if study.split.folds:
        for name in needed:
            needed[name] |= {(fold,) for r in range(study.split.repeats) for fold in fold_numbers(study, r)}
    if study.validation.leave_one_site_out:
        for name in needed:
            needed[name] |= {(left_out_number(study, site),) for site in study.split.train}
    for name in reversed(study.model_order):
        for below in study.model[name].models_below:
            needed[below] |= {fit for without in needed[name] for fit in stands_on(study, name, without)}
    return {name: sorted(found, key=lambda without: (len(without), without)) for name, found in needed.items()}


def stands_on(study: Study, name: str, without: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Replicates of each model below a model that give the inputs of one of its replicates."""
    found = [without]
    if study.model[name].stack == "out_of_fold":
        folds = fold_numbers(study, repeat_of(study, without))
        found += [tuple(sorted((*without, fold))) for fold in folds if fold not in without]
    return found


def in_words(study: Study, without: tuple[int, ...]) -> str:
    """What a replicate has not seen, in words: ``"fold 1 and fold 2"``, ``"fold 0 of repeat 2"``, ``"site east"``."""
    words = {left_out_number(study, site): f"site {site}" for site in study.split.train}
    for repeat in range(study.split.repeats):
        later = f" of repeat {repeat + 1}" if repeat else ""
        words |= {number: f"fold {fold}{later}" for fold, number in enumerate(fold_numbers(study, repeat))}
    return " and ".join(words[number] for number in without)


def levels(study: Study) -> list[list[str]]:
    """Models in the order in which they can be fitted: each level only needs the scores of the levels before it."""
    depth: dict[str, int] = {}
    for name in study.model_order:
        depth[name] = 1 + max((depth[below] for below in study.model[name].models_below), default=-1)
    return [[name for name in study.model if depth[name] == d] for d in range(max(depth.values()) + 1)]
