"""A hospital's node is killed in the middle of a deployed run: the run stops by name, and goes on when it is back."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cohortium.simulation.engine_deployment import cohortium

PAGE = Path(__file__).parents[2] / "docs" / "first-federation"
SITES = ("north", "east", "south")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study of docs/first-federation.md, as a folder that `simulate` reads."""
    here = tmp_path / "study"
    shutil.copytree(PAGE, here)
    (here / "sites").mkdir()
    monkeypatch.chdir(here)
    runpy.run_path("make_patients.py")
    for site in SITES:
        (here / site).rename(here / "sites" / site)
    text = (here / "study.toml").read_text()
    (here / "study.toml").write_text(text + "\n[federation]\nround_timeout_s = 90.0\nretries = 0\n")
    return here


def kill_node(workspace: Path) -> int:
    """SIGKILL to the node and the worker of a site, as a power cut would; how many were hit."""
    hit = 0
    for file in (workspace / "online").glob("*.pid"):
        os.killpg(int(file.read_text().split()[0]), signal.SIGKILL)
        hit += 1
    return hit


@pytest.mark.deployment
def test_a_killed_node_stops_the_run_by_name_and_the_resumed_run_ends_the_same(study, tmp_path):
    out = tmp_path / "out"
    arguments = ["simulate", str(study), "--engine", "deployment", "--out", str(out), "--quiet"]
    command = [sys.executable, "-c", "import sys; from cohortium.cli.main import main; sys.exit(main())", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while running.poll() is None and len(list(out.glob("run/journal/*.coh"))) < 4:
        time.sleep(0.02)
    assert running.poll() is None, running.communicate()[0]
    assert kill_node(out / "sites" / "south") == 2
    said = running.communicate(timeout=300)[0]
    assert running.returncode == 2
    assert "south" in said
    assert "resume" in said
    before = len(list(out.glob("run/journal/*.coh")))

    cohortium([*arguments, "--resume"])
    resumed = json.loads((out / "results.json").read_text())
    assert len(list(out.glob("run/journal/*.coh"))) > before >= 4
    cohortium(["simulate", str(study), "--out", str(tmp_path / "alone"), "--quiet"])
    alone = json.loads((tmp_path / "alone" / "results.json").read_text())
    assert {key for key in alone if alone[key] != resumed[key]} <= {"engine", "cost"}
