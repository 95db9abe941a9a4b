"""One study, three engines, one result: everything in results.json but what it cost."""

import json
import shutil
from pathlib import Path

import pytest

from cohortium.simulation.engine_deployment import CommandError, cohortium

PAGE = Path(__file__).parents[2] / "docs" / "first-federation"
SITES = ("north", "east", "south")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study of docs/first-federation.md, as a folder that `simulate` reads."""
    import runpy

    here = tmp_path_factory.mktemp("study")
    shutil.copytree(PAGE, here, dirs_exist_ok=True)
    (here / "sites").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        runpy.run_path("make_patients.py")
    for site in SITES:
        (here / site).rename(here / "sites" / site)
    return here


def results(study: Path, out: Path, engine: str) -> dict:
    cohortium(["simulate", str(study), "--engine", engine, "--out", str(out), "--quiet"])
    return json.loads((out / "results.json").read_text())


@pytest.mark.deployment
def test_three_engines_one_result(study, tmp_path):
    found = {engine: results(study, tmp_path / engine, engine) for engine in ("in-process", "ray", "deployment")}
    for engine, content in found.items():
        assert content.pop("engine") == engine
        content.pop("cost")
    assert found["in-process"] == found["ray"]
    assert found["in-process"] == found["deployment"]


def test_a_failed_command_repeats_its_reason(tmp_path):
    with pytest.raises(CommandError, match=r"cohortium site stop: .*nowhere"):
        cohortium(["site", "stop", "--site", str(tmp_path / "nowhere.toml")])
