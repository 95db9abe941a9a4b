"""Leave-one-site-out validation and figures by site: scores of models that have not seen a site, checked outside."""

import dataclasses
import tomllib
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special
from sklearn.metrics import roc_auc_score

from cohortium.cli.main import main
from cohortium.client.guard import Guard
from cohortium.common.errors import SiteError, StudyError, SumRefused
from cohortium.common.study import load_study, parse_study
from cohortium.common.table import Table
from cohortium.server.releases import releases
from cohortium.server.report.build import build_report
from cohortium.server.stages.replicates import in_words, replicates
from cohortium.simulation.preview import preview
from cohortium.sites.approvals import approve_study
from cohortium.strategies import views
from cohortium.strategies.rows import Scored
from cohortium.strategies.view_patients import left_out_number
from tests.simulation.prepared import run_on_tables, sums_sent

STUDY = """
[study]
name = "sites"
primary = "outcome"
seed = 5

[endpoint.outcome]
kind = "binary"
column = "outcome"

[[variable]]
name = "age"
kind = "continuous"

[[variable]]
name = "marker"
kind = "continuous"
missing = "mean"

[split]
train = ["north", "east", "south", "west", "tiny"]
folds = 3

[model.clinical]
kind = "logistic"
predictors = ["age", "marker"]

[model.stacked]
kind = "logistic"
predictors = ["model.clinical", "age"]
"""
ASKED = """
[validation]
leave_one_site_out = true
by_site = true
"""
SIZES = {"north": 150, "east": 120, "south": 90, "west": 110, "tiny": 8}


def table(site: str, n: int) -> Table:
    rng = np.random.default_rng([31, n])
    age, marker = rng.normal(60, 9, n).round(), rng.normal(n / 100, 1, n).round(3)
    y = rng.random(n) < special.expit((age - 60) / 12 + marker * (n / 120) - 1.5)
    gaps = rng.random(n) < 0.1
    return Table(
        site=site,
        patient_id=np.array([f"{site}-{i:03d}" for i in range(n)]),
        part=np.full(n, "train"),
        columns={"age": age, "marker": np.where(gaps, np.nan, marker), "endpoint.outcome": y.astype(float)},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: results, tables, folder."""
    place = tmp_path_factory.mktemp("sites")
    tables = {site: table(site, n) for site, n in SIZES.items()}
    return run_on_tables(place, STUDY + ASKED, tables), tables, place


def scores(place, site):
    return pd.read_csv(place / "sites" / site / "predictions.csv")


def test_scores_come_from_a_refit_without_the_site(run):
    _, tables, place = run
    for site, held_out in tables.items():
        rest = [table for name, table in tables.items() if name != site]
        age = np.concatenate([table.columns["age"] for table in rest])
        marker = np.concatenate([table.columns["marker"] for table in rest])
        y = np.concatenate([table.columns["endpoint.outcome"] for table in rest])
        mean = np.nanmean(marker)  # what fills gaps is learned without the site too
        fit = sm.Logit(y, sm.add_constant(np.column_stack([age, np.where(np.isnan(marker), mean, marker)]))).fit(
            disp=0, tol=1e-12
        )
        own = held_out.columns["marker"]
        x = np.column_stack([np.ones(len(own)), held_out.columns["age"], np.where(np.isnan(own), mean, own)])
        np.testing.assert_allclose(scores(place, site)["loso.clinical"], fit.predict(x), atol=0.5001e-4)


def test_figures_are_those_of_these_scores(run):
    results, _, place = run
    patients = pd.concat([scores(place, site) for site in SIZES])
    for name, model in results["models"].items():
        figures = model["cohorts"]["leave_one_site_out"]
        area = roc_auc_score(patients["outcome"], patients[f"loso.{name}"])
        assert figures["n"] == len(patients) == sum(SIZES.values())
        assert abs(figures["auc"]["estimate"] - area) <= figures["auc"]["bound"] + 1e-12
        spread = figures["heterogeneity"]
        assert spread["auc"]["sites"] == 4  # tiny has too few events
        low, high = spread["auc"]["prediction_interval"]
        assert low < spread["auc"]["ci"][0] < spread["auc"]["estimate"] < spread["auc"]["ci"][1] < high


def test_a_stacked_model_is_fitted_on_values_of_fits_without_the_site(run):
    study = load_study(run[2])
    needed = replicates(study)
    assert (3,) in needed["stacked"]
    assert {(0, 3), (1, 7)} <= set(needed["clinical"])
    assert not any(sum(number >= 3 for number in without) > 1 for found in needed.values() for without in found)
    assert in_words(study, (1, 4)) == "fold 1 and site north"


def test_replicates_travel_together(run, tmp_path):
    """Sites left out cost no rounds but those of the figures' longest fit."""
    results, tables, _ = run
    plain = run_on_tables(tmp_path, STUDY, tables)
    assert results["cost"]["secure_sums"] <= plain["cost"]["secure_sums"] + 3
    for name, model in plain["models"].items():  # and change nothing else
        for cohort in ("train", "cross_validated"):
            assert model["cohorts"][cohort] == results["models"][name]["cohorts"][cohort]


def test_figures_of_each_site(run):
    results, tables, place = run
    cohorts = results["models"]["clinical"]["cohorts"]
    for site in ("north", "east", "south", "west"):
        own = scores(place, site)
        figures = cohorts[f"leave_one_site_out/site:{site}"]
        assert figures["n"] == len(tables[site])
        assert "heterogeneity" not in figures
        area = roc_auc_score(own["outcome"], own["loso.clinical"])
        assert abs(figures["auc"]["estimate"] - area) <= figures["auc"]["bound"] + 1e-12
        assert results["held_by"][f"cross_validated/site:{site}"] == [site]
    for cohort in ("train", "cross_validated", "leave_one_site_out"):
        assert "fewer than minimum_count = 5" in cohorts[f"{cohort}/site:tiny"]["withheld"]
    assert any("site:tiny" in refused["what"] for refused in results["refused"])


def test_the_report_shows_sites_and_their_spread(run):
    page = build_report(run[2] / "out").read_text()
    for said in ("Leave-one-site-out", "Between sites", "site north", "95% prediction interval", "τ²", "withheld"):
        assert said in page, said


def test_every_sum_was_listed(run, capsys):
    _, _, place = run
    study = load_study(place)
    listed = {one.statistic for one in releases(study)}
    sent = sums_sent(place)
    assert {"heterogeneity.able", "heterogeneity.sums"} <= sent.keys() <= listed
    assert main(["study", "releases", str(place / "study.toml")]) == 0
    page = capsys.readouterr().out
    assert "The study has by_site" in page
    assert "clinical 27, stacked 9" in page  # (), 3 folds, 5 sites; below also 3 pairs of folds, 15 of fold and site


def test_a_site_previews_its_own_figures(run):
    study = load_study(run[2])
    found = preview(study, run[1]["east"], ("*",))
    assert found.finished == [f"{name}/site:east" for name in ("train", "cross_validated", "leave_one_site_out")]
    assert found.stopped == ""


def test_a_site_previews_the_sums_that_really_leave(run):
    """With leave-one-site-out, cut-offs and heterogeneity; and how many of them say nothing of its patients."""
    _, tables, place = run
    study, site = load_study(place), "east"
    found = {entry.statistic: entry for entry in preview(study, tables[site], ("*",)).sums}
    sent = sums_sent(place / "sites" / site)
    assert set(found) == set(sent)
    assert found["heterogeneity.sums"].times == sent["heterogeneity.sums"]
    assert found["heterogeneity.sums"].numbers > 0
    without_it = found["logistic.terms"].zeros / found["logistic.terms"].times
    fits = [fit for of_model in replicates(study).values() for fit in of_model]
    left_out = [fit for fit in fits if left_out_number(study, site) in fit]
    assert without_it == pytest.approx(len(left_out) / len(fits), abs=0.03)
    assert "a fit needs both classes" in preview(study, tables["tiny"], ("*",)).stopped  # eight patients alone


def test_studies_without_the_keys_keep_their_hash():
    plain = parse_study(_tables(STUDY))
    assert plain.hash == parse_study(_tables(STUDY + "\n[validation]\nby_site = false\n")).hash
    assert b"leave_one_site_out" not in plain.canonical
    assert plain.opt_ins == ()
    assert parse_study(_tables(STUDY + ASKED)).opt_ins == ("leave_one_site_out", "by_site")


def test_every_site_opts_in(tmp_path):
    study = parse_study(_tables(STUDY + ASKED))
    with pytest.raises(SiteError, match="opt into leave_one_site_out, by_site"):
        approve_study(tmp_path, study, approved_by="x", time=datetime.now(UTC))


def test_enough_sites_must_remain():
    few = _tables(STUDY + ASKED)
    few["split"]["train"] = ["north", "east", "south"]
    with pytest.raises(StudyError, match="leaves 2 of 3 training sites, and minimum_sites = 3"):
        parse_study(few)


@pytest.fixture(scope="module")
def guards():
    """The guard of a study with the keys, of one without, and a context of the site."""
    asked, plain = parse_study(_tables(STUDY + ASKED)), parse_study(_tables(STUDY))
    rows = table("north", SIZES["north"])
    return tuple(
        (Guard(study, "north", ("*",)), views.Context(table=rows, study=study, site="north", objects={}))
        for study in (asked, plain)
    )


def _view(without, **more):
    blocks = [{"terms": ["age"]}]
    return {"kind": "matrix", "rows": {"part": "train", "without": without, "patients": 500}, "blocks": blocks, **more}


def test_a_site_is_left_out_only_where_the_study_says_so(guards):
    (asked, context), (plain, other) = guards
    asked.admit("moments.power_sums", _view([3]), context)
    asked.admit("moments.power_sums", _view([0, 7]), context)
    plain.admit("moments.power_sums", _view([0, 1]), other)
    for guard, without in ((plain, [3]), (asked, [3, 4]), (asked, [8]), (asked, [-1]), (asked, [1.5]), (plain, [3.0])):
        with pytest.raises(SumRefused, match="leave out what is no fold"):
            guard.admit("moments.power_sums", _view(without), context)


def test_sums_of_own_figures_only_of_unseen_sites(guards):
    (asked, context), (plain, other) = guards
    scored = {"kind": "scored", "rows": {"part": "train", "endpoint": "outcome"}, "models": [], "of": "left_out_site"}
    asked.admit("heterogeneity.able", scored, context)
    with pytest.raises(SumRefused, match="it has none"):
        plain.admit("heterogeneity.able", scored, other)
    with pytest.raises(SumRefused, match="own figures"):
        asked.admit("heterogeneity.able", {**scored, "of": "final"}, context)
    rows = context.table
    with pytest.raises(SumRefused, match="minimum_count = 5 events or more"):
        asked.question("heterogeneity.able", scored, {"minimum_count": 1}, _scored(rows))


def _scored(rows):
    y = rows.columns["endpoint.outcome"]
    return Scored(np.zeros((len(y), 0)), y, np.zeros(len(y), np.int64))


def test_finished_figures_of_a_shared_part_need_the_key(guards):
    (asked, context), (plain, other) = guards
    rows = {"part": "train", "endpoint": "outcome"}
    asked.finished("figures.cohort", rows, context)
    for guard, what in ((plain, "figures.cohort"), (asked, "figures.table_one")):
        with pytest.raises(SumRefused, match="so no figures of one site leave"):
            guard.finished(what, rows, other)
    tiny = dataclasses.replace(context, table=table("tiny", 8), cache={})
    with pytest.raises(SumRefused, match="fewer than minimum_count = 5"):
        asked.finished("figures.cohort", rows, tiny)


def _tables(text):
    return tomllib.loads(text)
