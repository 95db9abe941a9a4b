"""A fold or a left-out site that cannot be fitted: the run goes on, and what needs it is withheld with the reason."""

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from cohortium.common.errors import NotIdentifiable
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.strategies import views
from cohortium.strategies.view_patients import folds_of
from tests.simulation.prepared import run_on_tables

STUDY = """
[study]
name = "rare"
primary = "outcome"
seed = 5

[endpoint.outcome]
kind = "binary"
column = "outcome"

[[variable]]
name = "age"
kind = "continuous"

[[variable]]
name = "rare"
kind = "binary"
levels = [0, 1]

[split]
train = ["north", "east", "south", "west"]
folds = 3

[model.plain]
kind = "logistic"
predictors = ["age"]

[model.full]
kind = "logistic"
predictors = ["age", "rare"]

[model.firth]
kind = "logistic"
penalty = "firth"
predictors = ["age", "rare"]
"""
VALIDATION = """
[validation]
leave_one_site_out = true
by_site = true
compare = [["full", "plain"], ["firth", "plain"]]
subgroups = ["rare"]
"""
SITES = ("north", "east", "south", "west")
ODD = "north-007"
"""The one patient who has the rare finding but not the outcome: no fit without them is finite."""


def table(site: str) -> Table:
    rng = np.random.default_rng(SITES.index(site))
    n = 80
    age = rng.normal(60, 9, n).round()
    y = (rng.random(n) < special.expit((age - 60) / 8)).astype(float)
    patient_id = np.array([f"{site}-{i:03d}" for i in range(n)])
    rare = (y == 1) & (rng.random(n) < 0.4)
    odd = patient_id == ODD
    y, rare = np.where(odd, 0.0, y), (rare | odd).astype(float)
    columns = {"age": age, "rare": rare, "endpoint.outcome": y}
    return Table(site=site, patient_id=patient_id, part=np.full(n, "train"), columns=columns)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("unfitted")
    return run_on_tables(place, STUDY + VALIDATION, {site: table(site) for site in SITES}), place


def fold_of_the_odd(place) -> int:
    study = load_study(place)
    context = views.Context(table=table("north"), study=study, site="north", objects={})
    return int(folds_of(context)[context.table.patient_id == ODD][0])


def test_what_needs_the_fold_or_the_site_is_withheld_with_reason_and_remedy(run):
    results, place = run
    model = results["models"]["full"]
    fold = fold_of_the_odd(place)
    assert set(model["unfitted"]) == {f"fold {fold}", "site north"}
    for cohort, where in (("cross_validated", f"fold {fold}"), ("leave_one_site_out", "site north")):
        why = model["cohorts"][cohort]["withheld"]
        assert why.startswith(f"study.toml [model.full] without {where}: rare separates the outcome")
        assert 'use penalty = "firth"' in why
        for level in (0, 1):
            assert model["cohorts"][f"{cohort}/subgroup:rare={level}"] == {"withheld": why}
        for site in SITES:
            assert model["cohorts"][f"{cohort}/site:{site}"] == {"withheld": why}
            assert results["held_by"][f"{cohort}/site:{site}"] == [site]
        assert {"what": f"figures of {cohort}", "why": why} in results["refused"]
    assert model["cohorts"]["train"]["n"] == 4 * 80  # the final fit stands
    assert "no cut-off was chosen" in model["cohorts"]["train"]["at_cutoff"]["undefined"]
    pairs = {(entry["cohort"], entry["a"]) for entry in results["comparisons"]}
    assert ("train", "full") in pairs
    assert ("cross_validated", "full") not in pairs
    assert ("cross_validated", "firth") in pairs


def test_other_models_lose_nothing(run):
    results, place = run
    patients = pd.concat([pd.read_csv(place / "sites" / site / "predictions.csv") for site in SITES])
    for name in ("plain", "firth"):
        assert "unfitted" not in results["models"][name]
        for cohort, column in (("cross_validated", "score"), ("leave_one_site_out", "loso")):
            figures = results["models"][name]["cohorts"][cohort]
            area = roc_auc_score(patients["outcome"], patients[f"{column}.{name}"])
            assert abs(figures["auc"]["estimate"] - area) <= figures["auc"]["bound"] + 1e-12


def test_predictions_are_empty_where_there_is_no_fit(run):
    _, place = run
    for site in SITES:
        rows = pd.read_csv(place / "sites" / site / "predictions.csv")
        assert rows["score.full"].count() == 0
        assert (rows["loso.full"].count() == 0) == (site == "north")
        assert rows["fit.full"].count() == len(rows)


def test_the_report_says_so(run):
    _, place = run
    page = (place / "out" / "report.html").read_text()
    assert "rare separates the outcome" in page


def test_a_study_all_of_whose_models_miss_a_fold_still_has_a_report(tmp_path):
    alone = STUDY[: STUDY.index("[model.plain]")] + '[model.full]\nkind = "logistic"\npredictors = ["age", "rare"]\n'
    model = run_on_tables(tmp_path, alone, {site: table(site) for site in SITES})["models"]["full"]
    assert set(model["cohorts"]["cross_validated"]) == {"withheld"}
    assert model["cohorts"]["train"]["auc"]["estimate"] > 0.5


def test_a_fit_that_the_sites_refuse_without_a_fold_is_withheld_too(tmp_path):
    """Eleven columns: a quarter of all 56 patients, more than a quarter of one half."""
    rng = np.random.default_rng(2)
    names = [f"x{i}" for i in range(11)]

    def small(site):
        columns = {name: rng.standard_normal(14) for name in names}
        columns["endpoint.outcome"] = (np.arange(14) % 2).astype(float)
        ids = np.array([f"{site}-{i}" for i in range(14)])
        return Table(site=site, patient_id=ids, part=np.full(14, "train"), columns=columns)

    variables = "".join(f'[[variable]]\nname = "{name}"\nkind = "continuous"\n' for name in names)
    head = STUDY[: STUDY.index("[[variable]]")].replace("seed = 5", "seed = 6")
    split = '[split]\ntrain = ["north", "east", "south", "west"]\nfolds = 2\n'
    fit = f'[model.wide]\nkind = "logistic"\npenalty = "firth"\npredictors = {names}\n'
    model = run_on_tables(tmp_path, head + variables + split + fit, {site: small(site) for site in SITES})["models"][
        "wide"
    ]
    why = model["cohorts"]["cross_validated"]["withheld"]
    assert "[model.wide] without fold 0: logistic.terms: second moments of 11 columns over 28 patients" in why
    assert "screen first" in why
    assert model["cohorts"]["train"]["n"] == 56


STACKED = """
[model.stacked]
kind = "logistic"
predictors = ["model.full", "age"]
"""


def test_a_final_fit_that_stands_on_the_fold_stops_the_run_and_says_on_which(tmp_path):
    told = r"\[model.stacked\]: its predictor model.full lacks scores .* \[model.full\] without fold \d: rare separates"
    with pytest.raises(NotIdentifiable, match=told):
        run_on_tables(tmp_path, STUDY + STACKED, {site: table(site) for site in SITES})


def test_what_is_stacked_on_apparent_scores_is_withheld_too(tmp_path):
    apparent = STUDY + STACKED + 'stack = "apparent"\n[validation]\ncutoff = 0.5\n'
    models = run_on_tables(tmp_path, apparent, {site: table(site) for site in SITES})["models"]
    why = models["stacked"]["cohorts"]["cross_validated"]["withheld"]
    assert "its predictor model.full lacks scores" in why
    assert "rare separates the outcome" in why
    assert models["stacked"]["cohorts"]["train"]["at_cutoff"]["cutoff"] == 0.5  # the study's own number needs no score
    assert models["plain"]["cohorts"]["cross_validated"]["n"] == 4 * 80
