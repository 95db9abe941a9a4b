"""The command line: quick to answer, light to import, and one clean message for what a user can act on."""

import errno
import subprocess
import sys

import pytest

from cohortium.cli.main import COMMANDS, main

HEAVY = ("pandas", "numpy", "flwr", "torch", "SimpleITK", "pydantic", "rich", "typer", "ray")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom cohortium.cli.main import main\nmain(['--help'])\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "heavy: []"
    for name in COMMANDS:
        assert f"  {name} " in ran.stdout


@pytest.mark.parametrize("group", [name for name, entry in COMMANDS.items() if isinstance(entry, dict)])
def test_groups_list_their_commands(capsys, group):
    assert main([group, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS[group])


@pytest.mark.parametrize(
    "words", [(name,) if isinstance(entry, tuple) else (name, sub) for name, entry in COMMANDS.items() for sub in entry]
)
def test_every_command_has_help(capsys, words):
    assert main([*words, "--help"]) == 0
    assert "Usage: cohortium" in capsys.readouterr().out


def test_an_unknown_command_is_told_the_nearest(capsys):
    assert main(["simulat"]) == 2
    assert "no such command 'simulat'; did you mean 'simulate'?" in capsys.readouterr().err
    assert main(["site", "chek", "x"]) == 2
    assert "did you mean 'check'?" in capsys.readouterr().err


def test_a_user_s_error_is_one_message_without_a_traceback(capsys, tmp_path):
    assert main(["study", "check", str(tmp_path / "nowhere.toml")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: study file: there is no file")
    assert "Traceback" not in told.err


def test_an_interrupt_hints_at_resume(capsys, monkeypatch):
    import cohortium.cli.simulate as command

    def interrupted(study_dir: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "simulate", interrupted)
    assert main(["simulate", "x"]) == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cohortium ")


def test_a_disk_that_is_full_is_one_message(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")  # no file is named when it is met in writing

    monkeypatch.setattr("cohortium.cli.main.root", lambda: type("Root", (), {"main": lambda *_, **__: full()})())
    assert main(["features"]) == 2
    assert "No space left on device; check the path, its rights and the free space" in capsys.readouterr().err
