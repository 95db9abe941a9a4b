"""Cohorts: the patients of a study's parts at this site, beside those that it has summed before.

The door asks for them with every sum; the person who approves a changed cohort sees how much it differs. What is told
here stays at the site.
"""

from pathlib import Path
from typing import NamedTuple

from cohortium.client.standing import Standing, runtime_folder
from cohortium.common.errors import SiteError
from cohortium.common.study import Study
from cohortium.common.sum_cohort import Cohort, differing, name_of, rows_of
from cohortium.common.sum_store import SumStore
from cohortium.common.table import Table
from cohortium.sites.approvals import read_approvals
from cohortium.sites.prepared import TABLE, prepared_folder


def cohort_of(standing: Standing, part: str) -> Cohort:
    """The patients of a part, as the store of sums tells them apart."""
    table = standing.context.table
    rows = standing.context.once(
        ("cohort", part), lambda: rows_of(standing.sums.secret(), table.patient_id[table.part == part])
    )
    approved = name_of(part, rows).hex() in read_approvals(standing.workspace).hashes("cohort")
    return Cohort(part, rows, standing.study.privacy.minimum_count, approved)


class Change(NamedTuple):
    """A prepared cohort beside one that was summed: how many patients are in one of them only, and in both."""

    part: str
    digest: str
    patients: int
    before: int
    differ: int
    shared: int


def changes(study: Study, workspace: Path) -> list[Change]:
    """The prepared cohorts of a study that are not those which were summed before; one entry a pair.

    Raises
    ------
    SiteError
        The study is not prepared; a cohort differs by so few patients that no approval would do.
    """
    path = prepared_folder(workspace, study.hash) / TABLE
    if not path.exists():
        raise SiteError(f"study {study.study.name}: not prepared at this site; run cohortium site prepare first")
    table = Table.read(path)
    store = SumStore(workspace, runtime_folder(workspace))
    secret, frozen = store.secret(), store.frozen()
    found = []
    for part in study.parts_of(table.site):
        patients = table.patient_id[table.part == part]
        rows = rows_of(secret, patients)
        for known in frozen:
            differ, shared = differing(rows, known.rows)
            if not differ or (known.part != part and not shared):
                continue
            before = differ + 2 * shared - len(patients)
            found.append(Change(part, name_of(part, rows).hex(), len(patients), before, differ, shared))
    least = study.privacy.minimum_count
    for change in found:
        if change.differ < least:
            raise SiteError(
                f"part {change.part}: {change.differ} patients differ from a cohort that was summed before, at least "
                f"minimum_count = {least} must, or none: two such sums tell these few apart. Prepare the same patients"
            )
    return found
