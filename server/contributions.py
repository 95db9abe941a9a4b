"""Contributions: which sites every sum of a run is made of, and how many numbers were released in all.

Read from the log of the run, so that a resumed run tells the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cohortium.common.study import Study

LARGE_SHARE = 0.5
"""Released numbers a value of the table above which a study is told so (a cross-validated LASSO path releases tens)."""


def contributors(study: Study, log: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Part -> statistic -> the sites whose patients are in its sums, with the number of such sums.

    Where a site dropped out of some rounds of a network, a statistic has several entries.
    """
    counted: dict[str, dict[str, dict[tuple[str, ...], int]]] = {}
    for line in log:
        if line["kind"] == "sum" and line["outcome"] == "answered":
            for part, statistic in line["asked"]:
                sites = tuple(site for site in study.sites_of(part) if site in line["sites"])
                sums = counted.setdefault(part, {}).setdefault(statistic, {})
                sums[sites] = sums.get(sites, 0) + 1
    return {
        part: {
            statistic: [{"sites": list(sites), "sums": times} for sites, times in sums.items()]
            for statistic, sums in sorted(of_part.items())
        }
        for part, of_part in sorted(counted.items())
    }


def released(
    study: Study, log: Sequence[Mapping[str, Any]], patients: int, columns: int
) -> dict[str, int | float | str | None]:
    """Numbers in all sums of a run, and how many they are for each value of the sites' tables.

    Parameters
    ----------
    patients, columns : int
        Of all prepared tables together; outcomes count as columns.
    """
    numbers = sum(line["numbers"] for line in log if line["kind"] == "sum" and line["outcome"] == "answered")
    share = numbers / max(patients * columns, 1)
    limit = study.privacy.released_numbers
    found: dict[str, int | float | str | None] = {"numbers": numbers, "limit": limit, "per_value": share}
    if limit is None and share > LARGE_SHARE:
        found["warning"] = (
            f"{share:.2g} numbers were released for each value of the tables, and privacy.released_numbers sets no "
            "limit; numbers of many sums together can tell more than each"
        )
    return found
