"""Releases: the list for those who approve a study misses nothing that a run sends; no answer is larger than told."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from cohortium.cli.main import main
from cohortium.common.ledger import Ledger
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.server.release_sizes import polynomial
from cohortium.server.releases import releases
from cohortium.simulation import preview
from cohortium.simulation.simulate import SHIPPED, simulate
from cohortium.sites.prepared import TABLE, prepared_folder

EXAMPLES = Path(__file__).parents[3] / "shared" / "design" / "examples"
BINARY = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]
selection = ["screen", "correlation"]

[model.sparse]
kind = "lasso"
predictors = ["age", "stage", "marker"]

[model.both]
kind = "logistic"
predictors = ["model.full", "age"]

[validation]
compare = [["full", "sparse"]]
subgroups = ["stage"]
survival = "os"
bootstrap = 100
explain = ["shap", "permutation", "nomogram"]

[table_one]
rank_tests = true
"""
SURVIVAL = """
internal_fraction = 0.3
folds = 2
repeats = 2

[model.pooled]
kind = "cox"
strata = "none"
predictors = ["age", "stage"]

[model.by_site]
kind = "cox"
selection = [{ method = "screen", test = "cox", p = 1 }]
predictors = ["age", "marker"]

[validation]
cutoff = "log_rank"
logrank_strata = ["stage"]
calibration_slope = "within_sites"
optimism = true
compare = [["pooled", "by_site"]]

[[validation.analysis]]
model = "pooled"
endpoint = "outcome"
where = { stage = 1 }
"""


CONTINUOUS = """
internal_fraction = 0.3

[endpoint.number]
kind = "continuous"
column = "noise0"

[model.plain]
kind = "linear"
predictors = ["age", "stage", "marker"]
selection = ["lasso"]

[model.sparse]
kind = "lasso"
mixing = 0.5
predictors = ["age", "marker"]

[model.both]
kind = "linear"
predictors = ["model.sparse", "stage"]

[validation]
compare = [["plain", "sparse"]]
subgroups = ["stage"]
explain = ["shap", "nomogram"]
"""
NOISED = """
internal_fraction = 0.3

[model.full]
kind = "logistic"
predictors = ["stage"]

[privacy.dp]
epsilon = 6.0
delta = 1e-5
"""


@pytest.fixture(
    scope="module",
    params=[("outcome", BINARY), ("os", SURVIVAL), ("number", CONTINUOUS), ("outcome", NOISED)],
    ids=["binary", "survival", "continuous", "noised"],
)
def run(request, write_study, tmp_path_factory):
    primary, tables = request.param
    place = tmp_path_factory.mktemp("releases")
    folder = write_study(place / "study", tables, primary=primary)
    simulate(folder, place / "out")
    return load_study(place / "out"), place / "out"


def test_every_sum_of_a_run_was_listed(run):
    study, out = run
    listed = {(one.part, one.statistic) for one in releases(study)}
    sent = set()
    for site in study.sites:
        for line in Ledger(out / "sites" / site).entries():
            if line["kind"] == "sum":
                sent |= {(tuple(line["parts"]), statistic) for statistic in line["statistics"]}
    assert {statistic for _, statistic in sent} <= {statistic for _, statistic in listed}
    # a message may ask about several parts at once: then each of its statistics is of one of them
    assert all(any((part, statistic) in listed for part in parts) for parts, statistic in sent)
    exact = {(parts[0], statistic) for parts, statistic in sent if len(parts) == 1}
    assert exact <= listed
    assert len(sent) > (10 if study.privacy.dp is None else 2)


def test_no_answer_is_larger_than_listed(run, monkeypatch):
    """Rehearsed on a site's own table, statistic by statistic, with the cells and times that were really asked for."""
    study, out = run
    table = Table.read(prepared_folder(out / "sites" / "north", study.hash) / TABLE)
    largest = {}
    original = preview.Rehearsal.sum

    def measured(self, what, view, parameters):
        share = original(self, what, view, parameters)
        values = {
            "f": 0,
            "c": max((len(lower) for lower in parameters.get("edges", ())), default=1),
            "t": len(parameters.get("points", ())),
            "u": parameters.get("cells", 1) if what.name == "survival.exits" else 1,
        }
        numbers = sum(np.asarray(field).size for field in share)
        largest.setdefault((view["rows"]["part"], what.name), []).append((numbers, values))
        return share

    monkeypatch.setattr(preview.Rehearsal, "sum", measured)
    assert preview.preview(study, table, ("*",)).stopped == ""
    assert len(largest) > (10 if study.privacy.dp is None else 2)
    for key, answers in largest.items():
        told = [one for one in releases(study) if (one.part, one.statistic) == key]
        for numbers, values in answers:
            most = max(one.size(**{letter: values[letter] for letter in one.letters}) for one in told)
            assert numbers <= most, f"{key}: {numbers} numbers, {most} listed"


def test_sizes_are_the_polynomials_that_are_printed():
    assert polynomial(lambda: 1200, "") == "1,200"
    assert polynomial(lambda f: 3 + 2 * f + f * (f + 1) // 2, "f") == "3 + 5/2 f + 1/2 f²"
    assert polynomial(lambda c, t: 4 * c * (t + 1), "ct") == "4 c + 4 c t"
    assert polynomial(lambda u: 0 * u, "u") == "0"
    with pytest.raises(ValueError, match="no polynomial"):
        polynomial(lambda f: 2**f, "f")


STUDIES = [EXAMPLES / "uci_heart", EXAMPLES / "tcga_brca", EXAMPLES / "sarcoma", SHIPPED / "gastric"]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_annex_of_a_study(folder, tmp_path, capsys):
    if not folder.is_dir():
        pytest.skip(f"{folder.name}: the example studies are not beside this checkout")
    study = load_study(folder)
    assert main(["study", "releases", str(folder)]) == 0
    page = capsys.readouterr().out
    assert main(["study", "releases", str(folder), "--out", str(tmp_path / "annex.md")]) == 0
    assert (tmp_path / "annex.md").read_text() == page
    assert study.hash in page
    assert "NOT MASKED" not in page
    for part in ("train", "internal", "external"):
        summed = study.hides_its_sites(part)
        assert (f"| {part} | `" in page) == summed
        assert (f"| {part} | {', '.join(study.sites_of(part))} |" in page) == (
            bool(study.sites_of(part)) and not summed
        )
    for name in itertools.chain(study.model, study.opt_ins):
        assert name in page


def test_a_study_without_masks_says_so(tmp_path, capsys):
    text = (
        (SHIPPED / "gastric" / "study.toml")
        .read_text()
        .replace("secure_aggregation = true", "secure_aggregation = false")
    )
    (tmp_path / "study.toml").write_text(text)
    assert main(["study", "releases", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "NOT MASKED: each site's own numbers" in page
    assert "each site must opt in | secure_aggregation |" in page
    assert "opens over" in page
    assert "all sites of the roster" not in page
