import math
import operator
import os
import signal
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool

import pytest

from cohortium.client.imaging.processes import CRASHED, Processes
from cohortium.common.errors import CaseError


@pytest.fixture(scope="module")
def pool():
    with Processes(2, os.getpid) as pool:
        yield pool


def test_calls_are_answered_side_by_side(pool):
    futures = [pool.submit(operator.mul, n, n) for n in range(20)]
    wait(futures)
    assert [future.result() for future in futures] == [n * n for n in range(20)]
    assert list(pool.map(math.factorial, range(5))) == [1, 1, 2, 6, 24]
    with pytest.raises(ZeroDivisionError):
        pool.submit(operator.truediv, 1, 0).result()


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ((signal.raise_signal, signal.SIGSEGV), "signal SIGSEGV"),
        ((os.abort,), "signal SIGABRT"),
        ((os._exit, 3), "exit code 3"),
    ],
)
def test_only_the_call_that_crashed_its_process_fails(pool, end, how):
    before, crashed, after = pool.submit(math.sqrt, 4), pool.submit(*end), [pool.submit(math.sqrt, 9) for _ in range(5)]
    with pytest.raises(CaseError) as error:
        crashed.result()
    assert (error.value.reason, error.value.detail) == (
        CRASHED,
        f"the process that worked on this case ended with {how}",
    )
    assert before.result() == 2
    assert [future.result() for future in after] == [3] * 5


def test_a_process_that_was_killed_is_nobodys_fault(pool):
    with pytest.raises(BrokenProcessPool, match="from outside"):
        pool.submit(signal.raise_signal, signal.SIGKILL).result()
    assert pool.submit(math.sqrt, 16).result() == 4


def test_processes_that_cannot_start():
    with Processes(1, os.abort) as pool, pytest.raises(BrokenProcessPool, match="start"):
        pool.submit(math.sqrt, 4).result()
