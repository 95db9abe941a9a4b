"""The ledger: every line lasts, no line is changed."""

import json
import stat
import threading

import pytest

from cohortium.common.errors import SiteError
from cohortium.common.ledger import FILE, Ledger

LINE = {"time": "2026-01-01T00:00:00.000+00:00", "kind": "sum", "statistics": ["cox.terms"], "bytes": 3, "study": "é"}


def test_lines_come_back_in_order(tmp_path):
    assert list(Ledger(tmp_path).entries()) == []
    for number in range(3):
        Ledger(tmp_path).append({**LINE, "bytes": number})
    assert list(Ledger(tmp_path).entries()) == [{**LINE, "bytes": number} for number in range(3)]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_line_is_synced_before_append_returns(tmp_path, monkeypatch):
    Ledger(tmp_path).append(LINE)  # a new file's folder is synced as well: look at the second line
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append((tmp_path / FILE).read_text()))
    Ledger(tmp_path).append({**LINE, "bytes": 4})
    assert json.loads(synced[0].splitlines()[1])["bytes"] == 4


def test_what_was_written_is_never_changed(tmp_path):
    ledger, before = Ledger(tmp_path), b""
    for number in range(5):
        ledger.append({**LINE, "bytes": number})
        after = (tmp_path / FILE).read_bytes()
        assert after.startswith(before)
        assert after.count(b"\n") == number + 1
        before = after


@pytest.mark.parametrize("kept", [1, 20, -1, -3])
def test_a_line_that_a_crash_cut_short(tmp_path, kept):
    ledger = Ledger(tmp_path)
    ledger.append(LINE)
    whole = (tmp_path / FILE).read_bytes()
    torn = whole + whole[:kept]
    (tmp_path / FILE).write_bytes(torn)
    assert list(ledger.entries()) == [LINE]
    ledger.append({**LINE, "bytes": 4})
    assert list(ledger.entries()) == [LINE, {**LINE, "bytes": 4}]
    assert (tmp_path / FILE).read_bytes().startswith(torn)


@pytest.mark.parametrize("damage", [b"{not json}\n", b"[1]\n", b"\xff\xfe\n", b"\n"])
def test_a_damaged_line_is_named(tmp_path, damage):
    Ledger(tmp_path).append(LINE)
    with (tmp_path / FILE).open("ab") as file:
        file.write(damage)
    with pytest.raises(SiteError, match="line 2"):
        list(Ledger(tmp_path).entries())


def test_lines_of_overlapping_processes_do_not_mix(tmp_path):
    def write(number):
        for _ in range(10):
            Ledger(tmp_path).append({**LINE, "run": "x" * 5000, "bytes": number})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["bytes"] for entry in Ledger(tmp_path).entries()) == sorted(list(range(4)) * 10)


def test_a_newline_stays_inside_its_line(tmp_path):
    Ledger(tmp_path).append({**LINE, "run": "a\nb", "study": "\u2028"})
    assert len(list(Ledger(tmp_path).entries())) == 1


@pytest.mark.parametrize("value", [float("nan"), b"bytes"])
def test_what_is_no_json_is_not_written(tmp_path, value):
    with pytest.raises((TypeError, ValueError)):
        Ledger(tmp_path).append({"value": value})
    assert not (tmp_path / FILE).exists()
