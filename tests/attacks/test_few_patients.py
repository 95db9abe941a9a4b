"""Questions about fewer patients than the number that they name, a part, a subgroup or a fold; or in more cuts."""

from itertools import pairwise

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.client.guard import Guard
from cohortium.client.left_out import most_folds
from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.common.study import parse_study
from cohortium.strategies import class_histogram, correlation, cutoff, logistic, shapley, views
from cohortium.strategies.moments import power_sums
from cohortium.strategies.rows import Labelled, Scored
from cohortium.strategies.triangle import symmetric
from tests.attacks.test_repeats import contexts, view_without
from tests.strategies.additivity import concatenate

TRAIN = {"part": "train", "endpoint": "outcome", "patients": 180}
NET = {"head": [4], "weights": np.linspace(-1, 1, 17).astype(np.float32)}


def test_contributions_over_few_patients_of_very_many_variables(victims, raw_design):
    """Walks over thousands of variables that no column has: the work is kept small by explaining two patients."""
    validation = victims.study.validation.model_copy(update={"explain": ("shap",)})
    guard = Guard(victims.study.model_copy(update={"validation": validation}), "north", ("*",))
    view = {"kind": "keyed", "rows": TRAIN, **raw_design}
    rows = victims.rows(view)

    def asked(variables):
        orders = np.tile(np.arange(variables), (shapley.BACKGROUND, 1))
        walk = {"group": np.arange(2), "background": np.zeros((shapley.BACKGROUND, 2)), "orders": orders}
        return {"fit": NET, "halvings": shapley.halvings(180, variables), **walk}

    def explained(variables):
        return int((concatenate(rows).key % 2 ** asked(variables)["halvings"] == 0).sum())

    assert explained(6000) <= 2
    with pytest.raises(SumRefused, match="contributions of more than 100 variables"):
        guard.question(shapley.values.name, view, asked(6000), rows[0])
    guard.question(shapley.values.name, view, asked(100), rows[0])
    assert explained(100) == len(concatenate(rows).x) > 100


def solved_in_a_subgroup(repeats):
    """Ages of a subgroup of 30 from its sums without each fold of many repeats; the whole would bear so many sets."""
    _, sites = contexts(repeats)
    for context in sites.values():
        context.table.columns["few"] = (np.arange(len(context.table)) < 10) * 1.0
    chosen = [[]] + [[fold] for fold in range(5 * repeats)]
    sums, sets = [], []
    for without in chosen:
        view = view_without(without)
        view = view | {"rows": {**view["rows"], "where": ["few", 1.0]}}
        rows = [views.build(view, context) for context in sites.values()]
        sums.append(sum(site.x[:, 0].sum() for site in rows))
        folds = [views.folds_of(c, without[0] // 5 if without else 0)[:10] for c in sites.values()]
        sets.append(~np.isin(np.concatenate(folds), without))
    true = np.concatenate([context.table.columns["age"][:10] for context in sites.values()])
    found = np.linalg.lstsq(np.array(sets, float), np.array(sums), rcond=None)[0]
    return (np.abs(found - true) < 1e-6).sum()


def test_repeats_of_a_subgroup(victims):
    """Forty-one sets are fine for 164 patients, and fix the values of 30 of them."""
    assert solved_in_a_subgroup(10) == 30
    guard, context = Guard(victims.study, "north", ("*",)), victims.contexts["north"]
    rows = {"part": "train", "where": ["stage", 0.0], "patients": 180}
    guard.admit("survival.exits", {"kind": "scored_survival", "rows": rows}, context)
    refused = (
        {"kind": "matrix", "rows": rows, "blocks": [{"terms": ["age"]}]},
        {"kind": "scored", "rows": rows | {"without": [0]}},
    )
    for view in refused:
        with pytest.raises(SumRefused, match="only scores are judged, and in all of its patients"):
            guard.admit(power_sums.name, view, context)


def test_second_moments_over_one_fold(victims):
    """45 columns are fine for the 180 patients that are named; without four of five folds there are 36."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((36, 45))
    rows = Labelled(x=x, y=np.ones(36), fold=np.zeros(36, np.int64))
    information = logistic.terms.local(rows, coefficients=np.zeros(46)).information
    assert np.linalg.matrix_rank(4 * symmetric(information)[1:, 1:]) == 36  # as many as patients
    study = victims.study.model_copy(update={"split": victims.study.split.model_copy(update={"folds": 5})})
    guard, context = Guard(study, "north", ("*",)), victims.contexts["north"]
    for without in ([0], [0, 1]):
        guard.admit(logistic.terms.name, view_without(without, 180), context)
    with pytest.raises(SumRefused, match="leave out more than 2 folds"):
        guard.admit(logistic.terms.name, view_without([0, 1, 2, 3], 180), context)


@pytest.mark.parametrize(("stacked", "most"), [("", 2), ("ab", 2), ("abc", 3), ("abcd", 4)])
def test_a_fit_leaves_out_as_many_folds_as_models_are_stacked(victims, stacked, most):
    plain = victims.study.model_dump(mode="json", exclude_none=True)
    plain["split"]["folds"] = 5
    for below, name in pairwise(stacked):
        plain["model"].setdefault(below, plain["model"]["full"])
        plain["model"][name] = {**plain["model"]["full"], "predictors": ["age", f"model.{below}"]}
    assert most_folds(parse_study(plain)) == most


def test_second_moments_of_the_part_held_back(victims):
    """Of a fifth of a site's patients, as many columns as one for every four of them are more than patients."""
    study, nobody = victims.study, Labelled(np.zeros((0, 40)), np.zeros(0), np.zeros(0, np.int64))

    def ask(statistic, part, study=study):
        view = {"kind": "labelled", "rows": {"part": part, "patients": 180}, "endpoint": "outcome"}
        disclosure.check(study, statistic.name, view, {}, nobody)

    refits = study.model_copy(update={"validation": study.validation.model_copy(update={"updating": "refit"})})
    ask(logistic.terms, "train")
    ask(logistic.terms, "external", refits)
    for part, of, statistic in (
        ("internal", refits, logistic.terms), ("external", study, logistic.terms),
        ("external", refits, correlation.cross_products),
    ):  # fmt: skip
        with pytest.raises(SumRefused, match="of the training part"):
            ask(statistic, part, of)


def test_cut_offs_as_many_as_scores(victims):
    """Counts above every value of the grid, by outcome, or above many cut-offs of one model named again and again."""
    rng = np.random.default_rng(1)
    rows = Scored(score=rng.random((144, 1)).round(4), y=rng.integers(0, 2, 144) * 1.0, fold=np.zeros(144, np.int64))
    every = np.arange(10_002)[None]
    counts = PooledSites([rows]).sum(cutoff.above, thresholds=every).patients[0]
    assert (-np.diff(counts.sum(axis=0)) == 1).sum() > 130
    guard = Guard(victims.study, "north", ("*",))

    def ask(thresholds, models=("m",)):
        view = {"kind": "scored", "rows": TRAIN, "models": list(models)}
        guard.question(cutoff.above.name, view, {"thresholds": np.asarray(thresholds)}, rows)

    shared = cutoff.on_grid(np.array(victims.study.validation.decision_thresholds))
    for own in (0, 4321):
        ask([[own, *shared]])
        ask([[own]])
    for finer in (every, [[0, *shared, 4321]], [[0, *shared[:-1], 4321]], [[0, 4321]]):
        with pytest.raises(SumRefused, match="study's decision_thresholds only"):
            ask(finer)
    with pytest.raises(SumRefused, match="leaves with noise only"):  # a hundred cells by outcome, of any cohort
        guard.question(class_histogram.patients.name, {"kind": "scored", "rows": TRAIN}, {"cells": 100}, rows)
    with pytest.raises(SumRefused, match="more models than the study has"):
        ask(np.arange(1000)[:, None], ["m"] * 1000)
