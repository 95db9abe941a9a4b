"""Equality: every figure of a federation beside the same figure of pooled rows and other software.

    python benchmarks/equality/run.py            # print the table, write docs/equality.md and docs/equality.json
    python benchmarks/equality/run.py --only cox # the rows whose name holds a word; writes nothing

Each item runs twice: with plain float sums, and with the product's own masked fixed-point sums. `rounds` are messages a
site answers, `bytes` what it sends. A row that misses its target is printed and published like the others.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import items_binary
import items_classifiers
import items_cohorts
import items_explained
import items_further
import items_inference
import items_models
import items_numbers
import items_penalised
import items_profiles
import items_resampled
import items_selection
import items_survival
import items_tables
import items_validation
from item import Item, compare

DOCS = Path(__file__).parents[2] / "docs"
MODULES = (
    items_tables,
    items_selection,
    items_further,
    items_models,
    items_penalised,
    items_inference,
    items_profiles,
    items_classifiers,
    items_validation,
    items_binary,
    items_numbers,
    items_resampled,
    items_explained,
    items_survival,
    items_cohorts,
)
NOT_SHOWN = (
    "differential privacy: random on purpose, and not equal; its parts have tests against formulas and laws",
    "imputation by mean or indicator: the mean is that of the first row, an indicator is a column like others",
    "draws of multiple imputation: random; what is done with them is the row of Rubin's rules",
    "nomogram: a linear map of coefficients to points; staging: a score that is given, nothing is fitted",
    "validation without a site: the fits and figures above, of fewer patients, as in the rows of cross-validation",
    "ComBat of a site outside training: the function of the ComBat row, with that site's own sums",
    "counts of missing values in Table 1: sums of ones; their test is Fisher's, which has a row",
    "screening by t-test: the p of the row of Holm; pruning by Spearman: the pruning row's rule on Spearman's row",
    "stepwise Cox regression: the search of the stepwise rows over the fits of the Cox rows",
    "cross-validated penalties of linear models: the search of the logistic rows over the path of the linear row",
    "ROC, precision-recall and calibration curves: the counts behind the rows of AUC and Hosmer-Lemeshow, as points",
    "treating all or nobody, numbers at risk: counts that the rows of net benefit and Kaplan-Meier are made of",
    "intervals of C and of AUC over time: definitions written out once more in benchmarks/recompute.py, to 1e-9",
    "not built: random forest, optimism by refitted bootstrap, Cox LASSO with one baseline (docs/decisions 10, 12, 13)",
)
HEAD = ("item", "data", "sums", "rounds", "bytes a site", "largest difference", "target", "pooled reference")


def items() -> list[Item]:
    """All items, in the order of the table."""
    return [item for module in MODULES for item in module.ITEMS]


def cells(row: dict[str, Any]) -> list[str]:
    """One row as text."""
    miss = "" if row["reached"] else f" **missed** ({row['largest_in']})"
    numbers = [f"{row['rounds']}", f"{row['bytes']:,}", f"{row['difference']:.1e}{miss}", f"{row['target']:.0e}"]
    return [row["item"], row["data"], row["sums"], *numbers, row["reference"]]


def markdown(rows: list[dict[str, Any]], skipped: list[str]) -> str:
    """docs/equality.md."""
    missed = [row for row in rows if not row["reached"]]
    lines = [
        "# Federated figures beside the pooled analysis",
        "",
        "Written by `make equality`. Every figure is computed twice as sums over sites (float: plain float64",
        "sums; masked: the fixed-point sums under masks that a federation really uses), and once from all",
        "rows on one pile by other software, in scripts that import nothing of ours",
        "([benchmarks/equality](../benchmarks/equality)). The difference is the largest |ours - reference| /",
        "max(1, |reference|) over all numbers of the item; rounds are messages that a site answers, bytes",
        "what it sends. Rows that say NOT equal show how far another definition lies (averages of local fits or of",
        "networks, bins, random features for a kernel); an average has no target of its own and is listed as missing",
        "that of the exact fit. A target above 1e-9 gives its reason beside the reference; for what is binned the",
        "row asks whether the figure lies inside the bound printed with it.",
        "",
        f"{len(rows)} rows, {len(missed)} miss their target" + ("." if not missed else ":"),
        *(f"- {row['item']} ({row['sums']}): {row['difference']:.1e} against {row['target']:.0e}" for row in missed),
        *(["", "Not run here:", *(f"- {why}" for why in skipped)] if skipped else []),
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + " --- |" * len(HEAD),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        "Without a row, and why:",
        *(f"- {why}" for why in NOT_SHOWN),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the items and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warnings.simplefilter("error")
    rows, skipped = [], []
    for item in items():
        if options.only.lower() in item.name.lower():
            if why := item.absent():
                skipped.append(f"{item.name} ({item.data}): {why}")
                print(f"skipped: {skipped[-1]}", flush=True)
                continue
            for sums in ("float", "masked"):
                rows.append(compare(item, sums))
                print(" | ".join(cells(rows[-1])), flush=True)
    if not options.only:
        (DOCS / "equality.md").write_text(markdown(rows, skipped), encoding="utf-8")
        (DOCS / "equality.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
