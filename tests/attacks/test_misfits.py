"""Questions without an answer: a refusal is of one site, and at scales or bounds chosen with care it is a search."""

import shutil

import numpy as np
import pytest

from cohortium.client import door
from cohortium.client.meter import MISFITS, Meter
from cohortium.common.codec import pack, unpack
from cohortium.strategies import logistic, moments

TRAIN = {"part": "train", "endpoint": "outcome", "patients": 180}
AGE = {"rows": TRAIN, "blocks": [{"terms": ["age"]}], "fill": np.zeros(1)}


@pytest.fixture
def site(victims, tmp_path):
    """A copy of a site: what it says of a question, where that is not what it would say of any patients."""
    shutil.copytree(victims.places["north"][1], tmp_path / "north")

    def ask(statistic, view, **parameters):
        item = {"statistic": statistic.name, "view": view, "parameters": parameters}
        request = {
            "kind": "sum", "study": victims.study.hash, "run": "a" * 32, "mode": "whole", "t": 1, "slot": ["train"],
            "statistic": statistic.name, "roster": [], "layout": [],
            "parameters": pack({"items": [pack(item)], "objects": []}),
        }  # fmt: skip
        file = victims.places["north"][0]
        reply = unpack(door.answer(pack(request), site_file=file, workspace=tmp_path / "north"))
        ((place, what, why),) = reply["refused"]
        return "" if (place, what) == (None, "message") and "roster" in why else f"{what}: {why}"

    return ask


def oldest(victims):
    table = victims.contexts["north"].table
    return table.columns["age"][table.part == "train"].max()


def test_the_oldest_patient_of_one_hospital(victims, site):
    """Ages on a scale that makes those above a threshold too large to be summed: some steps are told."""
    low, high, told = 0.0, 128.0, 0
    while high - low > 1e-4:
        middle = (low + high) / 2
        steep = AGE | {"kind": "matrix", "centre": np.zeros(1), "scale": np.full(1, middle / moments.LARGEST)}
        above = "holds a value beyond" in site(moments.power_sums, steep, centre=np.zeros((1, 1)), power=1)
        low, high, told = (middle, high, told + 1) if above else (low, middle, told)
    assert low == pytest.approx(oldest(victims), abs=1e-3)  # one value: what this still tells, docs/threat-model.md
    assert told < MISFITS / 4


@pytest.mark.parametrize(
    ("statistic", "kind", "scale", "asked", "why"),
    [
        (moments.power_sums, "matrix", 1e-30, {"centre": np.zeros((1, 1)), "power": 1}, "holds a value beyond"),
        (logistic.terms, "labelled", 1e-200, {"coefficients": np.full(2, 1e200)}, "a number is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of numpy, of numbers that overflow
def test_a_site_answers_so_many_of_them_and_then_no_more(site, statistic, kind, scale, asked, why):
    def ask(centre, scale=scale):
        view = AGE | {"kind": kind, "endpoint": "outcome", "centre": np.full(1, centre), "scale": np.full(1, scale)}
        return site(statistic, view, **asked)

    for number in (0, 0, *range(MISFITS)):  # asked again it tells nothing new
        assert why in ask(-float(number))
    told = ask(0.0, 1.0)
    assert f"{MISFITS} questions of this study had an answer here that is too large or no number" in told


def test_a_number_beyond_the_bound_of_its_sum_is_one_of_them(victims, monkeypatch):
    view = AGE | {"kind": "labelled", "endpoint": "outcome", "centre": np.zeros(1), "scale": np.full(1, 1e-9)}
    hello = {"kind": "hello", "study": victims.study.hash, "run": "c" * 32}
    hellos = [victims.send(site, hello)["hello"] for site in victims.places]
    monkeypatch.setattr("cohortium.client.meter.MISFITS", 1)
    asked = {"coefficients": np.zeros(2)}
    assert victims.masked("east", hellos, 900, logistic.terms, view, **asked) == {"overflow": [0]}
    ((_, what, _),) = victims.masked("east", hellos, 901, logistic.terms, view, **asked)["refused"]
    assert what == "misfits"


def test_they_are_counted_on_the_site_s_disk_by_study(tmp_path):
    for i in range(MISFITS):
        Meter(tmp_path, "one", None).check_misfits()
        Meter(tmp_path, "one", None).misfit(b"%d" % i)
    with pytest.raises(Exception, match="32 questions of this study"):
        Meter(tmp_path, "one", 100).check_misfits()
    Meter(tmp_path, "two", None).check_misfits()
    assert Meter(tmp_path, "one", None).released() == 0
