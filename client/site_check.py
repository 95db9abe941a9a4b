"""Site check: everything a study would need of a site, looked at and written down for the site; nothing is sent.

Patients are read as the study would read them and every image and contour is opened, but nothing is measured.
"""

import csv
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from cohortium.client.imaging.case import CaseFiles, Recipe
from cohortium.client.imaging.examine import Examined, examine
from cohortium.client.imaging.processes import Processes
from cohortium.client.imaging.site_images import draw_regions, files_of
from cohortium.client.imaging.workers import DIED
from cohortium.client.quality_report import Case, write_page, write_sheet
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.progress import NullProgress
from cohortium.common.study import Study
from cohortium.sites.flow import Exclusion
from cohortium.sites.patients import Column, Patients
from cohortium.sites.site_file import Site

PAGE, FINDINGS, DICTIONARY = "check.html", "findings.csv", "dictionary.csv"
IDENTITY = ("may identify its patient", "burned-in annotation", "secondary capture")
"""Words of findings that a person must act on before anything is used."""
WAITING = 64
"""Cases handed to the processes at a time: enough that none idles, few enough to hold in memory."""


@dataclass
class ImageCheck:
    """What was found in the images: (patient, reason, where, refuses), and who cannot be used."""

    findings: list[tuple[str, str, str, bool]] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)

    @property
    def identifying(self) -> int:
        """How many findings concern the identity of patients."""
        return sum(any(words in reason for words in IDENTITY) for _, reason, _, _ in self.findings)


def check_site(
    study: Study,
    site: Site,
    patients: Patients,
    columns: list[Column],
    out: Path,
    *,
    pool: Processes | None = None,
    progress: NullProgress | None = None,
) -> tuple[Patients, ImageCheck]:
    """Open all images of the patients and write the page, the findings and the dictionary into `out`.

    Parameters
    ----------
    patients : Patients
        With all their files there.
    pool : Processes, optional
        Processes to look at cases; this one without.

    Returns
    -------
    patients : Patients
        Less those whose images cannot be used.
    ImageCheck

    Raises
    ------
    SiteError
        A disk, share or right is missing, or `out` cannot be written.
    """
    found = ImageCheck()
    recipe = Recipe.of(study)
    ids = patients.frame["patient_id"].tolist() if study.features else []
    shown: dict[str, Case] = {}
    cases = [files_of(site, recipe, patient) for patient in ids]
    steps = progress or NullProgress()
    drawn, failed = draw_regions(study, site, cases, pool=pool, progress=steps, cache=site.workspace / "cases")
    # Who has no region is looked at without it
    cases = drawn + [files for files in cases if files.patient_id in failed]
    with steps.stage(f"{site.name}: look at images", total=len(ids)) as step:
        for files, seen in _looked_at(cases, recipe, pool):
            patient = files.patient_id
            if patient in failed and not any(refuses for _, _, refuses in seen.findings):
                seen.findings.append((failed[patient].reason, failed[patient].detail, True))
            found.findings += [(patient, reason, where, refuses) for reason, where, refuses in seen.findings]
            sheet = write_sheet(out, len(shown) + 1, seen.sheet)
            shown[patient] = Case(
                patient_id=patient, geometry=seen.geometry, volumes_ml=seen.volumes_ml, findings=seen.findings,
                sheet=sheet,
            )  # fmt: skip
            step.advance()
    for patient in ids:
        refusing = [(reason, where) for reason, where, refuses in shown[patient].findings if refuses]
        found.exclusions += [Exclusion(patient, *refusing[0])] if refusing else []
    left = patients.without(found.exclusions, study)
    _write(out, found, columns)
    write_page(
        out / PAGE,
        title=f"{site.name} in {study.study.name}: check",
        flow=left.flow,
        exclusions=left.exclusions,
        cases=[shown[patient] for patient in ids],
        columns=columns,
    )
    return left, found


def _looked_at(cases: list[CaseFiles], recipe: Recipe, pool: Processes | None) -> Iterator[tuple[CaseFiles, Examined]]:
    if pool is None:
        yield from ((files, examine(files, recipe)) for files in cases)
        return
    pending = {}
    for files in cases:
        pending[pool.submit(examine, files, recipe)] = files
        if len(pending) >= WAITING:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), _seen(future)
    while pending:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            yield pending.pop(future), _seen(future)


def _seen(future: Future) -> Examined:
    """What was found in a case; where its files crashed the process (imaging/processes.py), that."""
    try:
        return future.result()
    except BrokenProcessPool as died:
        raise SiteError(DIED) from died
    except CaseError as crashed:
        return Examined([(crashed.reason, crashed.detail, True)], {}, {}, b"")


def _write(out: Path, found: ImageCheck, columns: list[Column]) -> None:
    problems = [(c.name, c.local, c.kind, c.unit, c.given, c.missing, sum(c.problems.values())) for c in columns]
    tables = {
        FINDINGS: [("patient_id", "finding", "where", "refuses"), *found.findings],
        DICTIONARY: [("variable", "column", "kind", "unit", "given", "missing", "not_usable"), *problems],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            with (out / name).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(rows)
    except OSError as broken:
        raise SiteError(f"folder {out}: {broken.strerror}; check its rights and the free space") from broken
