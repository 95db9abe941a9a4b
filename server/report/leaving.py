"""Leaving: what left each site, and every figure that was asked for and is not shown."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohortium.server.report.grid import Grid
from cohortium.server.report.text import COHORTS, KINDS, Absent, absent, cohort_label, count, data_size, words

Record = Mapping[str, Any]


def read_sums(run_dir: Path) -> list[dict[str, Any]]:
    """Read the coordinator's log of sums, one JSON line each; a run folder without one gives none."""
    log = run_dir / "run" / "sums.jsonl"
    if not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]


def traffic_grid(results: Record, sums: list[dict[str, Any]]) -> Grid | None:
    """Make the table of what each site sent and received."""
    cost = results.get("cost") or {}
    up, down = cost.get("bytes_up_by_site") or {}, cost.get("bytes_down_by_site") or {}
    names = [site["name"] for site in results.get("sites", [])] or list(up)
    if not up and not sums:
        return None
    took_part = Counter(site for line in sums if line.get("statistics") for site in line.get("sites", ()))
    grid = Grid("What left each site, and what it received.", ["Site", "Sent", "Received"])
    if sums:
        grid.columns.append("Sums it took part in")
    for name in names:
        cells = [grid.cell(up.get(name), data_size), grid.cell(down.get(name), data_size)]
        grid.row(words(name), [*cells, grid.cell(took_part.get(name, 0), count)] if sums else cells)
    return grid


def statistics_grid(sums: list[dict[str, Any]]) -> Grid | None:
    """Make the table of statistics that were summed, with how often each was asked."""
    asked = Counter(name for line in sums for name in line.get("statistics", ()))
    if not asked:
        return None
    grid = Grid("Statistics that the sites answered, as sums over sites.", ["Statistic", "Times asked"])
    for name, times in sorted(asked.items()):
        grid.row(name, [count(times)])
    return grid


def contributors_grid(results: Record) -> Grid | None:
    """Make the table of the sites whose patients are in the sums, a line for every part and set of sites."""
    by_sites: dict[tuple[str, tuple[str, ...]], Counter[str]] = {}
    for part, statistics in (results.get("contributors") or {}).items():
        for name, sums in statistics.items():
            for entry in sums:
                by_sites.setdefault((part, tuple(entry["sites"])), Counter())[name] += entry["sums"]
    if not by_sites:
        return None
    grid = Grid("Sites whose patients are in the sums, by cohort.", ["Cohort", "Sites", "Sums", "Statistics"])
    for (part, sites), names in by_sites.items():
        grid.row(cohort_label(part), [", ".join(map(words, sites)), count(names.total()), ", ".join(names)])
    return grid


def released_line(results: Record) -> str:
    """Say how many numbers were released, of how many that may be, and what there is to beware of."""
    released = results.get("released_numbers")
    if not released:
        return ""
    limit = released["limit"]
    of = "no limit was set" if limit is None else f"of {count(limit)} that the study allows a site"
    each = f"{released['per_value']:.2g} for each value of the sites' tables"
    warning = f" Warning: {released['warning']}." if "warning" in released else ""
    return f"{count(released['numbers'])} numbers in all sums ({of}), {each}.{warning}"


def held_by_grid(results: Record) -> Grid | None:
    """Make the table of the sites that each cohort's figures come from; subgroups are those of their cohort."""
    held_by = {name: sites for name, sites in (results.get("held_by") or {}).items() if _is_whole(name)}
    if not held_by:
        return None
    grid = Grid("Sites that took part in each cohort's figures.", ["Cohort", "Sites", "Sent as"])
    for name, sites in held_by.items():
        how = "sums over sites" if len(sites) > 1 else "finished figures"
        grid.row(cohort_label(name), [", ".join(map(words, sites)), how])
    return grid


def _is_whole(cohort: str) -> bool:
    return all(subset.startswith("site:") for subset in cohort.split("/")[1:])


def missing_figures(results: Record) -> list[dict[str, Any]]:
    """Collect every withheld or undefined figure, by reason.

    Returns
    -------
    list of {"kind", "reason", "places"}
    """
    found: dict[Absent, list[str]] = {}
    for name, model in (results.get("models") or {}).items():
        _collect(model, [words(name)], found)
    for entry in results.get("table_one") or []:
        _collect(entry, ["Table 1", words(entry.get("variable", "")), cohort_label(entry.get("cohort", ""))], found)
    for entry in results.get("comparisons") or []:
        place = f"{words(entry.get('a', ''))} against {words(entry.get('b', ''))}"
        _collect(entry, ["Comparison", place, cohort_label(entry.get("cohort", ""))], found)
    return [{"kind": kind, "reason": reason, "places": places} for (kind, reason), places in found.items()]


def _collect(figure: Any, place: list[str], found: dict[Absent, list[str]]) -> None:
    missing = absent(figure)
    if missing:
        found.setdefault(missing, []).append(", ".join(part for part in place if part))
    elif isinstance(figure, Mapping):
        for key, value in figure.items():
            _collect(value, [*place, *_place(key)], found)
    elif isinstance(figure, list):
        for value in figure:
            if isinstance(value, Mapping):
                _collect(value, place, found)


def _place(key: str) -> list[str]:
    if key in ("cohorts", "coefficients", "groups"):
        return []
    if key.partition("/")[0] in COHORTS:
        return [cohort_label(key)]
    return [{"auc": "AUC", "roc": "ROC curve", "pr": "precision-recall curve"}.get(key, words(key))]


def kind_label(kind: str) -> str:
    """Name a kind of model for a reader."""
    return KINDS.get(kind, words(kind).capitalize())
