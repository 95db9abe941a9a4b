"""The equality table: its references know nothing of ours, its published rows are whole, its quick items hold."""

import ast
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "equality"
KEYS = {"item", "data", "sums", "rounds", "bytes", "difference", "target", "reference"}
OURS = {"cohortium", "federations", "item", "run"}
QUICK = (
    "mean and SD by outcome",
    "chi-squared of a table",
    "Fisher's exact test",
    "Spearman's correlations of bins",
    "mRMR",
    "imputation by median",
    "ComBat",
    "logistic regression: coefficients",
    "logistic regression: likelihood-ratio",
    "linear elastic net",
    "Firth's logistic",
    "sites as fixed effects",
    "meta-analysis",
    "test of proportional hazards",
    "Cox, Efron's ties, stratified by site",
    "AUC of binned scores",
    "NRI",
    "linear SHAP",
    "SHAP values of any score, all orders of variables: mlp",
    "permutation importance of any score: gradient_boosting",
    "IPCW Brier",
    "C of binned scores",
    "Gray's test",
    "Cox score tests",
    "Mann-Whitney test of Table 1",
    "numbers as outcome",
    "Brier score in parts",
    "by REML",
    "least squares over 5 imputations",
    "stepwise linear",
    "heterogeneity of numbers",
    "ICC(1,1)",
    "cross-validation twice",
    "closed test of updates",
    "Firth's logistic regression: profile",
)


@pytest.fixture(scope="module")
def table():
    """The modules of the table, whose names are bare because it is run as a script."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        import item
        import run

        yield run, item
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == FOLDER:
                del sys.modules[name]


def imported(file):
    """Top-level names that a file imports, and those of the files beside it that it imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            modules = [node.module or ""]
        for name in (module.partition(".")[0] for module in modules):
            beside = FOLDER / f"{name}.py"
            names |= {name} | (imported(beside) if beside.exists() else set())
    return names


@pytest.mark.parametrize("file", sorted(FOLDER.glob("references_*.py")), ids=lambda file: file.stem)
def test_references_import_nothing_of_ours(file):
    assert not imported(file) & OURS
    text = file.read_text(encoding="utf-8")
    assert "importlib.import_module" not in text
    assert "__import__" not in text


def test_published_rows_are_whole():
    rows = json.loads((ROOT / "docs" / "equality.json").read_text(encoding="utf-8"))["rows"]
    page = (ROOT / "docs" / "equality.md").read_text(encoding="utf-8")
    assert len(rows) >= 100
    seen = set()
    for row in rows:
        assert row.keys() >= KEYS
        assert row["sums"] in ("float", "masked")
        assert row["rounds"] >= 1
        assert row["bytes"] > 0
        assert row["reached"] == (row["difference"] <= row["target"])
        assert row["target"] <= 1e-9 or row["reference"]
        seen.add((row["item"], row["data"], row["sums"]))
        assert row["item"] in page
        if not row["reached"]:
            assert f"- {row['item']} ({row['sums']}): " in page
    assert len(seen) == len(rows)
    assert {(item, data) for item, data, _ in seen} == {(i, d) for i, d, sums in seen if sums == "masked"}


def test_published_rows_are_those_of_the_items(table):
    """What could not run where the table was made is named on the page."""
    run, _ = table
    rows = json.loads((ROOT / "docs" / "equality.json").read_text(encoding="utf-8"))["rows"]
    page = (ROOT / "docs" / "equality.md").read_text(encoding="utf-8")
    published = {(row["item"], row["data"]) for row in rows}
    items = {(item.name, item.data) for item in run.items()}
    assert published <= items
    for name, data in items - published:
        assert f"- {name} ({data}): " in page


@pytest.mark.parametrize("name", QUICK)
def test_quick_items_are_inside_their_targets(table, name):
    run, one = table
    found = [item for item in run.items() if name in item.name and not item.absent()]
    assert found
    row = one.compare(found[0], "masked")
    assert row["reached"], row
