"""Worker: answers each message of a site's node in a fresh process that starts warm.

Flower's own SuperExec starts a new Python for every message and pays its imports (2 to 4 s of a core). This one keeps a
clean process that has imported what an answer needs and forks it (the standard library's fork server): the answer still
runs in a process of its own that ends with it, so no state passes from one message to the next, and starts in 20 ms.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from cohortium.common import naps

PRELOAD = [
    "cohortium.client.app",
    "cohortium.client.bundle_gate",
    "cohortium.sites.patients",
    "flwr.supernode.runtime.run_clientapp",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
]
"""What answering from a prepared table imports; neither torch nor SimpleITK is among it."""


def answer(*, runtime_api_address: str, token: str, parent_pid: int) -> None:
    """Answer one message; runs in the forked process."""
    from flwr.supernode.runtime import run_clientapp

    from cohortium.client import bundle_gate

    bundle_gate.close()
    naps.shorten_pull_retries()
    run_clientapp.run_clientapp(
        runtime_api_address=runtime_api_address,
        token=token,
        insecure=True,  # the node's runtime API: loopback only, tasks handed out against the shared secret
        parent_pid=parent_pid,
        runtime_dependency_install=False,
    )


class WarmExecutor:
    """A Flower `Executor` that forks a warm process for each client task and accepts no other kind of task."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._processes: list[BaseProcess] = []

    def warm(self) -> None:
        """Import now, not when the first message comes."""
        forkserver.ensure_running()

    def get_eligible_capacity(self, supported_task_types: set[Any], **_kwargs: Any) -> tuple[set[Any], set[str]]:
        """Only client apps: a coordinator cannot make a site run agents, models or connectors."""
        from flwr.supercore.constant import TaskType

        return supported_task_types & {TaskType.CLIENT_APP}, set()

    def wait_for_capacity(self, *_args: Any, **_kwargs: Any) -> None:
        """There is always room: the node hands out one message at a time."""

    def launch(self, spec: Any) -> Any:
        """Fork a process that answers the task."""
        from flwr.supercore.superexec.executor.types import LaunchResult

        task = {"runtime_api_address": spec.runtime_api_address, "token": spec.token, "parent_pid": os.getpid()}
        process = self._context.Process(target=answer, kwargs=task, daemon=True)
        process.start()
        self._processes.append(process)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Forget the processes that have ended."""
        self._processes = [process for process in self._processes if process.is_alive()]

    def close(self) -> None:
        """Nothing to release: forked processes watch this one and end with it."""


def main() -> None:
    """`flower-superexec` with the warm executor; same arguments.

    Raises
    ------
    RuntimeError
        Flower lacks the name that is replaced here.
    """
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec import run_superexec

    if not hasattr(run_superexec, "get_executor"):
        raise RuntimeError("this Flower has no run_superexec.get_executor; install the pinned version")
    executor = WarmExecutor()
    executor.warm()
    run_superexec.get_executor = lambda *_args, **_kwargs: executor  # pyright: ignore[reportPrivateImportUsage]
    flower_superexec()
