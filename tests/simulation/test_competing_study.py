"""A study with competing events, from the sites' tables to the figures: those of the pooled patients."""

import json

import numpy as np
import pandas as pd
import pytest

from cohortium.common.errors import CohortiumError
from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.server.report.build import build_report
from cohortium.simulation.simulate import simulate
from cohortium.strategies import competing_risks
from tests.simulation.prepared import sums_sent

TABLES = """
internal_fraction = 0.3

[model.risk]
kind = "cox"
strata = "none"
predictors = ["age", "stage"]

[validation]
cutoff = "log_rank"

[privacy]
event_time_days = 1
score_resolution = "exact"
"""


@pytest.fixture(scope="module")
def run(write_study, tmp_path_factory):
    """About a third of those censored have died of something else."""
    place = tmp_path_factory.mktemp("competing")
    folder = write_study(place / "study", TABLES, primary="os")
    study = folder / "study.toml"
    study.write_text(study.read_text().replace('event = "death"', 'event = "death"\ncompeting = [2, 3]'))
    for i, path in enumerate(sorted(folder.glob("sites/*/patients.csv"))):
        frame = pd.read_csv(path)
        rival = (frame["death"] == 0) & (np.random.default_rng(i).random(len(frame)) < 0.3)
        frame.loc[rival, "death"] = np.where(np.arange(len(frame)) % 2, 2, 3)[rival]
        frame.to_csv(path, index=False)
    simulate(folder, place / "out")
    return place / "out"


def test_figures_are_those_of_the_pooled_patients(run, pooled):
    results = json.loads((run / "results.json").read_text())
    patients = pooled(run)
    for part in ("train", "internal"):
        figures = results["models"]["risk"]["cohorts"][part]["survival"]
        some = patients[patients["part"] == part]
        cause = (some["death"] + 2 * some["competing.death"]).to_numpy(int)
        high = (some["score.risk"] >= figures["cutoff"] - 1e-9).to_numpy(int)
        table = np.zeros((2, int(some["time"].max()) + 1, 3), np.int64)
        np.add.at(table, (high, some["time"].to_numpy(int), cause), 1)
        found = figures["competing_risks"]
        assert (found["events"], found["competing"]) == ((cause == 1).sum(), (cause == 2).sum())
        assert found["competing"] > 5
        assert found["gray"]["chi2"] == pytest.approx(competing_risks.gray(table)[0], rel=1e-9)
        expected = competing_risks.aalen_johansen(np.arange(table.shape[1]), table[1], minimum_count=5)
        np.testing.assert_allclose(
            np.array(found["cumulative_incidence"]["high"])[:, 1], expected.incidence, atol=1e-12
        )


def test_the_cut_off_says_that_it_was_chosen(run):
    results = json.loads((run / "results.json").read_text())
    test = results["models"]["risk"]["cutoff_test"]
    assert test["cutoff"] == results["models"]["risk"]["cohorts"]["internal"]["survival"]["cutoff"]
    assert test["p"] < test["p_corrected"]
    train = results["models"]["risk"]["cohorts"]["train"]["survival"]
    assert train["log_rank"]["chi2"] == pytest.approx(test["chi2"], rel=1e-9)
    assert train["calibration_slope"]["estimate"] == pytest.approx(1, abs=0.01)  # on its own patients
    page = build_report(run).read_text()
    assert "corrected for the choice" in page
    assert "competing event" in page


def test_every_sum_was_listed(run):
    study = load_study(run)
    listed = {one.statistic for one in releases(study)}
    sent = sums_sent(run)
    assert "competing_risks.causes" in sent
    assert sent.keys() <= listed


@pytest.mark.parametrize("codes", ["[1]", "[0, 2]", "[2, 2.0]"])
def test_codes_that_mean_something_else_are_refused(codes, write_study, tmp_path):
    folder = write_study(tmp_path / "study", TABLES, primary="os")
    study = folder / "study.toml"
    study.write_text(study.read_text().replace('event = "death"', f'event = "death"\ncompeting = {codes}'))
    with pytest.raises(CohortiumError, match="other than 0 and 1, each once"):
        load_study(folder)


def test_an_endpoint_without_competing_events_has_the_hash_it_had(write_study, tmp_path):
    folder = write_study(tmp_path / "study", TABLES, primary="os")
    assert "competing" not in load_study(folder).endpoint["os"].model_dump()
