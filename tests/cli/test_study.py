"""Study and site commands, as a coordinator and a hospital type them."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from cohortium.cli.main import main
from cohortium.common.ledger import Ledger
from cohortium.common.roster import roster_of
from cohortium.common.study import load_study
from cohortium.sites.approvals import approved_study, read_approvals

STUDIES = Path(__file__).parents[1] / "data" / "studies"
ROWS = """patient_id,age,sex,stage,recurrence
p1,50,0,I,1
p2,60,1,II,0
p3,430,1,II,0
p4,61,1,,0
"""


@pytest.fixture
def hospital(tmp_path, monkeypatch):
    """A folder with a new study and a site file, as two people would leave it."""
    monkeypatch.chdir(tmp_path)
    assert main(["study", "init"]) == 0
    assert main(["site", "init", "site_a", "--study", "study.toml"]) == 0
    (tmp_path / "patients.csv").write_text(ROWS)
    return tmp_path


def test_a_new_study_checks_as_it_is(hospital, capsys):
    assert main(["study", "check", "study.toml"]) == 0
    assert f"hash       {load_study(hospital).hash}" in capsys.readouterr().out
    assert main(["study", "init"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_schema_takes_a_new_study(hospital, capsys):
    capsys.readouterr()
    assert main(["study", "schema"]) == 0
    jsonschema.validate(tomllib.loads((hospital / "study.toml").read_text()), json.loads(capsys.readouterr().out))


def test_check_counts_patients_and_says_why_not(hospital, capsys):
    capsys.readouterr()
    assert main(["site", "check", "study.toml"]) == 0
    shown = capsys.readouterr().out
    assert "given     4 rows" in shown
    assert "excluded  1: age out of range" in shown
    assert "case      p3: age out of range (430)" in shown
    assert "used      3" in shown
    assert "missing   1 of 3: stage" in shown


def test_check_names_what_is_not_there(hospital, capsys):
    (hospital / "patients.csv").write_text(ROWS.replace("stage", "Stadium"))
    assert main(["site", "check", "study.toml"]) == 2
    assert "column 'stage' is missing" in capsys.readouterr().err


def test_prepare_writes_the_table(hospital, capsys):
    assert main(["site", "prepare", "study.toml", "--quiet"]) == 0
    assert "prepared  3 of 4 patients" in capsys.readouterr().out
    assert list((hospital / "workspace" / "prepared").glob("*/table.parquet"))


def test_approve_by_typed_hash(hospital, capsys):
    study = load_study(hospital)
    assert main(["site", "approve", "study.toml", "--hash", "0" * 64, "--by", "dpo"]) == 2
    assert "ask the coordinator for the file that was meant" in capsys.readouterr().err
    assert main(["site", "approve", "study.toml", "--hash", study.hash, "--by", "dpo"]) == 0
    assert approved_study(hospital / "workspace", study.hash)[1].approved_by == "dpo"
    shown = capsys.readouterr().out
    assert "model      clinical (logistic): age, sex, stage" in shown


def test_approve_asks_and_takes_no(hospital, capsys, monkeypatch):
    monkeypatch.setattr("typer.confirm", lambda _: False)
    assert main(["site", "approve", "study.toml"]) == 2
    assert "was not approved; nothing was written" in capsys.readouterr().err
    assert read_approvals(hospital / "workspace").approved == {}


def test_approve_a_roster_and_the_opt_ins_of_a_study(hospital, capsys):
    roster_of({"site_a": "1" * 64}).write(hospital / "roster.toml")
    assert main(["site", "approve", "--roster", "roster.toml", "--yes"]) == 0
    assert main(["site", "approve"]) == 2
    assert "nothing to approve" in capsys.readouterr().err
    breast = str(STUDIES / "tcga_brca")
    assert main(["site", "approve", breast, "--yes"]) == 2
    assert main(["site", "approve", breast, "--yes", "--opt-in", "event_time_days"]) == 0
    assert len(read_approvals(hospital / "workspace").approved) == 2


MESSAGE = {
    "time": "2026-01-02T03:04:05+00:00", "study": "a" * 64, "kind": "sum", "statistics": ["moments.sums"],
    "parts": ["train"], "outcome": "sent", "bytes": 812, "sha256": "b" * 64, "approved_by": ["dpo", "dpo"],
}  # fmt: skip


def test_the_log_of_a_site(hospital, capsys):
    assert (
        main(["site", "approve", str(STUDIES / "tcga_brca"), "--yes", "--opt-in", "event_time_days", "--by", "dpo"])
        == 0
    )
    Ledger(hospital / "workspace").append(MESSAGE)
    capsys.readouterr()
    assert main(["site", "log", "--workspace", "workspace"]) == 0
    approval, line, last = capsys.readouterr().out.splitlines()
    assert approval.endswith("approval  tcga-brca  opted into event_time_days  approved by dpo")
    assert "moments.sums  train  sent  812 bytes" in line
    assert line.endswith("approved by dpo")
    digest = Ledger(hospital / "workspace").head().digest
    assert last == f"1 messages left this site; the ledger is whole: 2 lines, digest {digest}"
    assert main(["site", "log", "--workspace", "workspace", "--noted", digest.upper()]) == 0
    assert main(["site", "log", "--workspace", "workspace", "--noted", "f" * 64]) == 2
    assert "no line has the digest that was noted" in capsys.readouterr().err
    assert main(["site", "log", "--workspace", "nowhere"]) == 2


def test_the_log_finds_what_was_tampered_with(hospital, capsys):
    workspace = hospital / "workspace"
    workspace.mkdir()
    for _ in range(3):
        Ledger(workspace).append(MESSAGE)
    capsys.readouterr()
    assert main(["site", "log", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], told["broken"], told["lines"], len(told["entries"])) == (True, None, 3, 3)
    assert MESSAGE.items() <= told["entries"][0].items()
    path = workspace / "ledger.jsonl"
    path.write_text(path.read_text().replace("812", "811", 1))
    assert main(["site", "log"]) == 2
    shown = capsys.readouterr()
    assert (len(shown.out.splitlines()), "ledger, line 2 does not follow" in shown.err) == (1, True)
    assert main(["site", "log", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], "line 2" in told["broken"], len(told["entries"])) == (False, True, 1)
