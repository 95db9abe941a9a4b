"""The client app: place and name from the site's own configuration, and what may be said when it fails."""

from pathlib import Path

import pytest

from cohortium.client import app as client_app
from cohortium.client import site_log
from cohortium.common.transport import Failure
from cohortium.simulation.engines import in_process


@pytest.fixture
def places(tmp_path):
    """Site file and workspace of two sites."""
    places = {}
    for site in ("va", "oslo"):
        (tmp_path / site).mkdir()
        places[site] = (tmp_path / f"{site}.toml", tmp_path / site)
    return places


def test_the_door_gets_the_bytes_and_the_sites_own_place(places, monkeypatch):
    def answer(request: bytes, *, site_file: Path, workspace: Path) -> bytes:
        return request + site_file.name.encode() + workspace.name.encode()

    monkeypatch.setattr(client_app.door, "answer", answer)
    replies = in_process(places, lambda transport: transport.ask({"va": b"1", "oslo": b""}, timeout_s=1.0))
    assert replies == {"va": b"1va.tomlva", "oslo": b"oslo.tomloslo"}


def test_an_exception_stays_in_the_sites_own_log(places, monkeypatch, capfd):
    def answer(request: bytes, *, site_file: Path, workspace: Path) -> bytes:
        raise ValueError("patient 17 is 430 years old")

    monkeypatch.setattr(client_app.door, "answer", answer)
    replies = in_process(places, lambda transport: transport.ask({"va": b""}, timeout_s=1.0))
    assert replies == {"va": Failure("site failed: see its own log")}
    assert "patient 17" in (places["va"][1] / site_log.NAME).read_text()
    assert not (places["oslo"][1] / site_log.NAME).exists()
    assert "patient" not in "".join(capfd.readouterr())
