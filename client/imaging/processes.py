"""Processes: an executor whose calls fail one by one.

Images are decoded by C libraries, which a damaged file may crash. The executor of Python's library then gives up all
calls that were waiting and does not say which one it was. Here each process works on one call at a time, so the call
that ended it is known: that case cannot be used, and another process goes on with the next one.
"""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from threadpoolctl import threadpool_limits

from cohortium.common.errors import CaseError

CRASHED = "reading or measuring its files crashed"
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
"""Exit codes of a process that somebody ended, or the system for lack of memory: the case is not to blame."""
SPAWN = get_context("spawn")


class Processes(Executor):
    """`jobs` processes, started when they are first needed.

    A call raises what its function raised, ``CaseError`` where it crashed its process, and ``BrokenProcessPool`` where
    the process was ended from outside.

    Parameters
    ----------
    initializer : callable
        Run once in each process.
    """

    def __init__(self, jobs: int, initializer: Callable[[], None]) -> None:
        self.jobs = jobs
        self._initializer = initializer
        self._threads = ThreadPoolExecutor(jobs)
        self._own = threading.local()
        self._started: list[_Worker] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function in one of the processes."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 -- Executor's
        """End the processes after their calls."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        for worker in self._started:
            worker.pipe.close()
        for worker in self._started:
            worker.process.join()

    def _call(self, fn: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        worker = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = _Worker(self._initializer)
            self._started.append(worker)
        try:
            worker.pipe.send((fn, args, kwargs))
            raised, result = worker.pipe.recv()
        except (EOFError, ConnectionError):
            self._own.worker = None
            raise worker.died() from None
        if raised:
            raise result
        return result


class Here(Executor):
    """No process beside this one: a call is done when it was submitted."""

    jobs = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call a function, in one thread of the numeric libraries as in a process: their sums hang on how many add."""
        future: Future = Future()
        try:
            with threadpool_limits(1):
                future.set_result(fn(*args, **kwargs))
        except Exception as failed:  # noqa: BLE001 -- it is raised where the result is asked for
            future.set_exception(failed)
        return future


class _Worker:
    """One process and the pipe to it.

    Raises
    ------
    BrokenProcessPool
        It did not get as far as its first call.
    """

    def __init__(self, initializer: Callable[[], None]) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, initializer), daemon=True)
        self.process.start()
        theirs.close()  # else its end is never seen
        try:
            self.pipe.recv()
        except EOFError:
            raise BrokenProcessPool("a process did not start") from None

    def died(self) -> Exception:
        """What a call that ended the process raises."""
        self.process.join()
        code = self.process.exitcode or 0
        if code in FROM_OUTSIDE:
            return BrokenProcessPool("a process was ended from outside")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return CaseError(CRASHED, f"the process that worked on this case ended with {how}")


def _serve(pipe: Connection, initializer: Callable[[], None]) -> None:
    """Work until the other end is closed."""
    initializer()
    pipe.send("started")
    while True:
        try:
            fn, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            reply = False, fn(*args, **kwargs)
        except Exception as failed:  # noqa: BLE001 -- it is raised where the call was made
            reply = True, failed
        pipe.send(reply)
