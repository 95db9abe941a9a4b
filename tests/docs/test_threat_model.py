"""The threat model names a test for each protection; each is there, and its numbers are those of the protocol."""

import ast
import re
from pathlib import Path

from cohortium.cli.main import COMMANDS
from cohortium.common.sum_setup import threshold

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_named_test_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 25
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_every_mechanism_names_a_test():
    table = PAGE.split("## What each mechanism gives")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 15
    assert [row for row in rows if "tests/" not in row] == []


def test_every_named_command_exists():
    for group, command in re.findall(r"`cohortium (study|site|federation) (\w+)", PAGE):
        assert command in COMMANDS[group]


def test_the_thresholds_are_those_of_the_protocol():
    rows = {
        cells[0]: [int(cell) for cell in cells[1:]]
        for cells in (re.split(r" *\| *", line.strip("| ")) for line in PAGE.splitlines())
        if cells[0].startswith(("hospitals n", "T", "hospitals that may", "accomplices")) and cells[-1].isdigit()
    }
    sites, least, missing, accomplices = rows.values()
    assert least == [threshold(n, 3) for n in sites]
    assert missing == [n - t for n, t in zip(sites, least, strict=True)]
    # fewer than 2T - n, and two honest hospitals at least
    assert accomplices == [min(2 * t - n - 1, n - 2) for n, t in zip(sites, least, strict=True)]
