"""A database that is put back from a backup while the ledger stays: nothing is answered until the newest is back."""

import json
import shutil

import numpy as np
import pytest

from cohortium.client.meter import Meter
from cohortium.common.ledger import Ledger
from cohortium.common.locked_database import generation
from cohortium.common.privacy_accountant import Accountant
from cohortium.common.table import Table
from tests.client.test_door import RUN, Hospital, refusal
from tests.simulation.prepared import run_on_tables

STUDY = """
[study]
name = "restored"
primary = "outcome"
seed = 5

[[variable]]
name = "age"
kind = "continuous"

[endpoint.outcome]
kind = "binary"
column = "outcome"

[split]
train = ["a", "b", "c"]

[model.full]
kind = "logistic"
predictors = ["age"]

[privacy]
released_numbers = 100000
"""
STORES = ("privacy.sqlite", "released.sqlite", "sums.sqlite")


def table(site):
    rng = np.random.default_rng(ord(site))
    age = rng.normal(60, 9, 40)
    outcome = (rng.random(40) < 1 / (1 + np.exp((60 - age) / 9))).astype(float)
    names = np.array([f"{site}{i}" for i in range(40)])
    return Table(
        site=site, patient_id=names, part=np.full(40, "train"), columns={"endpoint.outcome": outcome, "age": age}
    )


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A site after a run, in which it also answered under noise; with `STORES` as they were a little earlier."""
    place = tmp_path_factory.mktemp("restored")
    run_on_tables(place, STUDY, {site: table(site) for site in "abc"})
    site = Hospital(place, place, "a")
    noised(site, b"one")
    (place / "backup").mkdir()
    for name in STORES:
        shutil.copy(site.workspace / name, place / "backup" / name)
    noised(site, b"two")
    Meter(site.workspace, site.study, 100_000).charge({b"another": 1})
    assert list(site.ask({"kind": "hello", "study": site.study, "run": RUN})) == ["hello"]
    return site, place / "backup"


def noised(site, query):
    terms = {"study": site.study, "part": "train", "statistic": "x", "rho": 0.1, "budget": 1.0}
    Accountant(site.workspace).answer(query, **terms, make=lambda: [np.zeros(1, np.int64)])


def lines(site):
    return list(Ledger(site.workspace).entries())


@pytest.mark.parametrize("how", ["older", "gone"])
@pytest.mark.parametrize("name", STORES)
def test_nothing_leaves_until_the_newest_is_back(hospital, tmp_path, name, how):
    site, backup = hospital
    store = site.workspace / name
    shutil.copy(store, tmp_path / name)
    shutil.copy(backup / name, store) if how == "older" else store.unlink()
    before = generation(store)
    for kind in ("hello", "flow", "sum", "sign", "unmask", "figures", "finish"):
        told = refusal(site.ask({"kind": kind, "study": site.study, "run": RUN}))
        assert told.startswith(f"restored database: {name} of this site is older than its ledger")
        assert "put its newest copy back" in told
        last = lines(site)[-1]
        assert (last["kind"], last["outcome"], last["study"]) == (kind, "refused", site.study)
    assert generation(store) == before
    shutil.copy(tmp_path / name, store)
    assert "flow" in site.ask({"kind": "flow", "study": site.study, "run": RUN})
    assert lines(site)[-1]["stores"] == {name: generation(site.workspace / name) for name in STORES}


def test_a_site_that_was_killed_before_its_line_answers_again(hospital, monkeypatch):
    """The database is ahead of the ledger then: nothing had left."""
    site, _ = hospital

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cohortium.client.door.Ledger.append", killed)
        with pytest.raises(KeyboardInterrupt):
            site.ask({"kind": "hello", "study": site.study, "run": RUN})
    assert generation(site.workspace / "sums.sqlite") >= lines(site)[-1]["stores"]["sums.sqlite"]
    assert list(site.ask({"kind": "hello", "study": site.study, "run": RUN})) == ["hello"]


def test_the_ledger_notes_the_databases_of_every_message(hospital):
    site, _ = hospital
    told = [json.loads(line) for line in (site.workspace / "ledger.jsonl").read_text().splitlines()]
    sums = [line["stores"] for line in told if line["kind"] == "sum" and line["outcome"] == "sent"]
    for name in ("sums.sqlite", "released.sqlite"):
        noted = [stores[name] for stores in sums]
        assert noted == sorted(noted)
        assert noted[-1] > noted[0]
