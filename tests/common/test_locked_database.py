"""The locked database: all or nothing, one process at a time, and a generation that every change raises."""

import shutil
import threading

import pytest

from cohortium.common.locked_database import LockedDatabase, generation

SCHEMA = "CREATE TABLE IF NOT EXISTS number (value INTEGER); CREATE TABLE IF NOT EXISTS other (value INTEGER);"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "numbers.sqlite"


def add(path, value):
    """As a fresh process does."""
    with LockedDatabase(path, SCHEMA).transaction() as database:
        database.execute("INSERT INTO number VALUES (?)", (value,))


def numbers(path):
    with LockedDatabase(path, SCHEMA).transaction() as database:
        return [row[0] for row in database.execute("SELECT value FROM number ORDER BY value")]


def test_only_changes_raise_the_generation(path):
    assert generation(path) == 0
    assert not path.exists()
    assert numbers(path) == []
    assert generation(path) == 0
    add(path, 1)
    add(path, 2)
    assert numbers(path) == [1, 2]
    assert generation(path) == 2


def test_what_fails_leaves_nothing(path):
    add(path, 1)

    def failing():
        with LockedDatabase(path, SCHEMA).transaction() as database:
            database.execute("INSERT INTO number VALUES (2)")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        failing()
    assert numbers(path) == [1]
    assert generation(path) == 1


def test_an_older_copy_has_a_lower_generation(path, tmp_path):
    add(path, 1)
    shutil.copy(path, tmp_path / "backup")
    add(path, 2)
    shutil.copy(tmp_path / "backup", path)
    assert numbers(path) == [1]
    assert generation(path) == 1


def test_changes_at_the_same_time_are_all_kept(path):
    threads = [threading.Thread(target=lambda: [add(path, 1) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(path) == [1] * 20
    assert generation(path) == 20
