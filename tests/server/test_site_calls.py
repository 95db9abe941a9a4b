"""Site calls: lost, late, damaged and mixed-up answers end in the same results, or in an error and a run to resume."""

import json

import numpy as np
import pytest

from cohortium.client import door
from cohortium.common.codec import pack, unpack
from cohortium.common.errors import CohortiumError, SumRefused, SumVoid
from cohortium.common.transport import Failure
from cohortium.server.run import run_study
from cohortium.simulation.simulate import simulate

STUDY = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age"]

[federation]
retries = 2
"""
SIZES = {"north": 30, "east": 30, "south": 30, "west": 12}


NONSENSE = {
    "hello": {"site": "south"},
    "flow": {"given": 9, "excluded": {}, "used": 8},
    "features": [],
    "made_by": {},
    "figures": {"cohorts": 1},
    "arrays": [1],
    "done": 1,
}


class Doors:
    """The sites' doors, with something between them and the coordinator: ``between(kind, site, n, reply, replies)``.

    `n` counts the requests of this kind that the site was given before; `replies` are the true ones by site.
    """

    def __init__(self, places, between=lambda kind, site, n, reply, replies: reply):
        self.places = places
        self.sites = tuple(sorted(places))
        self.between = between
        self.asked = {}

    def ask(self, requests, *, timeout_s):
        assert timeout_s > 0
        true, got = {}, {}
        for site, data in requests.items():
            site_file, workspace = self.places[site]
            true[site] = door.answer(data, site_file=site_file, workspace=workspace)
        for site, data in requests.items():
            kind = unpack(data)["kind"]
            n = self.asked[kind, site] = self.asked.get((kind, site), -1) + 1
            got[site] = self.between(kind, site, n, true[site], true)
        return got


@pytest.fixture(scope="module", params=[True, False], ids=["masked", "plain"])
def federation(request, write_study, tmp_path_factory):
    """Prepared and approved sites, and ``run(out, transport, resume)``."""
    place = tmp_path_factory.mktemp("calls")
    switch = "" if request.param else "\n[privacy]\nsecure_aggregation = false\n"
    folder = write_study(place / "study", STUDY + switch, sizes=SIZES)
    out = place / "out"
    simulate(folder, out)
    places = {site: (folder / "sites" / site / "site.toml", out / "sites" / site) for site in SIZES}

    def run(where, between=None, *, resume=False):
        doors = Doors(places, between) if between else Doors(places)
        run_study(out / "run" / "study.toml", where, transport=doors, engine="in-process",
                  roster_file=out / "run" / "roster.toml", resume=resume)  # fmt: skip
        return numbers(where)

    return run, numbers(out), request.param


def numbers(out):
    content = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    return {key: value for key, value in content.items() if key != "cost"}


def flipped(data, at=-1):
    return data[:at] + bytes([data[at] ^ 1]) + data[at:][1:]


def test_faults_that_pass_are_asked_again(federation, tmp_path):
    """Each once: a lost answer, another site's, garbage, an answer of the round before, a killed site process."""
    run, expected, _ = federation
    kept = {}

    def between(kind, site, n, reply, replies):
        before = kept.get((kind, site), reply)
        kept[kind, site] = reply
        if kind == "flow" and n == 0 and site == "west":
            return Failure("lost")
        if kind != "sum":
            return reply
        return {
            ("north", 1): Failure("the site's app process died: see its own log"),  # its number t is used up
            ("east", 4): replies["south"][:40],
            ("south", 7): b"",
            ("west", 10): pack({"refused": "no"}),
            ("east", 13): pack({"overflow": [0.5]}),
            ("south", 16): pack({"site": "south"}),
            ("north", 18): before if expected["secure_aggregation"] else pack({"arrays": [np.zeros(3)]}),
        }.get((site, n), reply)

    assert run(tmp_path / "out", between) == expected


def test_another_site_s_answer_is_no_answer(federation, tmp_path):
    run, expected, masked = federation
    if not masked:
        pytest.skip("in the clear an answer bears no name; the connection tells who speaks")

    def between(kind, site, n, reply, replies):
        return replies["north"] if site == "east" and (kind, n) in {("sum", 2), ("hello", 0)} else reply

    with pytest.raises(SumVoid, match="east"):
        run(tmp_path / "out", lambda kind, site, n, reply, replies: between(kind, site, 2, reply, replies))
    assert run(tmp_path / "other", between) == expected


def test_a_bit_that_flips_in_the_terms_of_a_sum_voids_it(federation, tmp_path):
    run, expected, masked = federation
    if not masked:
        pytest.skip("in the clear there is nothing that does not cancel")

    def between(kind, site, n, reply, _replies):
        if kind == "sum" and (site, n) in {("east", 1), ("north", 4), ("south", 7)}:
            return flipped(reply, {"east": -1, "north": 30, "south": 0}[site])
        return reply

    assert run(tmp_path / "out", between) == expected


@pytest.mark.parametrize("stage", ["flow", "hello", "sum", "figures", "finish"])
def test_a_site_that_stays_away_stops_the_run_and_resume_ends_with_the_same_results(federation, tmp_path, stage):
    run, expected, masked = federation
    if stage == "hello" and not masked:
        pytest.skip("there is no set-up without masks")
    away = "west" if stage == "figures" else "south"

    def between(kind, site, n, reply, _replies):
        gone = kind == stage and site == away and n >= (9 if stage == "sum" else 0)
        return Failure("the site is offline") if gone else reply

    with pytest.raises(SumVoid, match=f"{away}: the site is offline"):
        run(tmp_path / "out", between)
    assert not (tmp_path / "out" / "results.json").exists()
    assert run(tmp_path / "out", resume=True) == expected


@pytest.mark.parametrize("stage", ["flow", "hello", "sum", "figures", "finish"])
@pytest.mark.parametrize("answer", [b"COH1", pack({}), pack({"refused": [[0]]}), pack(NONSENSE)])
def test_a_site_that_only_answers_nonsense_is_named(federation, tmp_path, stage, answer):
    run, _, masked = federation
    if stage == "hello" and not masked:
        pytest.skip("there is no set-up without masks")
    with pytest.raises(SumVoid, match=r"west|south"):
        run(
            tmp_path / "out",
            lambda kind, site, n, reply, replies: answer if kind == stage and site in ("west", "south") else reply,
        )


def test_a_refusal_of_a_whole_message_stops_at_once_with_its_rule(federation, tmp_path):
    run, _, _ = federation
    no = pack({"refused": [[None, "statistic", "not on the allow list of site south"]]})
    with pytest.raises(SumRefused, match="site south, statistic: not on the allow list"):
        run(tmp_path / "out", lambda kind, site, n, reply, replies: no if (kind, site) == ("sum", "south") else reply)


def test_an_item_that_was_not_asked_cannot_be_refused(federation, tmp_path):
    run, _, _ = federation
    for no in ({"refused": [[99, "x", "y"]]}, {"overflow": [99]}, {"overflow": [-1]}):
        with pytest.raises(CohortiumError):
            run(tmp_path / f"out{len(str(no))}", lambda kind, site, n, reply, replies, no=no:
                pack(no) if (kind, site) == ("sum", "south") else reply)  # fmt: skip
