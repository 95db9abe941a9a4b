"""The examples in docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("common", "strategies", "sites", "client", "server", "simulation", "cli")
# Found by their prompt, so that modules without examples need no import; `pytest --doctest-modules` would import a
# second copy of each under another name.
MODULES = sorted(
    "cohortium." + ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for part in PARTS
    for file in (ROOT / part).rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
