"""Workers: the processes that measure images, of one thread each.

Apart from all else, so that a worker imports no more than it needs.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from cohortium.client.imaging.processes import Processes
from cohortium.common.errors import CaseError
from cohortium.sites.flow import Exclusion

DIED = (
    "a process that measures images was ended from outside, most likely for lack of memory; "
    "run prepare again with fewer jobs (finished cases are kept)"
)
"""Of an error that stops a site."""
FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What the libraries raise on a case that passed all checks."""


@contextmanager
def worker_pool(jobs: int) -> Iterator[Processes | None]:
    """Processes that measure images; None for one job, which needs none."""
    if jobs == 1:
        yield None
        return
    pool = Processes(jobs, _start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def answer(future: Future, patient_id: str) -> Any:
    """What came of a case; an `Exclusion` where its files crashed the process (processes.py)."""
    try:
        return future.result()
    except CaseError as crashed:
        return Exclusion(patient_id, crashed.reason, crashed.detail)


def _start_worker() -> None:
    """One thread a process; Ctrl-C is for the process that waits for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import SimpleITK as sitk
    from threadpoolctl import threadpool_limits

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threadpool_limits(1)
