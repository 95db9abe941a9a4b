"""Simulate: whole studies equal the pooled analysis, survive kills, and give clear errors."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.metrics import brier_score_loss, roc_auc_score

from cohortium.common.errors import StudyError
from cohortium.common.ledger import Ledger
from cohortium.common.table import Table
from cohortium.simulation.simulate import simulate

BINARY = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.simple]
kind = "logistic"
predictors = ["age"]

[validation]
survival = "os"
compare = [["full", "simple"]]


[privacy]
score_resolution = "exact"
event_time_days = 1
"""


def run(folder, out, **options):
    return simulate(folder, out, **options)


def without_cost(out):
    content = json.loads((out / "results.json").read_text())
    return {key: value for key, value in content.items() if key not in ("cost", "engine")}


@pytest.fixture(scope="module")
def finished(write_study, tmp_path_factory):
    """One finished run that the tests below only read."""
    place = tmp_path_factory.mktemp("binary")
    folder = write_study(place / "study", BINARY)
    return folder, place / "out", run(folder, place / "out")


def test_coefficients_equal_the_pooled_fit(finished, pooled):
    folder, out, results = finished
    rows = pooled(out, folder).query("part == 'train'")
    x = pd.DataFrame({"(Intercept)": 1.0, "age": rows.age, "stage=2": rows.stage == 2, "stage=3": rows.stage == 3})
    x["marker"] = rows.marker.fillna(rows.marker.median())
    theirs = sm.Logit(rows.outcome, x.astype(float)).fit(disp=0, tol=1e-12)
    ours = pd.DataFrame(results["models"]["full"]["coefficients"]).set_index("term")
    np.testing.assert_allclose(ours.estimate, theirs.params[ours.index], rtol=1e-7)  # 2^-40 steps, tolerance 1e-9
    np.testing.assert_allclose(ours.se, theirs.bse[ours.index], rtol=1e-7)
    np.testing.assert_allclose(ours.p, theirs.pvalues[ours.index], rtol=1e-5)


@pytest.mark.parametrize("cohort", ["train", "internal", "external"])
def test_figures_can_be_recomputed_from_predictions(finished, pooled, cohort):
    _, out, results = finished
    rows = pooled(out).query("part == @cohort")
    for name, model in results["models"].items():
        figures = model["cohorts"][cohort]
        score = rows[f"score.{name}"]
        assert figures["n"] == len(rows)
        assert figures["events"] == rows.outcome.sum()
        assert figures["auc"]["estimate"] == pytest.approx(roc_auc_score(rows.outcome, score), abs=1e-9)
        assert figures["brier"] == pytest.approx(brier_score_loss(rows.outcome, score), abs=1e-9)
        at = figures["at_cutoff"]
        called = score >= at["cutoff"]
        assert at["tp"] == (called & (rows.outcome == 1)).sum()
        assert at["fp"] == (called & (rows.outcome == 0)).sum()


def test_two_runs_are_identical_and_cost_is_counted(finished, tmp_path):
    folder, out, results = finished
    again = tmp_path / "again"
    run(folder, again)
    assert without_cost(again) == without_cost(out)
    assert 0 < results["cost"]["secure_sums"] <= 60
    lines = [json.loads(line) for line in (out / "run" / "sums.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "sum" for line in lines) == results["cost"]["secure_sums"]


def test_no_message_of_a_training_site_holds_its_plain_numbers(finished):
    """Two sites' masked buffers of one sum must look like noise: no counts stand in the clear."""
    _, out, results = finished
    assert results["secure_aggregation"] is True
    for site in ("north", "east", "south", "west"):
        entries = list(Ledger(out / "sites" / site).entries())
        messages = [entry for entry in entries if entry["kind"] != "approval"]
        assert [entry["what"] for entry in entries if entry not in messages] == ["study", "roster"]
        assert {entry["outcome"] for entry in messages} <= {"sent", "refused"}
        assert all(entry["approved_by"] == ["simulate", "simulate"] for entry in messages)


NOISE = """
folds = 5

[model.noise]
kind = "logistic"
predictors = ["age", "marker"]
selection = [{ method = "screen", p = 0.5 }]

[model.stacked]
kind = "logistic"
predictors = ["model.noise"]
"""


def test_noise_has_no_cross_validated_signal(write_study, tmp_path):
    """Honest cross-validation: with a permuted outcome the pooled out-of-fold AUC is .5 within 3 standard errors."""
    folder = write_study(tmp_path / "study", NOISE, seed=5)
    rng = np.random.default_rng(11)
    for path in folder.glob("sites/*/patients.csv"):
        rows = pd.read_csv(path)
        rows["outcome"] = rng.permutation(rows.outcome)
        rows.to_csv(path, index=False)
    results = run(folder, tmp_path / "out")
    for model in results["models"].values():
        figures = model["cohorts"]["cross_validated"]
        n1, n0 = figures["events"], figures["n"] - figures["events"]
        null_se = np.sqrt((n1 + n0 + 1) / (12 * n1 * n0))  # of the Mann-Whitney statistic under no signal
        assert abs(figures["auc"]["estimate"] - 0.5) < 3 * null_se + figures["auc"]["bound"]


def test_a_run_is_not_overwritten(finished):
    folder, out, _ = finished
    with pytest.raises(StudyError, match="--resume"):
        run(folder, out)


def test_another_study_does_not_resume_this_run(finished):
    folder, out, _ = finished
    with pytest.raises(StudyError, match="another study"):
        run(folder, out, resume=True, seed=99)


def test_a_run_killed_at_any_point_resumes_to_the_same_results(finished, tmp_path):
    folder, out, _ = finished
    expected = without_cost(out)
    rng = np.random.default_rng(8)
    killed = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; from cohortium.simulation.simulate import simulate\n"
        f"simulate(Path({str(folder)!r}), Path({str(killed)!r}), resume=len(sys.argv) > 1)"
    )
    kills = 0
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *(["--resume"] if attempt else [])],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        # kill once the record has grown by a few entries: a point in the run, not in the start-up
        goal = len(list(killed.glob("run/journal/*.coh"))) + int(rng.integers(1, 9))
        while process.poll() is None and len(list(killed.glob("run/journal/*.coh"))) < goal:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    run(folder, killed, resume=True)
    assert without_cost(killed) == expected


def test_site_order_in_the_study_does_not_matter(finished, write_study, tmp_path):
    _, out, _ = finished
    folder = write_study(tmp_path / "study", BINARY)
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('["north", "east", "south"]', '["south", "north", "east"]'))
    run(folder, tmp_path / "other")
    ours, theirs = without_cost(tmp_path / "other")["models"], without_cost(out)["models"]
    assert ours["full"]["coefficients"] == theirs["full"]["coefficients"]


def test_prepared_tables_hold_what_the_site_file_maps(finished):
    _, out, _ = finished
    (path,) = (out / "sites" / "north" / "prepared").glob("*/table.parquet")
    table = Table.read(path)
    assert table.site == "north"
    assert set(table.part) == {"train", "internal"}
    assert set(np.unique(table.columns["stage"])) == {0.0, 1.0, 2.0}
