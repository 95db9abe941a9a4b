"""Selection across sites keeps the very columns that the pooled analysis keeps, from study.toml to results.json."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cohortium.common.study import load_study
from cohortium.common.study_analysis import Correlation
from cohortium.common.table import Table
from cohortium.server.releases import releases
from cohortium.simulation.preview import preview
from cohortium.simulation.simulate import simulate
from tests.simulation.prepared import sums_sent

NOISE = [f"noise{k}" for k in range(6)]
VARIABLES = "".join(f'\n[[variable]]\nname = "{name}"\nkind = "continuous"\n' for name in NOISE)
TABLES = f"""
internal_fraction = 0.2

[model.ranked]
kind = "logistic"
predictors = {json.dumps(["age", "marker", *NOISE])}
selection = [
    {{ method = "screen", test = "mann_whitney", p = 0.185 }},
    {{ method = "correlation", r = 0.1, coefficient = "spearman" }},
]

[model.by_auc]
kind = "logistic"
predictors = {json.dumps(["age", "marker", *NOISE])}
selection = [{{ method = "screen", test = "auc", p = 0.3 }}, {{ method = "mrmr", keep = 2 }}]
{VARIABLES}"""


@pytest.fixture(scope="module")
def run(write_study, pooled, tmp_path_factory):
    place = tmp_path_factory.mktemp("selection")
    folder = write_study(place / "study", TABLES)
    simulate(folder, place / "out")
    rows = pooled(place / "out", folder)
    return load_study(place / "out"), json.loads((place / "out" / "results.json").read_text()), rows, place / "out"


def training(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    train = rows[rows.part == "train"]
    x = train[["age", "marker", *NOISE]]
    return x.fillna(x.median()), train.outcome.to_numpy()


def test_mann_whitney_and_spearman(run):
    _, results, rows, _ = run
    x, y = training(rows)
    p = stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue
    screened = x.columns[p < 0.185]
    t = dict(
        zip(screened, np.abs(stats.ttest_ind(x.loc[y == 1, screened], x.loc[y == 0, screened]).statistic), strict=True)
    )
    rho = x[screened].corr("spearman").abs()
    kept = []
    for name in sorted(screened, key=lambda name: -t[name]):
        if all(rho.loc[name, other] < 0.1 for other in kept):
            kept.append(name)
    model = results["models"]["ranked"]
    assert model["selected"] == [name for name in x.columns if name in kept]
    first, second = model["notes"]["selection"]
    assert (first["method"], first["test"], first["from"], first["kept"]) == (
        "screen",
        "mann_whitney",
        8,
        len(screened),
    )
    assert second == {"method": "correlation", "from": len(screened), "kept": len(kept)}


def test_auc_and_mrmr(run):
    _, results, rows, _ = run
    x, y = training(rows)
    p = stats.mannwhitneyu(x[y == 1], x[y == 0], method="asymptotic").pvalue
    screened = list(x.columns[p < 0.3])
    f = {name: stats.f_oneway(x.loc[y == 1, name], x.loc[y == 0, name]).statistic for name in screened}
    first = max(screened, key=lambda name: f[name])
    others = [name for name in screened if name != first]
    second = max(others, key=lambda name: f[name] / max(abs(np.corrcoef(x[name], x[first])[0, 1]), 1e-3))
    assert len(others) > 1
    assert set(results["models"]["by_auc"]["selected"]) == {first, second}


def test_the_report_says_which_test(run):
    _, _, _, out = run
    page = (out / "report.html").read_text()
    for words in ("Mann-Whitney test", "Spearman, on binned ranks", "univariate AUC", "mRMR (2 features)"):
        assert words in page


def test_a_site_can_rehearse_it(run):
    study, _, _, out = run
    (table,) = (out / "sites" / "north").glob("prepared/*/table.parquet")
    rehearsed = preview(study, Table.read(table), ("*",))
    assert rehearsed.stopped == ""
    assert "rank_tests.histogram" in {leaving.statistic for leaving in rehearsed.sums}


def test_a_study_without_ranks_keeps_its_hash():
    """A key that was not there before is in no hash of a study that does not use it."""
    assert set(Correlation(method="correlation").model_dump()) == {"method", "r", "keep"}
    assert "coefficient" in Correlation(method="correlation", coefficient="spearman").model_dump()


def test_every_sum_was_listed(run):
    study, _, _, out = run
    listed = {one.statistic for one in releases(study)}
    sent = sums_sent(out)
    assert {"rank_tests.histogram", "rank_tests.split", "rank_correlation.products"} <= sent.keys()
    assert sent.keys() <= listed
