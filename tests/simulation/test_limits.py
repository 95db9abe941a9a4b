"""Limits of a whole run: the budget of released numbers, quorum by name, and who contributed to what."""

import json
import re
import shutil

import pytest

from cohortium.client.meter import Meter
from cohortium.common.errors import SumRefused
from cohortium.simulation.simulate import simulate

SIZES = {"north": 40, "east": 40, "south": 40, "west": 20}
MODEL = """
[model.full]
kind = "logistic"
predictors = ["age"]

[privacy]
released_numbers = {}
"""


def test_a_budget_is_kept_across_runs_and_a_repeated_run_costs_nothing(write_study, tmp_path):
    folder = write_study(tmp_path / "study", MODEL.format(100_000), sizes=SIZES)
    first = simulate(folder, tmp_path / "out")
    released = first["released_numbers"]
    assert released["limit"] == 100_000
    assert 0 < released["numbers"] < 100_000
    assert "warning" not in released
    lines = [json.loads(line) for line in (tmp_path / "out/sites/north/ledger.jsonl").read_text().splitlines()]
    sums = [line for line in lines if line["kind"] == "sum" and line["outcome"] == "sent"]
    assert sum(line["numbers"] for line in sums) == released["numbers"]
    assert {tuple(line["sites"]) for line in sums} == {("east", "north", "south", "west")}
    assert first["contributors"]["train"]["logistic.terms"][0]["sites"] == ["east", "north", "south"]
    assert set(first["contributors"]) == {"train"}  # the external part lies at one site: figures, no sums

    # what a site answered counts, also where another one then refused and the sum came to nothing
    spent = max(Meter(tmp_path / "out/sites" / site, first["study"]["hash"], None).released() for site in SIZES)
    assert spent >= released["numbers"]
    # a budget that just suffices: a second run asks the same and is charged nothing
    exact = write_study(tmp_path / "exact", MODEL.format(spent), sizes=SIZES)
    for _ in range(2):
        found = simulate(exact, tmp_path / "again")
        assert found["released_numbers"]["numbers"] == released["numbers"]
        assert found["refused"] == first["refused"]
        shutil.rmtree(tmp_path / "again/run/journal")


def test_a_budget_that_does_not_suffice_stops_the_fit(write_study, tmp_path):
    folder = write_study(tmp_path / "study", MODEL.format(60), sizes=SIZES)
    with pytest.raises(SumRefused, match=re.escape("of released_numbers = 60 numbers have left this site")):
        simulate(folder, tmp_path / "out")
