"""Questions that single patients out: each works on honest sums, where masks are no help; the guard refuses it.

Every attack is made on what a coordinator reads after unmasking: the total over all training sites.
"""

import numpy as np
import pytest

from cohortium.client import disclosure
from cohortium.client.guard import Guard
from cohortium.client.subsets import check_subset
from cohortium.client.terms import check_terms
from cohortium.common.errors import SumRefused
from cohortium.common.heads import Head
from cohortium.common.study import parse_study
from cohortium.common.study_analysis import Screen
from cohortium.strategies import moments, rank_tests, views
from cohortium.strategies.correlation import cross_products
from cohortium.strategies.describe import FIRST_LEVEL
from cohortium.strategies.discrimination import histogram
from cohortium.strategies.fedavg import update
from cohortium.strategies.lasso import start
from cohortium.strategies.levels import level_counts
from cohortium.strategies.logistic import terms
from cohortium.strategies.quantiles import top_bytes
from cohortium.strategies.risk_sets import risk_sets
from cohortium.strategies.rows import Labelled, Matrix, Scored
from cohortium.strategies.shapley import values
from cohortium.strategies.survival import timeline
from cohortium.strategies.triangle import symmetric

TRAIN = {"part": "train", "endpoint": "os", "patients": 180}


def rebuilt(found, true):
    """How many true rows are among those found."""
    return sum(bool((np.abs(found - row).max(axis=1) < 1e-6).any()) for row in true)


# --- risk sets ------------------------------------------------------------------------------------------------


def from_risk_sets(victims, view, time_step):
    """Covariates of whoever leaves alone between two risk sets: the difference of the sums of x (w = 1)."""
    federation = victims.sums(view)
    points = np.flatnonzero(timeline(federation, time_step).exits)
    nothing = np.zeros(len(points))
    asked = {
        "coefficients": np.zeros(2), "points": points, "tied": np.zeros(0, np.int64), "hazard": nothing,
        "relief": nothing, "time_step": time_step,
    }  # fmt: skip
    sums = federation.sum(risk_sets, **asked)
    gone, gone_x = -np.diff(sums.risk, append=0.0), -np.diff(sums.risk_x, axis=0, append=np.zeros((1, 2)))
    true = np.concatenate([rows.x for rows in victims.rows(view)])
    return rebuilt(gone_x[np.abs(gone - 1) < 1e-6], true), len(true), asked


def test_covariates_from_differences_of_risk_sets(victims, raw_design):
    view = {"kind": "survival", "rows": TRAIN, "endpoint": "os", "time_step": 1.0, **raw_design}
    found, patients, asked = from_risk_sets(victims, view, 1.0)
    assert found > 0.8 * patients
    assert "on the study's grid" in victims.refusal("north", risk_sets, view, **asked)
    # other grids than the study's, which cross it in finer cells, are no way around
    for step in (None, 29.0, 31.0, 60.0):
        assert "on the study's grid" in victims.refusal("north", risk_sets, view | {"time_step": step}, **asked)


def test_a_coarse_grid_leaves_few_who_leave_alone(victims, raw_design):
    """What the grid gives, and does not: patients who leave alone in a month of a small study can still be told."""
    view = {"kind": "survival", "rows": TRAIN, "endpoint": "os", "time_step": 30.0, **raw_design}
    found, patients, asked = from_risk_sets(victims, view, 30.0)
    assert found < 0.15 * patients
    assert victims.refusal("north", risk_sets, view, **asked) == ""


def test_exact_times_as_if_they_were_a_variable(victims):
    view = {"kind": "matrix", "rows": TRAIN, "blocks": [{"terms": ["endpoint.os.time"]}]}
    times = np.concatenate([victims.contexts[site].table.columns["endpoint.os.time"] for site in ("north", "east")])
    assert len(np.unique(times)) > 100  # its order statistics would be days
    reply = victims.ask("north", top_bytes, view, groups=1)
    assert list(reply) == ["refused"]


# --- second moments -------------------------------------------------------------------------------------------


def test_rows_from_two_information_matrices():
    """With as many columns as patients, X'W1 X and X'W2 X have the rows of X as their common frame."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((12, 30))
    rows = Labelled(x=x, y=np.ones(12), fold=np.zeros(12, np.int64))
    a, b = (
        symmetric(terms.local(rows, coefficients=c).information)[1:, 1:] for c in rng.standard_normal((2, 31)) * 0.3
    )
    u, s, _ = np.linalg.svd(a)
    basis = u[:, :12] * np.sqrt(s[:12])  # a = basis basis'
    inner = np.linalg.pinv(basis) @ b @ np.linalg.pinv(basis).T
    directions = basis @ np.linalg.eigh(inner)[1]
    found = (directions / np.linalg.norm(directions, axis=0)).T
    true = x / np.linalg.norm(x, axis=1)[:, None]
    assert rebuilt(np.concatenate([found, -found]), true) == 12


@pytest.mark.parametrize(("patients", "told"), [(180, ""), (119, "of 30 columns over 119 patients"), (30, "must name")])
def test_a_site_holds_the_columns_against_the_public_number_of_patients(victims, patients, told):
    guard = Guard(victims.study, "north", ("*",))
    rows = Matrix(x=np.zeros((48, 30)), group=np.zeros(48, np.int64))
    view = {"kind": "matrix", "rows": {"part": "train", "patients": patients}}
    refusal = ""
    try:
        guard.question(cross_products.name, view, {}, rows)
    except SumRefused as refused:
        refusal = str(refused)
    assert told in refusal
    assert bool(told) == bool(refusal)


def test_a_number_of_patients_that_the_sites_did_not_sign_for(victims, raw_design):
    """Ten times as many patients would let ten times as many columns through; each site adds up what all signed."""
    view = {"kind": "matrix", **raw_design}
    hello = {"kind": "hello", "study": victims.study.hash, "run": "c" * 32}
    hellos = [victims.send(site, hello)["hello"] for site in victims.places]
    assert [entry["patients"] for entry in hellos] == [60, 60, 60, 20]  # the last is the external part, and no trainer

    def asked(t, patients, roster=hellos):
        rows = {"part": "train", "patients": patients}
        return victims.masked("north", roster, t, cross_products, view | {"rows": rows})

    assert "y" in asked(1, 180)
    for t, patients in enumerate((181, 200, 1800, 10**30, True, "180", None), 2):
        ((_, what, why),) = asked(t, patients)["refused"]
        assert "the 180 that its sites signed for" in why or "must name the number of patients" in why, (what, why)
    lying = [entry | {"patients": 600} for entry in hellos]
    assert "number of patients of site east are not signed" in asked(20, 1800, lying)["refused"][0][2]
    *_, refused = (line for line in victims.ledger("north") if line["kind"] == "sum" and line["columns"])
    assert (refused["columns"], refused["patients"], refused["outcome"]) == (2, 1800, "refused")
    assert "y" in asked(21, 180)


# --- cells ----------------------------------------------------------------------------------------------------


def test_a_score_histogram_with_lone_patients(victims):
    """On the grid of scores most patients are alone in a cell, which shows their score and outcome."""
    rng = np.random.default_rng(1)
    sites = [
        Scored(score=rng.random((48, 1)).round(4), y=rng.integers(0, 2, 48) * 1.0, fold=np.zeros(48, np.int64))
        for _ in range(3)
    ]
    exact, bins = [np.arange(10_001)], [np.arange(0, 10_001, 500)]
    total = sum(histogram.local(rows, edges=exact, folds=1).patients[0, 0] for rows in sites)
    assert (total.sum(axis=0) == 1).sum() > 130
    guard = Guard(victims.study, "north", ("*",))
    view = {"kind": "scored", "rows": {"part": "train", "patients": 144}}
    with pytest.raises(SumRefused, match="10001 cells for 144 patients"):
        guard.question(histogram.name, view, {"edges": exact}, sites[0])
    guard.question(histogram.name, view, {"edges": bins}, sites[0])


def test_inner_folds_of_one_patient(victims, raw_design):
    """As many folds as a site has patients: the sums of a fold and class are those of one patient a site at most."""
    view = {"kind": "labelled", "rows": TRAIN, "endpoint": "outcome", "inner_folds": 60, **raw_design}
    sums = victims.sums(view, ("north",)).sum(start, folds=60)
    assert sums.outcome.max() == 1
    (north,) = victims.rows(view, ("north",))
    assert rebuilt(sums.outcome_total[sums.outcome == 1], north.x[north.y == 1]) == sums.outcome.sum() > 10
    assert "names no LASSO with so many folds" in victims.refusal("north", start, view, folds=60)


def test_values_and_outcomes_from_cells_of_a_feature(victims, raw_design):
    """As many cells as there are values: each patient's value, beside the outcome. This study has no rank tests."""
    view = {"kind": "matrix", "rows": TRAIN, "group": "outcome", **raw_design}
    (north,) = victims.rows(view, ("north",))
    values = np.unique(north.x[:, 1])
    edges = np.append(values, np.inf)[None]
    counts = rank_tests.split.local(north, columns=np.array([1]), edges=edges).counts[:, 0]
    assert (counts.sum(axis=0) == 1).mean() > 0.8
    asked = {"columns": np.array([1]), "edges": edges}
    assert "names no selection by ranks" in victims.refusal("north", rank_tests.split, view, **asked)
    grid = {"grid": np.append(-np.inf, edges)}
    assert "names no selection by ranks" in victims.refusal("north", rank_tests.occupancy, view, **grid)


@pytest.mark.parametrize(
    ("statistic", "parameters"),
    [
        (rank_tests.occupancy, {"grid": np.linspace(-4, 4, 400)}),
        (rank_tests.histogram, {"edges": np.zeros((60, 180 // 5 + 4))}),
        (rank_tests.split, {"columns": np.arange(46), "edges": np.zeros((46, 3))}),
    ],
)
def test_ranks_no_finer_than_a_rank_test_needs(victims, statistic, parameters):
    """With a screen by ranks: at most 256 cells, bins of five patients by outcome, 45 features cut at a time."""
    model = victims.study.model["full"].model_copy(update={"selection": (Screen(method="screen", test="auc"),)})
    study = victims.study.model_copy(update={"model": {"full": model}})
    rows = Matrix(np.zeros((60, 60)), np.zeros(60, np.int64))
    view = {"kind": "matrix", "rows": TRAIN}
    with pytest.raises(SumRefused, match="at most"):
        disclosure.check(study, statistic.name, view, parameters, rows)
    coarser = {
        key: value[..., :-3] if statistic is rank_tests.histogram else value[:45] for key, value in parameters.items()
    }
    disclosure.check(study, statistic.name, view, coarser, rows)


# --- one site, one patient ------------------------------------------------------------------------------------


def test_a_category_that_only_one_site_has(victims):
    """The total over all sites of a level that two patients of north have is north's own table."""
    view = {"kind": "matrix", "rows": {"part": "train", "endpoint": "outcome"}, "group": "outcome",
            "blocks": [{"terms": ["stage"]}]}  # fmt: skip
    rows = victims.rows(view)
    lone = rows[0]._replace(x=np.where(np.arange(len(rows[0].x)) < 2, 2.0, 0.0)[:, None])
    others = [site._replace(x=np.minimum(site.x, 1.0)) for site in rows[1:]]
    shares = [level_counts.local(site, levels=3, groups=2) for site in (lone, *others)]
    np.testing.assert_array_equal(sum(share.counts for share in shares)[..., 2], shares[0].counts[..., 2])
    guard = Guard(victims.study, "north", ("*",))
    with pytest.raises(SumRefused, match="a cell with fewer than minimum_count = 5"):
        guard.cells(level_counts.name, shares[0])


def test_a_small_subgroup_from_the_whole_and_the_others(victims):
    """A subgroup that is held back is the whole cohort less the subgroups that are not: then none of them leaves."""
    context = victims.contexts["north"]
    stage = context.table.columns["stage"].copy()
    stage[stage == 2.0] = 1.0
    stage[np.flatnonzero(context.table.part == "train")[:2]] = 2.0
    table = type(context.table)(
        context.table.site, context.table.patient_id, context.table.part, {**context.table.columns, "stage": stage}
    )
    changed = views.Context(table=table, study=victims.study, site="north", objects={})
    count = {level: int(((stage == level) & (table.part == "train")).sum()) for level in (0.0, 1.0, 2.0)}
    assert (table.part == "train").sum() - count[0.0] - count[1.0] == 2
    guard = Guard(victims.study, "north", ("*",))
    for level in count:
        view = {"kind": "scored", "rows": {"part": "train", "where": ["stage", level]}}
        with pytest.raises(SumRefused, match="of one of them"):
            guard.admit("moments.power_sums", view, changed)


def test_the_gradient_of_a_batch_of_one_patient(victims, raw_design):
    """In plain training with one patient, the change of a layer's weights over that of its biases is the patient."""
    x = np.array([[61.0, 2.5]])
    lone = Labelled(x=x, y=np.ones(1), fold=np.zeros(1, np.int64))
    asked = {
        "weights": np.full(17, 0.01, np.float32), "hidden": [4], "patients": 1, "class_weights": [1.0, 1.0],
        "optimizer": "sgd", "learning_rate": 0.5, "local_epochs": 1, "batch_size": 1, "seed": 0, "round_index": 0,
    }  # fmt: skip
    matrix, bias = Head(inputs=2, hidden=(4,)).layers(update.local(lone, **asked).delta)[0]
    np.testing.assert_allclose(matrix / bias[:, None], np.repeat(x, 4, axis=0), rtol=1e-4)  # float32
    view = {"kind": "labelled", "rows": TRAIN, "endpoint": "outcome", **raw_design}
    assert "trains no network with this head" in victims.refusal("north", update, view, **asked)
    approved = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 32}
    assert victims.refusal("north", update, view, **asked | approved) == ""


def test_contributions_over_a_part_of_two_patients(victims, raw_design):
    """Of the sum of two columns: against zeros their sums, against their means how far apart the two are."""
    view = {"kind": "keyed", "rows": TRAIN, **raw_design}
    asked = {
        "fit": {"coefficients": np.array([0.0, 1.0, 1.0])},
        **{"group": np.arange(2), "background": np.zeros((1, 2)), "orders": np.arange(2)[None]},
    }
    parts = {k: victims.sums(view).sum(values, **asked, halvings=k) for k in range(12)}
    few = next(k for k, sums in parts.items() if sums.patients == 2)
    middle = parts[few].total / 2
    apart = victims.sums(view).sum(values, **asked | {"background": middle[None]}, halvings=few).absolute / 2
    true = np.concatenate([rows.x for rows in victims.rows(view)])
    for found in (middle - apart, middle + apart):
        assert (np.abs(true - found).min(axis=0) < 1e-9).all()
    for k in (0, few):
        assert "explains no such model" in victims.refusal("north", values, view, **asked, halvings=k)


def test_in_the_clear_a_lone_patient_is_told_to_nobody(victims):
    study = victims.study.model_copy(
        update={"privacy": victims.study.privacy.model_copy(update={"secure_aggregation": False})}
    )
    view = {"kind": "matrix", "rows": {"part": "train"}}
    lone = Matrix(x=np.ones((1, 1)), group=np.zeros(1, np.int64))
    Guard(victims.study, "north", ("*",)).question("moments.power_sums", view, {}, lone)
    with pytest.raises(SumRefused, match="go in the clear"):
        Guard(study, "north", ("*",)).question("moments.power_sums", view, {}, lone)


# --- ways around Table 1 --------------------------------------------------------------------------------------


def of_table(context, **changed):
    """A site with other values of some columns."""
    table = context.table
    table = type(table)(table.site, table.patient_id, table.part, {**table.columns, **changed})
    return views.Context(table=table, study=context.study, site=context.site, objects={})


def test_a_withheld_cell_from_the_moments_and_the_score_of_its_term(victims):
    """The mean of a 0/1 term in a group is its cell of Table 1, and so is the histogram of a score that is the term."""
    rows = {"part": "train", "endpoint": "outcome", "patients": 180}
    view = {"kind": "matrix", "rows": rows, "group": "outcome", "blocks": [{"terms": ["stage=2"]}]}
    asked = {"centre": np.zeros((2, 1)), "power": 1}
    sums = moments.fit_groups(victims.sums(view), 1, 2)
    whole = victims.sums(view | {"blocks": [{"terms": ["stage"]}]}).sum(level_counts, levels=3, groups=2)
    np.testing.assert_array_equal([np.rint(m.mean[0] * m.n[0]) for m in sums], whole.counts[:, 0, 1])
    used = "no model of the study uses stage, so it leaves in Table 1 only"
    assert used in victims.refusal("north", moments.power_sums, view, **asked)
    gradient = {"kind": "labelled", "rows": rows, "endpoint": "outcome", "centre": np.zeros(1), "scale": np.ones(1),
                "fill": np.zeros(1), "blocks": [{"terms": ["stage=2"]}]}  # fmt: skip
    assert used in victims.refusal("north", terms, gradient, coefficients=np.zeros(2))
    published = {"outcome": "survival", "replicates": {"": gradient | {"coefficients": np.array([0.0, 1.0])}}}
    with pytest.raises(SumRefused, match=used):
        check_terms(victims.study, histogram.name, {"models": ["m"]}, {"m": published})
    # what a model uses is fitted, and its terms by outcome are what the fit is made of
    assert victims.refusal("north", moments.power_sums, view | {"blocks": [{"terms": ["age"]}]}, **asked) == ""


def test_which_values_are_missing_as_if_it_were_a_variable(victims):
    rows = {"part": "train", "endpoint": "outcome"}
    view = {"kind": "matrix", "rows": rows, "group": "outcome", "blocks": [{"terms": ["marker:missing"]}]}
    missing = victims.sums(view).sum(moments.power_sums, centre=np.zeros((2, 1)), power=1)
    assert missing.patients.sum() > 100  # a column like any other
    told = victims.refusal("north", moments.power_sums, view, centre=np.zeros((2, 1)), power=1)
    assert 'a column only where missing = "indicator"' in told


def test_two_patients_whose_value_is_missing_from_a_table_of_the_others(victims):
    """A group less its levels is its missing values, and how large the group is follows from every other variable."""
    north = victims.contexts["north"]
    train = np.flatnonzero((north.table.part == "train") & (north.table.columns["endpoint.outcome"] == 1))
    stage = np.nan_to_num(north.table.columns["stage"], nan=0.0)
    stage[train[:2]] = np.nan
    changed = of_table(north, stage=stage)
    view = {"kind": "matrix", "rows": {"part": "train", "endpoint": "outcome"}, "group": "outcome",
            "blocks": [{"terms": ["stage"]}]}  # fmt: skip
    rows = views.build(view, changed)
    share = level_counts.local(rows, levels=3, groups=2)
    assert (share.patients - share.counts.sum(axis=(1, 2))).tolist() == [0, 2]
    guard = Guard(victims.study, "north", ("*",))
    for statistic in (level_counts, moments.power_sums, top_bytes):
        with pytest.raises(SumRefused, match="fewer than minimum_count = 5 patients have a missing value"):
            guard.question(statistic.name, view, {}, rows)
    merged = views.build(view | FIRST_LEVEL, changed)
    guard.question(level_counts.name, view | FIRST_LEVEL, {}, merged)
    share = level_counts.local(merged, levels=3, groups=2)
    assert (share.patients - share.counts.sum(axis=(1, 2))).tolist() == [0, 0]


# --- subsets whose difference is a few patients ---------------------------------------------------------------


def asked_of(guard, context, variable, level):
    """What a site says of one subset, as a sum and as finished figures."""
    told = []
    rows = {"part": "external", "where": [variable, level]}
    for ask in (lambda: check_subset(guard.study, rows, context), lambda: guard.finished("figures.x", rows, context)):
        try:
            ask()
            told.append("")
        except SumRefused as refusal:
            told.append(refusal.why)
    assert told[0] == told[1]
    return told[0]


def test_a_cohort_less_all_its_subgroups_is_who_has_no_value(victims):
    """Finished figures of a whole cohort and of all levels: counts subtract to the two patients without a level."""
    west = victims.contexts["west"]
    stage = np.repeat([0.0, 1.0, 2.0], [6, 6, len(west.table) - 12])
    stage[-2:] = np.nan
    context = of_table(west, stage=stage)
    count = [int(views.selected(context, {"part": "external", "where": ["stage", level]}).sum()) for level in range(3)]
    assert len(west.table) - sum(count) == 2
    guard = Guard(victims.study, "west", ("*",))
    told = [asked_of(guard, context, "stage", float(level)) for level in range(3)]
    assert told[:2] == ["", ""]  # the rest is then the last level too, which is large
    assert "of none of them" in told[2]
    stage[-2:] = 2.0
    assert asked_of(guard, of_table(west, stage=stage), "stage", 2.0) == ""


@pytest.mark.parametrize(("apart", "told"), [(2, "differs from another subset"), (0, ""), (6, "")])
def test_two_subsets_that_differ_by_a_few_patients(victims, apart, told):
    """An analysis of one sex, another of one ward with two patients more: the difference of their figures."""
    analyses = [{"model": "full", "endpoint": "outcome", "where": {name: 1}} for name in ("sex", "ward")]
    study = victims.study.model_dump(mode="json", exclude_none=True)
    study["validation"] |= {"subgroups": [], "analysis": analyses}
    binary = [{"name": name, "kind": "binary", "missing": "mode"} for name in ("sex", "ward")]
    study["variable"] += binary
    study = parse_study(study)
    west = victims.contexts["west"]
    sex = (np.arange(len(west.table)) < 8) * 1.0
    ward = (np.arange(len(west.table)) < 8 + apart) * 1.0
    context = of_table(west, sex=sex, ward=ward)
    context.study = study
    assert (ward != sex).sum() == apart
    guard = Guard(study, "west", ("*",))
    assert asked_of(guard, context, "sex", 1.0) == ""
    assert told in (why := asked_of(guard, context, "ward", 1.0))
    assert bool(why) == bool(told)
