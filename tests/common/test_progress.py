import io
import subprocess
import sys

import pytest

from cohortium.common.progress import NullProgress, Progress


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def prepare(stream, *, quiet=False, seconds_a_case=4.0):
    clock = Clock()
    progress = Progress(quiet=quiet, stream=stream, clock=clock)
    with progress.stage("prepare site A", total=5) as step:
        for case in range(5):
            clock.now += seconds_a_case
            step.advance(note=f"case {case}")
    return stream.getvalue().splitlines()


def test_a_log_gets_plain_lines_at_most_one_every_ten_seconds():
    assert prepare(io.StringIO()) == [
        "prepare site A: begins, 5 to do",
        "prepare site A: 3 of 5, 8.0 s left, case 2",
        "prepare site A: 5 of 5, done in 20.0 s",
    ]


def test_quiet_leaves_one_line_a_stage():
    assert prepare(io.StringIO(), quiet=True) == ["prepare site A: 5 of 5, done in 20.0 s"]
    assert prepare(Terminal(), quiet=True) == ["prepare site A: 5 of 5, done in 20.0 s"]


def test_a_terminal_shows_the_stage_and_keeps_its_last_line():
    assert any("prepare site A: 5 of 5, done in 20.0 s" in line for line in prepare(Terminal()))


def test_a_stage_that_fails_says_how_far_it_came():
    stream = io.StringIO()

    def interrupted():
        with Progress(stream=stream, clock=Clock()).stage("fit", total=9) as step:
            step.advance(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().splitlines()[-1] == "fit: 4 of 9, stopped after 0.0 s"


def test_time_left_is_unknown_before_the_first_and_without_a_total():
    with NullProgress().stage("fit") as step:
        step.advance()
        assert step.seconds_left is None
    with NullProgress().stage("fit", total=2) as step:
        assert step.seconds_left is None
        step.advance()
        assert step.seconds_left is not None


def test_stages_lie_inside_one_another():
    stream = Terminal()
    progress = Progress(stream=stream)
    with progress.stage("federate", total=1) as outer:
        with progress.stage("fit"):
            pass
        outer.advance()
    text = stream.getvalue()
    assert text.index("fit: done in") < text.index("federate: 1 of 1, done in")


def test_importing_it_does_not_import_rich():
    code = "import sys, cohortium.common.progress; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
