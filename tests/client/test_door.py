"""Door: whatever is asked, a site gives a typed refusal without a number in it, or a masked sum; never a traceback."""

import hashlib
import json

import numpy as np
import pytest

from cohortium.client import door
from cohortium.common.codec import pack, unpack
from cohortium.common.study import load_study
from cohortium.simulation.simulate import simulate

STUDY = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage"]

[validation]
subgroups = ["stage"]
"""
RUN = "a" * 32
VIEW = {"kind": "matrix", "rows": {"part": "train"}, "blocks": [{"terms": ["age"]}]}
ITEM = {"statistic": "moments.power_sums", "view": VIEW, "parameters": {"centre": np.zeros((1, 1)), "power": 1}}
FITTED = pack({"replicates": {"": {"blocks": [], "fill": 0, "centre": 0, "scale": 1, "coefficients": np.zeros(1)}}})


class Hospital:
    """One site of a finished run, and what a coordinator may throw at its door."""

    def __init__(self, folder, out, site):
        self.study = load_study(out).hash
        self.workspace = out / "sites" / site
        self.site_file = folder / "sites" / site / "site.toml"

    def ask(self, message):
        data = message if isinstance(message, bytes) else pack(message)
        return unpack(door.answer(data, site_file=self.site_file, workspace=self.workspace))

    def sum(self, item=None, *, parameters=None, **more):
        """A sum of one item, with the labels that belong to it unless others are given."""
        asked = ITEM | (item or {})
        request = {
            "kind": "sum", "study": self.study, "run": RUN, "mode": "whole", "t": 1, "slot": ["train"],
            "statistic": asked["statistic"],
            "parameters": pack({"items": [pack(asked)], "objects": []} if parameters is None else parameters),
        }  # fmt: skip
        return self.ask(request | more)

    def figures(self, spec):
        parameters = pack({"spec": spec, "objects": []})
        return self.ask({"kind": "figures", "study": self.study, "run": RUN, "parameters": parameters})


@pytest.fixture(scope="module")
def places(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("door")
    folder = write_study(place / "study", STUDY, sizes={"north": 40, "east": 40, "south": 40, "west": 20})
    simulate(folder, place / "out")
    return folder, place / "out"


@pytest.fixture(scope="module")
def north(places):
    return Hospital(*places, "north")


def refusal(reply):
    """The one refusal of a reply that holds nothing else."""
    assert list(reply) == ["refused"]
    ((_, what, why),) = reply["refused"]
    return f"{what}: {why}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\xff" * 100,
        b"COH1\x02\x00\x00\x00[]",
        b"COH1\xff\xff\xff\xff{}",
        b"COH1" + len(nested := b'{"a":' * 700 + b"1" + b"}" * 700).to_bytes(4, "little") + nested,
        b"COH1" + len(vast := b'{"a":{"\\u0000array":["<f8",[0,99999999999999999999]]}}').to_bytes(4, "little") + vast,
        b"COH1" + len(deep := json.dumps({"a": {"\0array": ["<f8", [1] * 99]}}).encode()).to_bytes(4, "little")
        + deep + bytes(8),
        pack({"a": np.zeros(9)})[:-1],
    ],
)  # fmt: skip
def test_garbage(north, data):
    assert refusal(north.ask(data)).startswith("message: ")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "steal"}, "a kind that this site does not know"),
        ({"kind": ["hello"]}, "a kind that this site does not know"),
        ({"study": "f" * 64}, "is not approved at this site"),
        ({"study": "../../x"}, "a study is named by its hash"),
        ({"study": "\0"}, "a study is named by its hash"),
        ({"study": 5}, "a study is named by its hash"),
        ({"run": "../../x"}, "at most 64 letters and digits"),
        ({"run": "a" * 300}, "at most 64 letters and digits"),
        ({"run": ""}, "at most 64 letters and digits"),
    ],
)
def test_a_request_without_standing(north, changed, told):
    assert told in refusal(north.ask({"kind": "hello", "study": north.study, "run": RUN} | changed))


NOTHING = "nothing can be made of this request; the reason is in the site's own log"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"statistic": "os.system"}, "a statistic that this site does not have"),
        ({"statistic": "views.build"}, "a statistic that this site does not have"),
        ({"statistic": 7}, NOTHING),
        ({"view": VIEW | {"rows": {"part": ["train", "internal"]}}}, NOTHING),
        ({"view": VIEW | {"rows": {"part": "train|internal"}}}, "names other parts than it asks about"),
        ({"view": VIEW | {"rows": {}}}, NOTHING),
        ({"view": {"kind": "matrix", "blocks": []}}, NOTHING),
        ({"view": VIEW | {"kind": "raw"}}, NOTHING),
        ({"view": VIEW | {"blocks": [{"terms": ["salary"]}]}}, NOTHING),
        ({"view": VIEW | {"blocks": [{"model": "../../../sites/north/ledger.jsonl"}]}}, "does not have it"),
        ({"view": VIEW | {"blocks": [{"model": "." + "/" * 41 + "../../../ledger.jsonl"}]}}, "does not have it"),
        (
            {"view": VIEW | {"kind": "scored", "rows": {"part": "train", "where": ["age", 60.0]}}},
            "the study names no such subgroup",
        ),
        ({"view": VIEW | {"kind": "scored", "rows": {"part": "train", "where": "age"}}}, NOTHING),
        ({"view": VIEW | {"rows": {"part": "train", "without": ["x"]}}}, "leave out what is no fold"),
        ({"parameters": {}}, NOTHING),
        ({"parameters": {"centre": "x", "power": 1}}, NOTHING),
        ({"parameters": {"centre": np.zeros((3, 2, 1)), "power": 1}}, NOTHING),
        ({"statistic": "quantiles.top_bytes", "parameters": {"groups": 10**13}}, NOTHING),
    ],
)
def test_a_sum_that_makes_no_sense(north, item, told):
    assert told in refusal(north.sum(item))


def test_what_went_wrong_stays_in_the_site_s_log(north):
    assert NOTHING in refusal(north.sum({"view": VIEW | {"blocks": [{"terms": ["salary"]}]}}))
    assert "KeyError: 'salary'" in (north.workspace / "site.log").read_text()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"slot": ["internal"]}, "names other parts than it asks about"),
        ({"slot": 5}, NOTHING),
        ({"statistic": "table_one.counts"}, "names other statistics than it asks for"),
        ({"parameters": b"zz"}, "not a cohortium message"),
        ({"parameters": {"items": None, "objects": []}}, NOTHING),
        ({"parameters": {"items": [pack(ITEM)], "objects": [5]}}, NOTHING),
        ({"roster": []}, "sites take part, the study demands at least 3"),
        ({"roster": [{"site": "north"}]}, "the roster of a sum is a list"),
    ],
)
def test_labels_that_do_not_fit_the_sum(north, more, told):
    north.ask({"kind": "hello", "study": north.study, "run": RUN})
    layout = [["i8", 1, 0], ["i8", 1, 0], ["i8", 9, 0]]
    if isinstance(more.get("parameters"), bytes):
        reply = north.ask({"kind": "sum", "study": north.study, "run": RUN, "slot": [], "statistic": "", **more})
    else:
        reply = north.sum(**{"roster": [], "layout": layout} | more)
    assert told in refusal(reply) or "lacks the key that site north gave" in refusal(reply)


def test_a_part_of_too_few_sites_is_no_sum_and_a_part_of_enough_no_finished_figure(north, places):
    west = Hospital(*places, "west")
    item = {"view": VIEW | {"rows": {"part": "external"}}}
    assert "lies at 1 of at least 3 sites" in refusal(west.sum(item, slot=["external"]))
    spec = {
        "part": "train", "of": "final", "compare": [], "where": None, "survival": None,
        "settings": {"folds": 1, "cohort": "validation", "minimum_count": 0, "score_resolution": "exact"},
        "models": [{"name": "x", "digest": "f" * 64, "endpoint": "outcome", "outcome": "binary", "cutoff": None}],
    }  # fmt: skip
    reply = north.figures({"cohorts": {"train": spec}, "table_one": ["train", "internal"]})["figures"]
    ((figures, comparisons),) = reply["cohorts"].values()
    assert comparisons == []
    assert "no figures of one site leave" in figures["x"]["withheld"]
    assert {tuple(sorted(entry)) for entry in reply["table_one"]} == {("cohort", "kind", "variable", "withheld")}


def test_how_fine_finished_figures_are_is_the_study_s_word(places):
    """Asked for other thresholds and without a minimum, a site answers as it approved."""
    west = Hospital(*places, "west")
    fitted = pack({**unpack(FITTED), "outcome": "binary"})
    digest = hashlib.sha256(fitted).hexdigest()
    spec = {
        "part": "external", "of": "final", "compare": [], "where": None, "survival": None,
        "settings": {"folds": 1, "cohort": "validation", "minimum_count": 0, "decision_thresholds": [0.123]},
        "models": [{"name": "x", "digest": digest, "endpoint": "outcome", "outcome": "binary", "cutoff": 0.5}],
    }  # fmt: skip
    small = spec | {"where": ["stage", 2.0]}
    parameters = pack({"spec": {"cohorts": {"all": spec, "some": small}, "table_one": []}, "objects": [fitted]})
    reply = west.ask({"kind": "figures", "study": west.study, "run": RUN, "parameters": parameters})
    found = reply["figures"]["cohorts"]
    assert found["all"][0]["x"]["decision_curve"]["thresholds"] == [i / 100 for i in range(1, 100)]
    assert found["some"][0]["x"] == {"withheld": "the cohort has fewer than minimum_count = 5 patients at its site"}


def test_the_ledger_says_what_was_asked_not_what_it_was_called(north):
    north.sum(statistic="harmless.counts", roster=[])
    *_, line = (json.loads(text) for text in (north.workspace / "ledger.jsonl").read_text().splitlines())
    assert (line["kind"], line["statistics"], line["parts"]) == ("sum", ["moments.power_sums"], ["train"])
    assert (line["outcome"], line["run"]) == ("refused", RUN)


def test_a_failing_disk_is_no_refusal(north, monkeypatch):
    """The node then reports a failure, and the coordinator may ask again."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cohortium.client.door.Ledger.append", full)
    with pytest.raises(OSError, match="No space left"):
        north.ask({"kind": "flow", "study": north.study, "run": RUN})
