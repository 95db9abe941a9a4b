"""The ledger: every line lasts, and no line can be changed, put in, taken out or moved unseen."""

import hashlib
import json
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from cohortium.common.errors import SiteError
from cohortium.common.ledger import FILE, HEAD_FILE, START, Ledger
from cohortium.common.locked_database import LockedDatabase

LINE = {"time": "2026-01-01T00:00:00.000+00:00", "kind": "sum", "statistics": ["cox.terms"], "bytes": 3, "study": "é"}


def filled(folder, lines=4, line=LINE):
    for number in range(lines):
        Ledger(folder).append({**line, "bytes": number})
    return (folder / FILE).read_bytes() if lines else b""


def said(ledger):
    """Lines without their place in the chain."""
    return [{k: v for k, v in entry.items() if k not in ("number", "previous")} for entry in ledger.entries()]


def is_broken(folder):
    try:
        list(Ledger(folder).entries())
    except SiteError:
        return True
    return False


def test_lines_come_back_in_order(tmp_path):
    assert list(Ledger(tmp_path).entries()) == []
    filled(tmp_path, 3)
    assert said(Ledger(tmp_path)) == [{**LINE, "bytes": number} for number in range(3)]
    assert [entry["number"] for entry in Ledger(tmp_path).entries()] == [1, 2, 3]
    for name in (FILE, HEAD_FILE):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_chain_is_the_stated_digest(tmp_path):
    """Anyone can follow it with other software: SHA-256 over the digest before and the line."""
    content, digest = filled(tmp_path), "0" * 64
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        assert (json.loads(line)["number"], json.loads(line)["previous"]) == (number, digest)
        digest = hashlib.sha256(digest.encode() + line).hexdigest()
    head = Ledger(tmp_path).head()
    assert (head.lines, head.digest, head.length) == (4, digest, len(content))
    assert json.loads((tmp_path / HEAD_FILE).read_bytes()) == {"lines": 4, "digest": digest, "length": len(content)}


def test_a_line_costs_one_sync_before_append_returns(tmp_path, monkeypatch):
    filled(tmp_path, 1)  # new files and their folder are synced as well: look at the second line
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append((tmp_path / FILE).read_text()))
    Ledger(tmp_path).append({**LINE, "bytes": 4})
    (seen,) = synced
    assert json.loads(seen.splitlines()[1])["bytes"] == 4


def test_what_was_written_is_never_changed(tmp_path):
    ledger, before = Ledger(tmp_path), b""
    for number in range(5):
        ledger.append({**LINE, "bytes": number})
        after = (tmp_path / FILE).read_bytes()
        assert after.startswith(before)
        assert after.count(b"\n") == number + 1
        before = after


# --- tampering ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FILE, HEAD_FILE])
def test_any_changed_byte_is_found(tmp_path, name):
    filled(tmp_path, 3, {"kind": "é"})
    content = (tmp_path / name).read_bytes()
    for at in range(len(content)):
        for flip in (0x01, 0x80, content[at] ^ ord("\n") or 0x02):  # the last makes a line end, or unmakes one
            changed = bytearray(content)
            changed[at] ^= flip
            (tmp_path / name).write_bytes(changed)
            assert is_broken(tmp_path), f"byte {at} of {name}"
    (tmp_path / name).write_bytes(content)
    assert not is_broken(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=some.data())
def test_lines_that_were_removed_moved_doubled_or_put_in_are_found(tmp_path, change):
    content = filled(tmp_path) if not (tmp_path / FILE).exists() else Ledger(tmp_path).path.read_bytes()
    lines = content.splitlines(keepends=True)
    others = [b"{}\n", b"\n", b"x", b'{"number":5}\n', lines[0].replace(b"0", b"9"), *lines]
    changed = b"".join(change.draw(some.lists(some.sampled_from(others), max_size=8)))
    # a started line at the end is what a crash leaves: it says nothing, and is passed over
    finished = changed[: changed.rfind(b"\n") + 1]
    try:
        (tmp_path / FILE).write_bytes(changed)
        assert is_broken(tmp_path) == (finished != content)
    finally:
        (tmp_path / FILE).write_bytes(content)


def test_a_tail_cut_off_anywhere_is_found(tmp_path):
    content = filled(tmp_path, 4, {})
    for kept in range(len(content)):
        (tmp_path / FILE).write_bytes(content[:kept])
        assert is_broken(tmp_path)
    (tmp_path / FILE).unlink()
    assert is_broken(tmp_path)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (lambda lines: [lines[0], lines[1].replace(b'"bytes":1', b'"bytes":7'), *lines[2:]], "line 3 does not follow"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 does not follow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 1 does not follow"),
        (lambda lines: lines[:-1], "line 4 is missing; by ledger.head the ledger had 4 lines"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"cox", b"cix")], "line 4 is not the one"),
        (lambda lines: [*lines, b"[1]\n"], "line 5 is not readable"),
        (lambda lines: [*lines, b"\xff\xfe\n"], "line 5 is not readable"),
    ],
)
def test_the_first_broken_line_is_named_and_those_before_it_are_told(tmp_path, tamper, named):
    lines = filled(tmp_path).splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(b"".join(tamper(lines)))
    told = []
    with pytest.raises(SiteError, match=named):
        told.extend(Ledger(tmp_path).entries())
    assert all(entry["kind"] == "sum" for entry in told)


@pytest.mark.parametrize("cut", ["line", "half a line", "everything", "head", "both but two lines"])
def test_a_broken_ledger_goes_on_and_stays_broken(tmp_path, cut):
    """The site must go on answering; the next lines must not mend what was done."""
    content = filled(tmp_path)
    kept = {"line": content.rfind(b"\n", 0, -1) + 1, "half a line": len(content) - 20, "everything": 0}
    two = content.index(b"\n", content.index(b"\n") + 1) + 1
    (tmp_path / FILE).write_bytes(content[: {**kept, "both but two lines": two}.get(cut, len(content))])
    if cut in ("head", "both but two lines"):
        (tmp_path / HEAD_FILE).unlink()
    for _ in range(3):
        before = (tmp_path / FILE).read_bytes()
        Ledger(tmp_path).append(LINE)
        assert (tmp_path / FILE).read_bytes().startswith(before)
        assert is_broken(tmp_path)


def test_a_ledger_written_anew_is_found_by_a_noted_digest(tmp_path):
    filled(tmp_path)
    noted = Ledger(tmp_path).head().digest
    filled(tmp_path, 2)
    assert Ledger(tmp_path).holds(noted)
    for name in (FILE, HEAD_FILE):
        (tmp_path / name).unlink()
    assert filled(tmp_path, 6)
    assert not is_broken(tmp_path)  # the chain has no secret ...
    Ledger(tmp_path).path.write_bytes(b"")
    (tmp_path / HEAD_FILE).unlink()
    Ledger(tmp_path).append({**LINE, "bytes": 99})
    assert not Ledger(tmp_path).holds(noted)  # ... a noted digest knows
    assert Ledger(tmp_path).holds(START)


# --- crashes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 20, -1, -3])
def test_a_line_that_a_crash_cut_short(tmp_path, kept):
    ledger = Ledger(tmp_path)
    whole = filled(tmp_path, 1)
    torn = whole + whole[:kept]
    (tmp_path / FILE).write_bytes(torn)
    assert said(ledger) == [{**LINE, "bytes": 0}]
    ledger.append({**LINE, "bytes": 4})
    ledger.append({**LINE, "bytes": 5})
    assert [entry["bytes"] for entry in ledger.entries()] == [0, 4, 5]
    assert [entry["number"] for entry in ledger.entries()] == [1, 2, 3]
    content = (tmp_path / FILE).read_bytes()
    assert content.startswith(torn)
    (tmp_path / FILE).write_bytes(content.replace(torn, whole + b"x" * (len(torn) - len(whole)), 1))
    assert is_broken(tmp_path)  # what a crash left is in the chain as well


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_crash_before_the_head_was_written(tmp_path, monkeypatch, lines):
    filled(tmp_path, lines - 1)
    with monkeypatch.context() as crash:
        crash.setattr(Ledger, "_write_head", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Ledger(tmp_path).append(LINE)
    assert is_broken(tmp_path) == (lines == 1)  # a first line without a head: until the next one is written
    Ledger(tmp_path).append(LINE)
    assert len(list(Ledger(tmp_path).entries())) == lines + 1


def test_an_older_head_after_a_power_failure(tmp_path):
    """The head is not synced on its own; the lines beyond it must follow from it."""
    filled(tmp_path, 2)
    older = (tmp_path / HEAD_FILE).read_bytes()
    content = filled(tmp_path, 3)
    (tmp_path / HEAD_FILE).write_bytes(older)
    assert len(list(Ledger(tmp_path).entries())) == 5
    (tmp_path / FILE).write_bytes(content.replace(b'"bytes":2', b'"bytes":7'))
    assert not is_broken(tmp_path)  # the very last line, beyond the head: the one change that a power failure hides
    (tmp_path / FILE).write_bytes(content)
    Ledger(tmp_path).append(LINE)
    assert len(list(Ledger(tmp_path).entries())) == 6


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


# --- the databases beside it ----------------------------------------------------------------------------------------


def changed(path):
    with LockedDatabase(path, "CREATE TABLE IF NOT EXISTS number (value INTEGER)").transaction() as database:
        database.execute("INSERT INTO number VALUES (1)")


def test_a_database_that_is_put_back_is_behind_its_ledger(tmp_path):
    ledger, store = Ledger(tmp_path), tmp_path / "a.sqlite"
    assert ledger.set_back() == []
    changed(store)
    ledger.append(LINE)
    assert ledger.set_back() == []
    backup = store.read_bytes()
    changed(store)
    ledger.append(LINE)
    changed(store)  # and killed before its line
    newest = store.read_bytes()
    assert ledger.set_back() == []
    for restore in (lambda: store.write_bytes(backup), store.unlink):
        restore()
        assert ledger.set_back() == ["a.sqlite"]
        ledger.append(LINE)  # what is said of it does not make it good
        assert ledger.set_back() == ["a.sqlite"]
    store.write_bytes(newest)
    assert ledger.set_back() == []
    assert [entry.get("stores") for entry in ledger.entries()] == [{"a.sqlite": n} for n in (1, 2, 2, 2)]


@pytest.mark.parametrize(
    "damage", [b"torn", b"x" * 70_000, b"{}]\n", b'{"stores": {"a.sqlite": "x"}}\n', b"[" * 9999 + b"\n"]
)
def test_behind_a_line_that_cannot_be_read_the_one_before_speaks(tmp_path, damage):
    changed(tmp_path / "a.sqlite")
    Ledger(tmp_path).append({**LINE, "run": "x" * 20_000})
    (tmp_path / "a.sqlite").unlink()
    with (tmp_path / FILE).open("ab") as file:
        file.write(damage)
    assert Ledger(tmp_path).set_back() == ([] if b"stores" in damage else ["a.sqlite"])


def test_processes_that_append_never_note_less(tmp_path):
    def write():
        for _ in range(5):
            changed(tmp_path / "a.sqlite")
            Ledger(tmp_path).append(LINE)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    noted = [entry["stores"]["a.sqlite"] for entry in Ledger(tmp_path).entries()]
    assert noted == sorted(noted)
    assert noted[-1] == 20
