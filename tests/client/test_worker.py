"""The warm executor takes client tasks only and starts each in a process of its own."""

import subprocess
import sys

from flwr.supercore.constant import TaskType

from cohortium.client import worker


def test_only_client_tasks_are_taken():
    types, bundles = worker.WarmExecutor().get_eligible_capacity(set(TaskType), insecure=True)
    assert types == {TaskType.CLIENT_APP}
    assert bundles == set()


def test_what_is_preloaded_imports_neither_torch_nor_simpleitk():
    code = f"import sys, importlib; [importlib.import_module(m) for m in {worker.PRELOAD!r}]; "
    code += "print([m for m in ('torch', 'SimpleITK', 'ray', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
