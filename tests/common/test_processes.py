"""Processes: started in the background, found again, stopped with everything they started, gone with their parent."""

import os
import subprocess
import sys
import time

import pytest

from cohortium.common import processes
from cohortium.common.errors import SiteError

NAP = "import time; time.sleep(60)"


@pytest.fixture
def naptime(tmp_path, monkeypatch):
    """A programme that sleeps, and a folder to run it from."""
    (tmp_path / "napping.py").write_text("import time\n\n\ndef nap():\n    print('napping')\n    time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tmp_path / "run"
    processes.stop(tmp_path / "run")


def test_started_found_and_stopped(naptime):
    processes.start(naptime, "nap", "napping:nap", [], flower_home=naptime)
    assert processes.running(naptime, "nap")
    with pytest.raises(SiteError, match="already runs"):
        processes.start(naptime, "nap", "napping:nap", [], flower_home=naptime)
    assert processes.stop(naptime) == ["nap"]
    assert not processes.running(naptime, "nap")
    assert processes.stop(naptime) == []


def test_what_a_crash_left_behind_makes_room_and_what_runs_does_not(naptime):
    processes.start(naptime, "nap", "napping:nap", [], flower_home=naptime)
    with pytest.raises(SiteError, match="nap already run"):
        processes.clear(naptime, ["nap"])
    processes.clear(naptime, ["nap", "partner that crashed"])
    assert not processes.running(naptime, "nap")


def test_a_recycled_process_id_is_never_signalled(naptime):
    naptime.mkdir()
    (naptime / "nap.pid").write_text(f"{os.getpid()} 1\n")  # alive, but it started at another time
    assert not processes.running(naptime, "nap")
    assert processes.stop(naptime) == []


def test_it_ends_with_the_process_it_was_started_for(naptime):
    parent = subprocess.Popen([sys.executable, "-c", NAP])
    processes.start(naptime, "nap", "napping:nap", [], flower_home=naptime, while_pid=parent.pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while processes.running(naptime, "nap") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes.running(naptime, "nap")


def test_the_environment_phones_nobody(tmp_path):
    environment = processes.environment(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_HOME"] == str(tmp_path)
