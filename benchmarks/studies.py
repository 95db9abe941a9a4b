"""Studies: what the example studies cost in one process: seconds, memory, sums, messages, bytes.

    python benchmarks/studies.py EXAMPLES [--study NAME ...] [--json FILE]

EXAMPLES holds uci_heart, tcga_brca and sarcoma. Each runs in fresh processes on the in-process engine: from the raw
data and, where there are images, once more from the cases measured the first time. Peak memory is the largest sum over
the processes of a run at one moment (workers included), sampled five times a second.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

TARGETS = {  # seconds from the raw data, seconds from measured cases
    "uci_heart": (15, None),
    "tcga_brca": (30, None),
    "sarcoma": (150, 60),
}
TARGET_GB = 3.0
COMMAND = Path(sys.executable).with_name("cohortium")


def measured(command):
    """Wall and CPU seconds, and peak resident memory of a command and its children in GB."""
    before, began, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        held = 0
        for each in [process, *_children(process)]:
            try:
                held += each.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, held)
        time.sleep(0.2)
    wall = time.monotonic() - began
    if process.returncode:
        sys.exit(process.stderr.read().decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "peak_gb": round(peak / 1e9, 2)}


def _children(process):
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def run(folder, out, cache):
    """One study from what `cache` holds; its cost as measured here and as the run counted it."""
    command = [COMMAND, "simulate", folder, "--out", out, "--cache", cache, "--quiet"]
    found = measured([str(part) for part in command])
    cost = json.loads((out / "results.json").read_text())["cost"]
    return {
        **found,
        "federated_seconds": cost["seconds"],
        "secure_sums": cost["secure_sums"],
        "messages": cost["messages"],
        "mb_up_a_site": round(max(cost["bytes_up_by_site"].values()) / 1e6, 2),
        "mb_down_a_site": round(max(cost["bytes_down_by_site"].values()) / 1e6, 2),
    }


def main():
    """Run, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("examples", type=Path)
    parser.add_argument("--study", action="append", choices=list(TARGETS))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    columns = ("seconds", "target", "CPU s", "federated", "peak GB", "sums", "messages", "MB up", "MB down")
    print(f"{'study':28}" + "".join(f"{column:>10}" for column in columns))
    figures = {}
    for name in asked.study or TARGETS:
        with tempfile.TemporaryDirectory() as scratch:
            for kind, target in zip(("raw data", "measured cases"), TARGETS[name], strict=True):
                if target is None:
                    continue
                label = f"{name}, {kind}" if TARGETS[name][1] else name
                row = run(asked.examples / name, Path(scratch) / kind.split()[0], Path(scratch) / "cache")
                figures[label] = {**row, "target_seconds": target, "target_peak_gb": TARGET_GB}
                shown = [row["seconds"], f"< {target}", row["cpu_seconds"], row["federated_seconds"], row["peak_gb"]]
                shown += [row["secure_sums"], row["messages"], row["mb_up_a_site"], row["mb_down_a_site"]]
                print(f"{label:28}" + "".join(f"{value:>10}" for value in shown), flush=True)
    print(f"load {os.getloadavg()[0]:.1f} after; peak target < {TARGET_GB} GB; bytes are those of the busiest site")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
