"""FLamby's TCGA-BRCA: held-out C-index of the federated Cox models, pooled and by region, beside the published figures.

    python benchmarks/flamby_tcga.py [STUDY_DIR]

STUDY_DIR (default: the tcga_brca example beside this checkout) is run in a copy with ``by_site = true``; the split is
the benchmark's own. Regions with fewer than minimum_count events in the held-out part are withheld and say so. FLamby's
figures: C-index on its test split as printed by its authors (mean of the six centres over five seeds / pooled test).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "shared" / "design" / "examples" / "tcga_brca"
PUBLISHED = {
    "pooled training": (0.676, 0.704),
    "FedAvg": (0.732, 0.735),
    "FedProx": (0.729, 0.717),
    "SCAFFOLD": (0.687, 0.699),
    "FedAdam": (0.815, 0.842),
    "FedYogi": (0.815, 0.842),
}


def copied(source, place):
    """Copy a study with ``by_site = true``; paths of patients stay those of the original."""
    folder = place / "study"
    shutil.copytree(source, folder)
    study = folder / "study.toml"
    study.write_text(study.read_text().replace("[validation]\n", "[validation]\nby_site = true\n", 1))
    for file in folder.glob("sites/*/site.toml"):
        original = (source / file.relative_to(folder)).parent
        text = file.read_text()
        relative = re.search(r'patients = "(.*?)"', text)[1]
        file.write_text(text.replace(f'"{relative}"', f'"{(original / relative).resolve()}"'))
    return folder


def shown(record):
    """C-index with its interval, or why there is none."""
    if "withheld" in record:
        return f"withheld: {record['withheld']}"
    index = record["survival"]["c_index"]
    if "estimate" not in index:
        return next(iter(index.values()))
    low, high = index["ci"]
    return (
        f"{index['estimate']:.3f} ({low:.3f} to {high:.3f}), {record['n']} patients, {record['events']} events, binned "
        f"scores within {index['bound']:.3f}"
    )


def main():
    """Run the study and print the table."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE
    with tempfile.TemporaryDirectory() as place:
        folder, out = copied(source.resolve(), Path(place)), Path(place) / "out"
        command = [str(Path(sys.executable).with_name("cohortium")), "simulate", str(folder), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        results = json.loads((out / "results.json").read_text())
    for name, model in results["models"].items():
        print(f"\n{name}: held-out C-index (95% CI)")
        for cohort, record in model["cohorts"].items():
            if cohort.partition("/")[0] == "internal":
                print(f"  {cohort.partition('/site:')[2] or 'pooled':12} {shown(record)}")
    print(f"\n{'FLamby, published':20} mean of centres  pooled test")
    for name, (mean, pooled) in PUBLISHED.items():
        print(f"{name:20} {mean:15.3f} {pooled:12.3f}")


if __name__ == "__main__":
    main()
