"""Population: who was given, excluded and used at every site, and Table 1."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohortium.server.report.grid import Grid
from cohortium.server.report.measures import look_up
from cohortium.server.report.text import COHORTS, absent, cohort_label, count, number, p_value, percent, words

Record = Mapping[str, Any]
PARTS = ("train", "internal", "external")


def flow(results: Record) -> dict[str, Any]:
    """Count patients over all sites: given, excluded by reason, used, by part."""
    sites = results.get("sites", [])
    reasons: Counter[str] = Counter()
    for site in sites:
        reasons.update(site.get("excluded") or {})
    parts = part_sizes(results)
    return {
        "given": sum(site.get("given", 0) for site in sites),
        "excluded": sum(reasons.values()),
        "reasons": reasons.most_common(),
        "used": sum(site.get("used", 0) for site in sites),
        "sites": len(sites),
        "parts": [(COHORTS[part], parts[part]) for part in PARTS if part in parts],
    }


def part_sizes(results: Record) -> dict[str, int]:
    """Patients of each part, the most that any model has (a model of a secondary endpoint may have fewer)."""
    sizes: dict[str, int] = {}
    for model in results.get("models", {}).values():
        for cohort, record in (model.get("cohorts") or {}).items():
            n = look_up(record, "n")
            if cohort in PARTS and isinstance(n, int):
                sizes[cohort] = max(n, sizes.get(cohort, 0))
    return sizes


def site_bars(results: Record) -> list[dict[str, Any]]:
    """A bar a site: share of the largest site's patients used and excluded, and the same in words."""
    sites = results.get("sites", [])
    largest = max((site.get("given", 0) for site in sites), default=0) or 1
    return [
        {
            "name": words(site["name"]),
            "role": {"train": "training"}.get(site.get("role", ""), words(site.get("role", ""))),
            "given": count(site.get("given", 0)),
            "used": count(site.get("used", 0)),
            "excluded": count(sum((site.get("excluded") or {}).values())),
            "reasons": "; ".join(f"{reason} {n}" for reason, n in (site.get("excluded") or {}).items()),
            "used_percent": round(100 * site.get("used", 0) / largest, 2),
            "excluded_percent": round(100 * sum((site.get("excluded") or {}).values()) / largest, 2),
        }
        for site in sites
    ]


def table_one(entries: Sequence[Record], caption: str) -> Grid | None:
    """Make Table 1: a row a variable or level, and for every cohort a column a group and one of p values.

    Parameters
    ----------
    entries : sequence of mapping
        ``{"variable", "kind", "unit", "cohort", "groups": {"0": {...}, "1": {...}}, "p"}``. A group of a continuous
        variable holds ``mean`` and ``sd`` or ``median``, ``q1`` and ``q3``; one of a counted variable ``n`` and
        ``levels`` (level to count); both may hold ``missing``.
    """
    if not entries:
        return None
    cohorts = list(dict.fromkeys(sorted((_cohort(entry) for entry in entries), key=_cohort_rank)))
    groups = list(dict.fromkeys(group for entry in entries for group in entry.get("groups") or ()))
    heads = [{"0": "No event", "1": "Event", "all": "All"}.get(group, words(group)) for group in groups] + ["p"]
    grid = Grid(caption, ["", *heads * len(cohorts)], [(cohort_label(cohort), len(heads)) for cohort in cohorts])
    for variable in dict.fromkeys(entry["variable"] for entry in entries):
        by_cohort = {_cohort(entry): entry for entry in entries if entry["variable"] == variable}
        _variable(grid, variable, [by_cohort.get(cohort, {}) for cohort in cohorts], groups)
    return grid


def _cohort(entry: Record) -> str:
    return entry.get("cohort", "train")


def _cohort_rank(cohort: str) -> int:
    return list(COHORTS).index(cohort) if cohort in COHORTS else len(COHORTS)


def _variable(grid: Grid, variable: str, entries: Sequence[Record], groups: Sequence[str]) -> None:
    unit = next((f", {entry['unit']}" for entry in entries if entry.get("unit")), "")
    levels = list(dict.fromkeys(level for entry in entries for level in _levels(entry)))
    if levels:
        _row(grid, f"{words(variable)}{unit}, n (%)", entries, groups, lambda _: "")
        for level in levels:
            _row(grid, level, entries, groups, lambda figure, level=level: _share(figure, level), with_p=False)
    else:
        spread = "median [quartiles]" if _has(entries, "median") and not _has(entries, "mean") else "mean (SD)"
        _row(grid, f"{words(variable)}{unit}, {spread}", entries, groups, _spread)
    if any(figure.get("missing") for entry in entries for figure in _figures(entry)):
        _row(grid, "missing", entries, groups, lambda figure: count(figure.get("missing", 0)), with_p=False)


def _row(
    grid: Grid,
    head: str,
    entries: Sequence[Record],
    groups: Sequence[str],
    write: Callable[[Any], str],
    *,
    with_p: bool = True,
) -> None:
    cells = []
    for entry in entries:
        figures = entry.get("groups") or {}
        cells += [grid.cell(entry if absent(entry) else figures.get(group), write) for group in groups]
        cells.append(grid.cell(entry.get("p"), p_value) if with_p else "")
    grid.row(head, cells, indented=not with_p)


def _figures(entry: Record) -> list[Record]:
    return [figure for figure in (entry.get("groups") or {}).values() if not absent(figure)]


def _levels(entry: Record) -> list[str]:
    return [str(level) for figure in _figures(entry) for level in figure.get("levels") or ()]


def _has(entries: Sequence[Record], key: str) -> bool:
    return any(key in figure for entry in entries for figure in _figures(entry))


def _share(figure: Record, level: str) -> str:
    counts = {str(name): n for name, n in figure["levels"].items()}
    missing = absent(counts.get(level))
    if missing:
        return missing.kind
    n = counts.get(level, 0)
    return f"{count(n)} ({percent(n, sum(m for m in counts.values() if isinstance(m, int)))})"


def _spread(figure: Record) -> str:
    if "mean" in figure:
        return f"{number(figure['mean'], 1)} ({number(figure['sd'], 1)})"
    return f"{number(figure['median'], 1)} [{number(figure['q1'], 1)}–{number(figure['q3'], 1)}]"
