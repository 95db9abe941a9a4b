"""Prepare many: memory of `cohortium site prepare` over many cases, and what a kill in the middle costs.

    python benchmarks/prepare_many.py --cases 1000 --jobs 2 [--json FILE]

Writes a synthetic cohort of one hospital (the gastric study's generator), prepares its radiomics in a process of its
own, kills that at a third with SIGKILL, and prepares again. Prints the resident memory of the preparing process and of
all its workers over the finished cases, the slope of both over the second half in MiB per 1,000 cases, and how many
cases that were finished at the kill were computed again (0 is right).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import tomli_w

from cohortium.common.study import load_study
from cohortium.simulation import cohort_files

ROOT = Path(__file__).resolve().parents[1]
SITE = "harbour"
MIB = 2**20
EVERY_S = 0.25
PREPARE = "import sys; from cohortium.cli.main import main; sys.exit(main(sys.argv[1:]))"


class Sample(NamedTuple):
    """Resident memory at a moment."""

    finished: int
    main_mib: float
    all_mib: float


def write_study(folder: Path) -> None:
    """The gastric study's table and images, with radiomics instead of its network."""
    tables = tomllib.loads((ROOT / "simulation/studies/gastric/study.toml").read_text())
    tables["features"] = {
        "radiomics": {"kind": "radiomics", "images": ["ct"], "regions": ["tumour"], "bin_width": {"ct": 25.0}}
    }
    tables["model"] = {"image": {"kind": "lasso", "predictors": ["features.radiomics"]}}
    tables["validation"] = {}
    tables.pop("harmonise", None)
    (folder / "study.toml").write_bytes(tomli_w.dumps(tables).encode())
    plan = tomllib.loads((ROOT / "simulation/studies/gastric/simulation.toml").read_text())
    plan["site"] = [site | {"share": 1.0} for site in plan["site"] if site["name"] == SITE]
    (folder / "simulation.toml").write_bytes(tomli_w.dumps(plan).encode())
    load_study(folder)


def finished(store: Path) -> dict[Path, int]:
    """Finished cases with the time they were written at."""
    return {path: path.stat().st_mtime_ns for path in store.glob("*/*") if path.suffix != ".draft"}


def prepare(folder: Path, jobs: int, stop_after: int | None) -> tuple[list[Sample], float]:
    """Prepare in a process of its own; killed with all its workers once `stop_after` cases are finished."""
    command = ["site", "prepare", str(folder), "--site", str(folder / SITE), "--jobs", str(jobs), "--quiet"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", PREPARE, *command], stdout=subprocess.DEVNULL)
    watched, samples = psutil.Process(process.pid), []
    while process.poll() is None:
        n = len(finished(folder / SITE / "workspace" / "cases"))
        try:
            family = [watched, *watched.children(recursive=True)]
            sizes = [one.memory_info().rss / MIB for one in family]
            samples.append(Sample(n, sizes[0], sum(sizes)))
        except psutil.NoSuchProcess:
            continue
        if stop_after is not None and n >= stop_after:
            for one in reversed(family):
                one.kill()
        time.sleep(EVERY_S)
    if stop_after is None and process.returncode:
        sys.exit(f"prepare ended with status {process.returncode}")
    return samples, time.perf_counter() - start


def slope(samples: list[Sample], field: str, cases: int) -> float:
    """MiB per 1,000 cases over the second half, by least squares."""
    late = [sample for sample in samples if cases / 2 <= sample.finished < cases]
    if len({sample.finished for sample in late}) < 3:
        return float("nan")
    return 1000 * float(np.polyfit([s.finished for s in late], [getattr(s, field) for s in late], 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_study(folder)
        cohort_files.generate(folder, folder, seed=3, patients=options.cases)
        store = folder / SITE / "workspace" / "cases"
        prepare(folder, options.jobs, options.cases // 3)
        before = finished(store)
        samples, seconds = prepare(folder, options.jobs, None)
        after = finished(store)
        again = sum(after.get(path) != written for path, written in before.items())
        _, repeat_s = prepare(folder, options.jobs, None)
    for share in (0.4, 0.6, 0.8, 1.0):
        at = next((s for s in samples if s.finished >= share * options.cases), samples[-1])
        print(f"{at.finished:6} finished: preparing process {at.main_mib:6.0f} MiB, with workers {at.all_mib:6.0f} MiB")
    figures = {
        "cases": options.cases,
        "finished_at_kill": len(before),
        "computed_again": again,
        "seconds_after_kill": round(seconds, 1),
        "seconds_repeat": round(repeat_s, 1),
        "peak_main_mib": round(max(s.main_mib for s in samples)),
        "peak_all_mib": round(max(s.all_mib for s in samples)),
        "main_mib_per_1000_cases": round(slope(samples, "main_mib", options.cases), 1),
        "all_mib_per_1000_cases": round(slope(samples, "all_mib", options.cases), 1),
    }
    for name, value in figures.items():
        print(f"{name:26} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
