"""Repeats of cross-validation against patients whose ids are known: sums over many sets fix each patient's value."""

import tomllib

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from cohortium.client.disclosure import check_patients
from cohortium.client.guard import Guard
from cohortium.common.cohort import assign_folds
from cohortium.common.errors import SumRefused
from cohortium.common.federation import PooledSites
from cohortium.common.study import parse_study
from cohortium.common.sum_setup import Hello
from cohortium.common.table import Table
from cohortium.strategies import moments, views
from cohortium.strategies.view_patients import fold_numbers, folds_of

STUDY = """
[study]
name = "sets"
primary = "outcome"
[endpoint.outcome]
kind = "continuous"
column = "outcome"
[[variable]]
name = "age"
kind = "continuous"
[split]
train = ["north", "east", "south"]
folds = 5
repeats = {repeats}
[model.one]
kind = "linear"
predictors = ["age"]
{validation}
"""
SITES = ("north", "east", "south")


def contexts(repeats, validation=""):
    study = parse_study(tomllib.loads(STUDY.format(repeats=repeats, validation=validation)))
    found = {}
    for seed, site in enumerate(SITES):
        rng = np.random.default_rng(seed)
        n = 19 + seed
        columns = {"age": rng.normal(60, 9, n).round(1), "endpoint.outcome": rng.normal(size=n)}
        table = Table(site, np.array([f"{site}-{i}" for i in range(n)]), np.full(n, "train"), columns)
        found[site] = views.Context(table=table, study=study, site=site, objects={})
    return study, found


def view_without(without, patients=60):
    rows = {"part": "train", "without": without, "patients": patients}
    return {"kind": "matrix", "rows": rows, "blocks": [{"terms": ["age"]}]}


def solved(repeats):
    """Ages that follow from the sums over all patients and without each fold, and how many sets are independent."""
    study, sites = contexts(repeats)
    chosen = [[]] + [[fold] for r in range(repeats) for fold in fold_numbers(study, r)]
    sums, sets = [], []
    for without in chosen:
        federation = PooledSites([views.build(view_without(without), context) for context in sites.values()])
        known = moments.fit(federation, 1)
        sums.append(known.mean[0] * known.n[0])
        repeat = without[0] // 5 if without else 0
        folds = np.concatenate([folds_of(context, repeat) for context in sites.values()])  # of public ids
        sets.append(~np.isin(folds, without))
    matrix = np.array(sets, float)
    ages = np.concatenate([context.table.columns["age"] for context in sites.values()])
    found = np.linalg.lstsq(matrix, np.array(sums), rcond=None)[0]
    return (np.abs(found - ages) < 1e-6).sum(), np.linalg.matrix_rank(matrix)


def test_as_many_sets_as_patients_give_every_value_away():
    assert solved(20) == (60, 60)
    found, sets = solved(3)
    assert found == 0
    assert sets == 1 + 3 * (5 - 1)  # what the sites count


def carriers_found(repeats, carriers=10, patients=324):
    """Share of the carriers of a 0/1 variable who are named by how many each fold has: whole numbers that fit."""
    has = np.zeros(patients)
    has[np.random.default_rng(0).choice(patients, carriers, replace=False)] = 1
    ids = [f"p-{i}" for i in range(patients)]
    sets = []
    for repeat in range(repeats):
        label = f"repeat{repeat + 1}" if repeat else ""
        folds = assign_folds(0, "north", 0, ids, np.zeros(patients), 5, label=label)
        sets += [folds == fold for fold in range(5)]
    matrix = np.array(sets, float)
    fits = LinearConstraint(matrix, matrix @ has, matrix @ has)
    found = milp(np.ones(patients), constraints=fits, bounds=Bounds(0, 1), integrality=np.ones(patients)).x
    return (np.rint(found) * has).sum() / carriers


def test_of_a_rare_value_fewer_sets_name_who_has_it():
    """What is left (docs/threat-model.md): four patients a set hide values that vary, not a few among zeros."""
    assert carriers_found(10) == 1.0  # 41 sets, where 81 are allowed
    assert carriers_found(1) < 0.5


def test_sites_hold_the_sets_against_the_patients_they_signed_for():
    study, _ = contexts(20)

    def asked(signed, *without):
        roster = [Hello(site, b"", signed, b"") for site in SITES]
        check_patients(study, [view_without(list(without), 3 * signed)], roster)

    asked(20, 4)  # the first repeat's folds are those of any study with folds
    asked(108, 5)  # 324 patients, 81 sets
    for signed, without in ((20, [5]), (107, [5]), (107, [5, 6, 7, 8]), (107, [99] * 4)):
        with pytest.raises(SumRefused, match="into 81 sets that do not follow from each other"):
            asked(signed, *without)


def test_folds_of_two_repeats_have_few_patients_in_common():
    study, sites = contexts(3, "[validation]\nleave_one_site_out = true\n[privacy]\nminimum_sites = 2\n"
                               "secure_aggregation = false")  # fmt: skip
    guard, context = Guard(study, "north", ("*",)), sites["north"]
    guard.admit("moments.power_sums", view_without([0, 1]), context)
    guard.admit("moments.power_sums", view_without([5, 6]), context)
    guard.admit("moments.power_sums", view_without([0, 15]), context)  # fold 0 and site east
    for without in ([0, 5], [4, 5], [5, 14], [0, 5, 15], [5, 15]):
        with pytest.raises(SumRefused, match="folds of two repeats"):
            guard.admit("moments.power_sums", view_without(without), context)
