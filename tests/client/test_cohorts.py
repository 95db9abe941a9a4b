"""Cohorts: what a person sees before approving other patients than were summed, and what no approval allows."""

import numpy as np
import pytest

from cohortium.cli.main import main
from cohortium.client.cohorts import changes
from cohortium.client.standing import runtime_folder
from cohortium.common.errors import SiteError
from cohortium.common.study import load_study
from cohortium.common.sum_cohort import Cohort, rows_of
from cohortium.common.sum_store import SumStore
from cohortium.common.table import Table
from cohortium.sites.approvals import read_approvals
from cohortium.sites.prepared import TABLE, prepared_folder

STUDY = """
[study]
name = "wards"
primary = "outcome"

[endpoint.outcome]
kind = "binary"
column = "outcome"

[[variable]]
name = "age"
kind = "continuous"
unit = "years"
range = [0, 120]

[split]
train = ["a", "b", "c"]

[model.full]
kind = "logistic"
predictors = ["age"]

[privacy]
minimum_count = 10
"""


@pytest.fixture
def place(tmp_path):
    """A site that has summed patients 0 to 49, and a study to prepare others for."""
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "site.toml").write_text('[site]\nname = "a"\nworkspace = "work"\n[data]\npatients = "none.csv"\n')
    workspace = tmp_path / "work"
    store = SumStore(workspace, runtime_folder(workspace))
    store.begin("study", "run", bytes(32))
    rows = rows_of(store.secret(), [f"p{i}" for i in range(50)])
    store.use("run", 1, roster=b"sites", cohorts=[Cohort("train", rows, 10)])
    return tmp_path


def prepare(place, numbers):
    study = load_study(place)
    ids = np.array([f"p{i}" for i in numbers])
    table = Table("a", ids, np.full(len(ids), "train"), {"age": np.full(len(ids), 60.0)})
    table.write(prepared_folder(place / "work", study.hash) / TABLE)
    return study


def approve(place, *more):
    return main(["site", "approve", "--cohort", str(place / "study.toml"), "--site", str(place / "site.toml"), *more])


def test_a_person_sees_the_difference_and_approves_it(place, capsys, monkeypatch):
    study = prepare(place, range(20, 60))
    (change,) = changes(study, place / "work")
    assert (change.patients, change.before, change.differ, change.shared) == (40, 50, 30, 30)
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert approve(place)
    assert not read_approvals(place / "work").hashes("cohort")
    assert not approve(place, "--yes")
    assert (
        "train: 40 patients; of 50 summed before, 30 are among them, and 30 are in one of the two only"
        in capsys.readouterr().out
    )
    assert read_approvals(place / "work").hashes("cohort") == (change.digest,)


def test_the_same_patients_need_no_approval(place, capsys):
    prepare(place, range(50))
    assert not approve(place, "--yes")
    assert "nothing is to be approved" in capsys.readouterr().out


def test_a_few_patients_less_cannot_be_approved(place):
    study = prepare(place, range(48))
    with pytest.raises(SiteError, match=r"2 patients differ .* at least minimum_count = 10 must"):
        changes(study, place / "work")


def test_a_study_that_is_not_prepared(place):
    with pytest.raises(SiteError, match="not prepared"):
        changes(load_study(place), place / "work")
