"""Engines carry the same messages: in-process is deterministic, large payloads travel, results come back."""

from cohortium.client import app as client_app
from cohortium.simulation.engines import in_process


def test_in_process_asks_in_the_order_of_names_and_returns_the_bodys_result(tmp_path, monkeypatch):
    asked = []

    def answer(request, *, site_file, workspace):
        asked.append(site_file.stem)
        return bytes(len(request))

    monkeypatch.setattr(client_app.door, "answer", answer)
    places = {site: (tmp_path / f"{site}.toml", tmp_path) for site in ("c", "a", "b")}

    def body(transport):
        return [transport.ask(dict.fromkeys(transport.sites, b"x" * 3_000_000), timeout_s=1.0) for _ in range(2)]

    first, second = in_process(places, body)
    assert asked == ["a", "b", "c"] * 2
    assert first == second == dict.fromkeys("abc", bytes(3_000_000))
