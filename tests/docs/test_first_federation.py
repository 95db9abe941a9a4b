"""docs/first-federation.md, executed as written: a coordinator and three hospitals on loopback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "first-federation.md"
SITES = ("north", "east", "south")


def commands(page: str) -> list[str]:
    """The lines behind a dollar sign in the page's console blocks, in their order."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the page was typed, and what the terminal said."""
    here = tmp_path_factory.mktemp("page")
    (here / "docs").symlink_to(PAGE.parent)
    programmes = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programmes}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    script = "set -e\n" + "\n".join(commands(PAGE.read_text()))
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=here, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield here / "recurrence", done.stdout
    finally:
        if (here / "recurrence").is_dir():
            stop = [f"cohortium site stop --site {site}/site.toml" for site in SITES]
            stop.append("cohortium federation stop coordinator")
            subprocess.run(["bash", "-c", "\n".join(stop)], cwd=here / "recurrence", env=environment, check=False)


@pytest.mark.deployment
def test_the_study_ran_over_three_connected_sites(walked):
    folder, said = walked
    assert "3 of 3 sites online" in said
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["engine"] == "deployment"
    assert [site["name"] for site in results["sites"]] == sorted(SITES)
    assert (folder / "run" / "report.html").stat().st_size > 10_000
    assert set(results["models"]) == {"marker"}
    assert results["cost"]["secure_sums"] <= 12  # each costs a second or more here


@pytest.mark.deployment
def test_the_same_study_in_process_gives_the_same_numbers(walked, tmp_path, monkeypatch):
    from cohortium.simulation.simulate import simulate

    folder, _ = walked
    study = tmp_path / "study"
    (study / "sites").mkdir(parents=True)
    (study / "study.toml").symlink_to(folder / "study.toml")
    for site in SITES:
        (study / "sites" / site).symlink_to(folder / site)
    alone = simulate(study, tmp_path / "out")
    deployed = json.loads((folder / "run" / "results.json").read_text())
    differing = {key for key in alone if alone[key] != deployed[key]}
    assert differing <= {"engine", "cost", "roster_hash"}  # simulated identities are others than those made by hand


@pytest.mark.deployment
def test_nothing_secret_was_printed_and_nothing_still_runs(walked):
    folder, said = walked
    assert "PRIVATE" not in said
    assert not list(folder.glob("**/*.pid"))
    for secret in ("coordinator/ca.key", "coordinator/executor.secret", "north/workspace/online/node.key"):
        assert (folder / secret).stat().st_mode & 0o077 == 0


def test_the_page_has_every_step():
    text = "\n".join(commands(PAGE.read_text()))
    for command in ("federation start", "site join", "federation enrol", "site approve", "site start", "run study"):
        assert f"cohortium {command}" in text
