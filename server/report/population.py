"""Population: who was given, excluded and used at every site, and Table 1."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohortium.server.report.grid import Grid
from cohortium.server.report.measures import look_up
from cohortium.server.report.text import COHORTS, absent, cohort_label, count, number, p_value, percent, words

Record = Mapping[str, Any]
COUNTED = ("binary", "categorical")
PARTS = ("train", "internal", "external")
DIFFERENCE = "SMD"
RANKS = "p_mann_whitney"
TESTS = {
    "t": "Student's t test",
    "anova": "analysis of variance",
    "chi2": "the chi-squared test",
    "fisher": "Fisher's exact test",
}


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
    """Make Table 1: rows a variable or level, and for every cohort a column a group and one of p values.

    Parameters
    ----------
    entries : sequence of mapping
        As strategies/table_one.py writes them.
    """
    if not entries:
        return None
    cohorts = list(dict.fromkeys(sorted((_cohort(entry) for entry in entries), key=_cohort_rank)))
    groups = list(dict.fromkeys(group for entry in entries for group in _groups(entry)))
    tests = [TESTS[test] for test in TESTS if any(entry.get("test") == test for entry in entries)]
    last = ["p", DIFFERENCE] if any("standardised_difference" in entry for entry in entries) else ["p"]
    heads = [head for cohort in cohorts for head in (*(_head(entries, cohort, group) for group in groups), *last)]
    explained = f" {DIFFERENCE}: standardised difference, second group less first." if len(last) > 1 else ""
    if any(RANKS in entry for entry in entries):
        explained += " p beside medians: Mann-Whitney test; patients of one bin of values count as tied."
    grid = Grid(
        caption + (f" p by {', '.join(tests)}." if tests else "") + explained,
        ["", *heads],
        [(cohort_label(cohort), len(groups) + len(last)) for cohort in cohorts],
    )
    for variable in dict.fromkeys(entry["variable"] for entry in entries):
        by_cohort = {_cohort(entry): entry for entry in entries if entry["variable"] == variable}
        _variable(grid, variable, [by_cohort.get(cohort, {}) for cohort in cohorts], groups)
    return grid


def _head(entries: Sequence[Record], cohort: str, group: str) -> str:
    label = {"0": "No event", "1": "Event", "all": "All"}.get(group, words(group))
    for entry in entries:
        figure = _groups(entry).get(group) if _cohort(entry) == cohort else None
        known, missing = (figure or {}).get("n"), (figure or {}).get("missing", 0)
        if isinstance(known, int) and isinstance(missing, int):
            return f"{label} (n\u202f=\u202f{count(known + missing)})"
    return label


def _cohort(entry: Record) -> str:
    return entry.get("cohort", "train")


def _cohort_rank(cohort: str) -> int:
    return list(COHORTS).index(cohort) if cohort in COHORTS else len(COHORTS)


def _variable(grid: Grid, variable: str, entries: Sequence[Record], groups: Sequence[str]) -> None:
    unit = next((f", {entry['unit']}" for entry in entries if entry.get("unit")), "")
    levels = _in_order([level for entry in entries for level in _levels(entry)])
    if levels or any(entry.get("kind") in COUNTED for entry in entries):
        _row(grid, f"{words(variable)}{unit}, n (%)", entries, groups, lambda _: "")
        for level in levels:
            _row(grid, level, entries, groups, lambda figure, level=level: _share(figure, level), with_p=False)
    else:
        _row(grid, f"{words(variable)}{unit}, mean (SD)", entries, groups, _mean)
        if any("median" in figure for entry in entries for figure in _figures(entry)):
            _row(grid, "median [quartiles]", entries, groups, _median, with_p=False, also=RANKS)
    if any(figure.get("missing") for entry in entries for figure in _figures(entry)):
        _row(grid, "missing", entries, groups, _missing, with_p=False)


def _row(
    grid: Grid,
    head: str,
    entries: Sequence[Record],
    groups: Sequence[str],
    write: Callable[[Any], str],
    *,
    with_p: bool = True,
    also: str = "",
) -> None:
    cells = []
    for entry in entries:
        figures = _groups(entry)
        of_groups = [entry if absent(entry) else figures.get(group) for group in groups]
        # Why a whole group is not there is said once, in the variable's first row.
        cells += [grid.cell(figure, write) if with_p or not absent(figure) else "" for figure in of_groups]
        told = with_p and not absent(entry)
        shown = "p" if told else also
        cells.append(grid.cell(entry.get(shown), p_value) if told or shown in entry else "")
        if DIFFERENCE in grid.columns:
            difference = entry.get("standardised_difference") if told else None
            cells.append(grid.cell(difference, lambda d: number(d, 2)) if difference is not None else "")
    grid.row(head, cells, indented=not with_p)


def _figures(entry: Record) -> list[Record]:
    return [figure for figure in _groups(entry).values() if not absent(figure)]


def _groups(entry: Record) -> Record:
    """Figures by group, and of all of them together."""
    overall = {"all": entry["overall"]} if "overall" in entry else {}
    return {**overall, **(entry.get("groups") or {})}


def _levels(entry: Record) -> list[str]:
    return [str(level) for figure in _figures(entry) for level in figure.get("levels") or ()]


def _in_order(levels: Sequence[str]) -> list[str]:
    """Each level once; "LEVEL or missing" beside LEVEL, which another cohort may tell apart."""
    bases = list(dict.fromkeys(level.removesuffix(" or missing") for level in levels))
    return sorted(dict.fromkeys(levels), key=lambda level: bases.index(level.removesuffix(" or missing")))


def _share(figure: Record, level: str) -> str:
    counts = {str(name): n for name, n in figure["levels"].items()}
    missing = absent(counts.get(level))
    if missing:
        return missing.kind
    if level not in counts:  # another cohort counts missing values with it
        return "–"
    n = counts.get(level, 0)
    return f"{count(n)} ({percent(n, sum(m for m in counts.values() if isinstance(m, int)))})"


def _missing(figure: Record) -> str:
    missing = absent(figure.get("missing", 0))
    return missing.kind if missing else count(figure.get("missing", 0))


def _mean(figure: Record) -> str:
    return f"{_number(figure.get('mean'))} ({_number(figure.get('sd'))})"


def _median(figure: Record) -> str:
    if "median" not in figure:  # of all groups together
        return "–"
    return f"{_number(figure.get('median'))} [{_number(figure.get('q1'))}–{_number(figure.get('q3'))}]"


def _number(value: Any) -> str:
    missing = absent(value)
    return missing.kind if missing else "–" if value is None else number(value, 1 if abs(value) >= 1 else 2)
