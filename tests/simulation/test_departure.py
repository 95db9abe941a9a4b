"""A site that drops out: network rounds go on without it where all sites agreed to that, statistics never do."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from cohortium.common.codec import unpack
from cohortium.common.errors import SumRefused, SumVoid
from cohortium.common.table import Table
from cohortium.common.transport import Failure, Transport
from tests.simulation.prepared import run_on_tables

STUDY = """
[study]
name = "departure"
primary = "outcome"
seed = 5

[endpoint.outcome]
kind = "binary"
column = "outcome"

[image.ct]
modality = "CT"
spacing_mm = [1.0, 1.0, 1.0]

[region.tumour]
source = "mask"

[features.deep]
kind = "deep"
images = ["ct"]
regions = ["tumour"]
network = "resnet10"
size = [64, 64]
slices = "largest"
weights = "random"

[split]
train = ["a", "b", "c", "d"]

[model.network]
kind = "network"
predictors = ["features.deep"]
head = [4]
rounds = 4

[federation]
on_departure = "{on_departure}"
retries = 1
"""


class Departing:
    """A transport on which one site stays silent in some messages of one statistic."""

    def __init__(self, transport: Transport, site: str, statistic: str, which: tuple[int, ...], kind: str) -> None:
        self.sites = transport.sites
        self._transport, self._site, self._statistic, self._which, self._kind = transport, site, statistic, which, kind
        self._seen = 0

    def ask(self, requests: Mapping[str, bytes], *, timeout_s: float) -> dict[str, bytes | Failure]:
        message = unpack(next(iter(requests.values())))
        silent = False
        if message["kind"] == self._kind and self._statistic in str(message.get("statistic")).split():
            silent = self._seen in self._which
            self._seen += 1
        heard = {site: data for site, data in requests.items() if not (silent and site == self._site)}
        replies = self._transport.ask(heard, timeout_s=timeout_s)
        return replies | {site: Failure("the site is gone") for site in requests if site not in heard}


def tables() -> dict[str, Table]:
    def one(site: str, n: int) -> Table:
        rng = np.random.default_rng([3, n])
        x = rng.standard_normal((n, 6))
        return Table(
            site=site,
            patient_id=np.array([f"{site}{i}" for i in range(n)]),
            part=np.full(n, "train"),
            columns={
                "endpoint.outcome": (rng.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(float),
                **{f"features.deep/ct/tumour/{i:04d}": x[:, i] for i in range(6)},
            },
        )

    return {site: one(site, n) for site, n in {"a": 40, "b": 35, "c": 30, "d": 25}.items()}


def network_sums(place):
    lines = [json.loads(line) for line in (place / "out" / "run" / "sums.jsonl").read_text().splitlines()]
    return [line["sites"] for line in lines if line["statistics"] == ["fedavg.update"]]


@pytest.mark.parametrize("kind", ["sum", "unmask"])
def test_a_network_round_goes_on_without_a_site_and_says_so(tmp_path, kind):
    results = run_on_tables(
        tmp_path,
        STUDY.format(on_departure="continue"),
        tables(),
        wrap=lambda transport: Departing(transport, "c", "fedavg.update", (1,), kind),
    )
    everyone = ["a", "b", "c", "d"]
    # a site that is gone before it answers is not in the sum; one that is gone after has its numbers recovered
    second = ["a", "b", "d"] if kind == "sum" else everyone
    assert network_sums(tmp_path) == [everyone, second, everyone, everyone]
    rounds = results["contributors"]["train"]["fedavg.update"]
    assert [entry["sites"] for entry in rounds for _ in range(entry["sums"])].count(everyone) == 3 + (kind == "unmask")
    shares = results["models"]["network"]["notes"]["shares"]
    assert shares == pytest.approx([1.0, 100 / 130 if kind == "sum" else 1.0, 1.0, 1.0])


def test_the_survivors_of_a_round_stay_the_same_when_it_is_asked_again(tmp_path):
    """One site misses the round, another one its signature; asked again, the round is not opened over a wider set."""

    def wrap(transport):
        without_c = Departing(transport, "c", "fedavg.update", (1,), "sum")
        return Departing(without_c, "d", "fedavg.update", (0,), "sign")

    results = run_on_tables(tmp_path, STUDY.format(on_departure="continue"), tables(), wrap=wrap)
    everyone = ["a", "b", "c", "d"]
    assert network_sums(tmp_path) == [everyone, ["a", "b", "d"], everyone, everyone]
    assert results["models"]["network"]["notes"]["shares"] == pytest.approx([1.0, 100 / 130, 1.0, 1.0])
    ledger = (tmp_path / "sites" / "a" / "ledger.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "sign" for line in ledger) == 2


def test_other_patients_are_not_summed_after_these(tmp_path):
    """A study whose training part lacks one patient would tell that patient from the others."""
    run_on_tables(tmp_path, STUDY.format(on_departure="stop"), tables())
    other = STUDY.format(on_departure="stop").replace("seed = 5", "seed = 6")
    (tmp_path / "out" / "run").rename(tmp_path / "before")
    fewer = tables()
    fewer["b"] = fewer["b"].take(np.arange(35) > 0)
    with pytest.raises(SumRefused, match=r"site b, cohort of part train: differs .* fewer than minimum_count"):
        run_on_tables(tmp_path, other, fewer)


def test_the_same_patients_are_summed_again_in_another_study(tmp_path):
    run_on_tables(tmp_path, STUDY.format(on_departure="stop"), tables())
    (tmp_path / "out" / "run").rename(tmp_path / "before")
    run_on_tables(tmp_path, STUDY.format(on_departure="continue").replace("seed = 5", "seed = 6"), tables())


def test_without_that_agreement_the_round_stops_and_can_be_resumed(tmp_path):
    text = STUDY.format(on_departure="stop")
    with pytest.raises(SumVoid, match="resume"):
        run_on_tables(
            tmp_path,
            text,
            tables(),
            wrap=lambda transport: Departing(transport, "c", "fedavg.update", (1, 2), "sum"),
        )
    resumed = run_on_tables(tmp_path, text, tables(), resume=True)
    (tmp_path / "undisturbed").mkdir()
    undisturbed = run_on_tables(tmp_path / "undisturbed", text, tables())
    assert resumed["models"] == undisturbed["models"]


def test_a_statistic_is_asked_again_and_never_summed_without_a_site(tmp_path):
    """One silence costs one retry; the number comes out over all sites or not at all."""
    text = STUDY.format(on_departure="continue")
    faulty = run_on_tables(
        tmp_path,
        text,
        tables(),
        wrap=lambda transport: Departing(transport, "b", "discrimination.histogram", (0,), "sum"),
    )
    (tmp_path / "undisturbed").mkdir()
    undisturbed = run_on_tables(tmp_path / "undisturbed", text, tables())
    assert faulty["models"] == undisturbed["models"]
    assert faulty["cost"]["secure_sums"] == undisturbed["cost"]["secure_sums"] + 1
