"""Log-rank tests stratified by a variable, through a whole run: equal to survdiff on the sites' own rows."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.survfunc import survdiff

from cohortium.cli.main import main
from cohortium.common.errors import StudyError
from cohortium.common.study import load_study
from cohortium.server.releases import releases
from cohortium.simulation.simulate import simulate
from tests.simulation.prepared import sums_sent

STUDY = """
[model.age]
kind = "cox"
endpoint = "os"
predictors = ["age"]

[model.marker]
kind = "cox"
endpoint = "os"
predictors = ["marker"]

[validation]
logrank_strata = ["stage"]
"""


@pytest.fixture(scope="module")
def run(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("strata")
    folder = write_study(place / "study", STUDY, primary="os", sizes={"north": 90, "east": 80, "south": 70, "west": 60})
    simulate(folder, place / "out")
    return folder, place / "out", json.loads((place / "out" / "results.json").read_text())


@pytest.mark.parametrize("cohort", ["train", "external"])
def test_equals_survdiff(run, pooled, cohort):
    _, out, results = run
    patients = pooled(out)
    assert set(patients.columns) >= {"subgroup.stage"}
    patients = patients[patients["part"] == cohort]
    step = 30
    for name in ("age", "marker"):
        figures = results["models"][name]["cohorts"][cohort]["survival"]
        high = (patients[f"score.{name}"] >= figures["cutoff"] - 1e-9).astype(int)
        time = np.floor(patients["time"] / step)
        chi2, p = survdiff(time, patients["death"], high, strata=patients["subgroup.stage"])
        assert figures["log_rank_stratified"]["stage"] == pytest.approx({"chi2": chi2, "p": p, "strata": 3}, rel=1e-7)


def test_it_is_listed_and_reported(run, capsys):
    folder, out, _ = run
    study = load_study(folder)
    mine = [one for one in releases(study) if one.statistic == "survival.exits_by_group"]
    assert any("train, each level of stage" in one.purposes for one in mine)
    assert "survival.exits_by_group" in sums_sent(out)
    assert "stratified by stage" in (out / "report.html").read_text()
    assert main(["study", "releases", str(folder)]) == 0
    assert "survival.log_rank_stratified" in capsys.readouterr().out


def test_a_level_that_a_site_holds_of_few_patients_withholds_the_test_alone(write_study, tmp_path):
    folder = write_study(tmp_path / "study", STUDY, primary="os")
    path = folder / "sites" / "north" / "patients.csv"
    frame = pd.read_csv(path)
    third = frame.index[frame["stage"] == 3]
    frame.loc[third[2:], "stage"] = 1
    frame.to_csv(path, index=False)
    simulate(folder, tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["age"]["cohorts"]["train"][
        "survival"
    ]
    assert "fewer than minimum_count = 5" in figures["log_rank_stratified"]["stage"]["withheld"]
    assert figures["log_rank"]["chi2"] >= 0


@pytest.mark.parametrize(("given", "told"), [('["age"]', "logrank_strata"), ('["nothing"]', "nothing")])
def test_only_variables_with_levels(run, tmp_path, given, told):
    folder, *_ = run
    shutil.copy(folder / "study.toml", tmp_path / "study.toml")
    text = (tmp_path / "study.toml").read_text().replace('["stage"]\n', f"{given}\n", 1)
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(StudyError, match=told):
        load_study(tmp_path)


def test_a_study_without_the_key_keeps_its_hash(run, tmp_path):
    folder, *_ = run
    text = (folder / "study.toml").read_text()
    for name, without in (
        ("a", text.replace('logrank_strata = ["stage"]', "")),
        ("b", text.replace('["stage"]\n', "[]\n")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.toml").write_text(without)
    assert load_study(tmp_path / "a").hash == load_study(tmp_path / "b").hash != load_study(folder).hash
