"""A finished study whose coordinator turns on its sites: what it may ask, and what the sums would tell it."""

import numpy as np
import pytest

from cohortium.client import door
from cohortium.common.codec import pack, unpack
from cohortium.common.federation import PooledSites
from cohortium.common.ledger import Ledger
from cohortium.common.study import load_study
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_server import ServerSum
from cohortium.common.sum_setup import roster_of
from cohortium.common.table import Table
from cohortium.simulation.simulate import simulate
from cohortium.strategies import views

STUDY = """
internal_fraction = 0.2

[model.full]
kind = "logistic"
predictors = ["age", "marker"]

[model.head]
kind = "network"
head = [4]
rounds = 1
predictors = ["age", "marker"]

[validation]
survival = "os"
subgroups = ["stage"]
"""
SIZES = {"north": 60, "east": 60, "south": 60, "west": 20}
TRAINING = ("north", "east", "south")
FINE = {"fill": np.zeros(2), "centre": np.zeros(2), "scale": np.ones(2), "blocks": [{"terms": ["age", "marker"]}]}


class Victims:
    """The training sites: `sums` is what a coordinator reads after unmasking, `refusal` what a site's door says."""

    def __init__(self, folder, out):
        self.study = load_study(out)
        self.places = {site: (folder / "sites" / site / "site.toml", out / "sites" / site) for site in SIZES}
        self.contexts = {site: self._context(workspace) for site, (_, workspace) in self.places.items()}

    def _context(self, workspace):
        (path,) = workspace.glob("prepared/*/table.parquet")
        table = Table.read(path)
        return views.Context(table=table, study=self.study, site=table.site, objects={})

    def rows(self, view, sites=TRAINING):
        return [views.build(view, self.contexts[site]) for site in sites]

    def sums(self, view, sites=TRAINING):
        return PooledSites(self.rows(view, sites))

    def ask(self, site, statistic, view, **parameters):
        item = {"statistic": statistic.name, "view": view, "parameters": parameters}
        request = {
            "kind": "sum", "study": self.study.hash, "run": "a" * 32, "mode": "whole", "t": 1,
            "slot": [view["rows"]["part"]], "statistic": statistic.name, "roster": [], "layout": [],
            "parameters": pack({"items": [pack(item)], "objects": []}),
        }  # fmt: skip
        return self.send(site, request)

    def masked(self, site, hellos, t, statistic, view, **parameters):
        """What a site answers to a sum that lacks nothing, over a roster of hellos."""
        empty = views.Context(Table.empty(list(self.contexts[site].table.columns)), self.study, site, {})
        shape = statistic.local(views.build(view, empty), **parameters)
        layout = Layout.of([np.asarray(field) for field in shape], bound=2.0**20, sites=len(hellos))
        item = {"statistic": statistic.name, "view": view, "parameters": parameters}
        one = ServerSum(
            study=self.study.hash, run="c" * 32, mode="whole", t=t, roster=roster_of(hellos), layout=layout,
            slot=(view["rows"]["part"],), statistic=statistic.name, minimum_sites=3,
            parameters=pack({"items": [pack(item)], "objects": []}),
        )  # fmt: skip
        return self.send(site, {"kind": "sum", **one.request})

    def send(self, site, message):
        site_file, workspace = self.places[site]
        return unpack(door.answer(pack(message), site_file=site_file, workspace=workspace))

    def ledger(self, site):
        return list(Ledger(self.places[site][1]).entries())

    def refusal(self, site, statistic, view, **parameters):
        """What a site holds against the question itself; empty where it only lacks a roster to sum over."""
        reply = self.ask(site, statistic, view, **parameters)
        assert list(reply) == ["refused"]
        ((place, what, why),) = reply["refused"]
        return "" if place is None else f"{what}: {why}"


@pytest.fixture(scope="session")
def victims(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("attacks")
    folder = write_study(place / "study", STUDY, sizes=SIZES, seed=2)
    simulate(folder, place / "out")
    return Victims(folder, place / "out")


@pytest.fixture(scope="session")
def raw_design():
    """Age and marker as they are, of a view's patients."""
    return FINE
