"""Preview: a site sees what would leave, what of it would be finished figures, and what has left already."""

import re

import pytest

from cohortium.cli.main import main
from cohortium.common.ledger import FILE, Ledger
from cohortium.common.study import load_study

STUDY = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage"]

[validation]
survival = "os"
"""


@pytest.fixture(scope="module")
def folder(write_study, tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("preview") / "study", STUDY, sizes={"north": 60, "west": 40})
    for site in ("north", "west"):
        assert main(["site", "prepare", str(folder), "--site", str(folder / "sites" / site), "--quiet"]) == 0
    return folder


def shown(folder, site, capsys):
    capsys.readouterr()
    assert main(["site", "preview", str(folder), "--site", str(folder / "sites" / site)]) == 0
    return capsys.readouterr().out


def test_a_training_site(folder, capsys):
    page = shown(folder, "north", capsys)
    assert "logistic.terms" in page
    assert "finished figures" not in page
    assert page.endswith("already left in this study, by the ledger:\n  nothing\n")


def test_a_site_that_is_validated_alone(folder, capsys):
    page = shown(folder, "west", capsys)
    (line,) = [line for line in page.splitlines() if line.startswith("  external:")]
    assert line.startswith("  external: of full: n, events, auc,")
    assert "survival.kaplan_meier" in line
    assert "  Table 1 of external: age, stage, marker" in page


def test_a_site_of_an_external_part_that_is_summed(write_study, tmp_path, capsys):
    """It rehearses fits on its own patients, of which nothing leaves, and sees what leaves of its scores."""
    sizes = {"north": 60, "east": 50, "south": 50, "west": 60, "ulm": 60, "graz": 60}
    folder = write_study(tmp_path / "study", STUDY + 'explain = ["shap"]\n', sizes=sizes)
    text = (folder / "study.toml").read_text().replace('external = ["west"]', 'external = ["west", "ulm", "graz"]')
    (folder / "study.toml").write_text(text)
    assert main(["site", "prepare", str(folder), "--site", str(folder / "sites" / "west"), "--quiet"]) == 0
    page = shown(folder, "west", capsys)
    lines = re.findall(r"^  (\w+\.\w+) +(train|external) +(\d+) +(\d+) +(\d+) +(\d+) ", page, re.MULTILINE)
    rows = {(name, part): tuple(map(int, numbers)) for name, part, *numbers in lines}
    assert "went no further" not in page
    for name in ("logistic.terms", "discrimination.histogram", "survival.exits_by_group"):
        asked, zeros, *_ = rows[name, "train"]
        assert asked == zeros > 0
    for name in ("discrimination.histogram", "calibration.terms", "cutoff.above", "survival.exits_by_group"):
        asked, zeros, counts, numbers = rows[name, "external"]
        assert asked > zeros == 0
        assert counts + numbers > 0


def test_what_left_already(folder, capsys):
    study, ledger = load_study(folder).hash, Ledger(folder / "sites" / "north" / "workspace")
    for kind, run, outcome in [
        ("flow", "a", "sent"),
        ("sum", "a", "sent"),
        ("sum", "b", "sent"),
        ("sum", "b", "refused"),
    ]:
        ledger.append({"kind": kind, "study": study, "run": run, "outcome": outcome, "bytes": 1000})
    ledger.append({"kind": "sum", "study": "f" * 64, "run": "c", "outcome": "sent", "bytes": 5})
    ledger.append({"kind": "approval", "what": "study", "study": study, "outcome": "approved"})
    *_, flow, sent, refused, runs = shown(folder, "north", capsys).splitlines()
    assert flow.split() == ["flow", "sent", "1", "messages", "1,000", "bytes"]
    assert sent.split() == ["sum", "sent", "2", "messages", "2,000", "bytes"]
    assert refused.split() == ["sum", "refused", "1", "messages", "1,000", "bytes"]
    assert runs == "  in 2 runs; line by line: cohortium site log"
    path = ledger.path.with_name(FILE)
    path.write_text(path.read_text().replace('"c"', '"d"'))
    assert "and more may have left: ledger, line 6 does not follow" in shown(folder, "north", capsys)
