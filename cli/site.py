"""Site commands that need no connection: describe the data, check it, prepare it, approve; for a hospital."""

import getpass
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohortium.cli.study import StudyPath, summary
from cohortium.common.errors import SiteError

if TYPE_CHECKING:
    from cohortium.client.site_check import ImageCheck
    from cohortium.common.study import Study
    from cohortium.sites.flow import Exclusion
    from cohortium.sites.patients import Column, Patients
    from cohortium.sites.site_file import Site

SitePath = Annotated[Path, typer.Option("--site", help="site.toml, or the folder that holds it.")]
SHOWN_EXCLUSIONS = 20
HERE = Path("site.toml")


def init(
    name: Annotated[str, typer.Argument(help="Name of this site in studies.")],
    study: Annotated[Path | None, typer.Option(help="List the columns and images that this study needs.")] = None,
    site: SitePath = HERE,
) -> None:
    """Write a commented site.toml."""
    from cohortium.sites.site_template import site_template

    if site.exists():
        raise SiteError(f"site file {site}: exists already; remove it or name another with --site")
    text = site_template(name, _study(study) if study else None)
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {site}; name your files in it, then run: cohortium site check STUDY --site {site}")


def check(
    study: StudyPath,
    site: SitePath = HERE,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that look at images.")] = os.cpu_count() or 1,
    files_only: Annotated[bool, typer.Option("--files-only", help="Look whether images are there, open none.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a stage.")] = False,
) -> None:
    """Read patients and images as the study would, and print what would be used. Writes a page; sends nothing.

    Exit status 1: something in the images may name a patient.
    """
    from cohortium.sites.image_files import check_patterns, missing_files, needed_images
    from cohortium.sites.patients import dictionary, read_patients

    agreed, here = _study(study), _site(site)
    check_patterns(agreed, here)
    patients = read_patients(agreed, here)
    columns = dictionary(agreed, here)
    missing = [missing_files(agreed, here, patient_id) for patient_id in patients.frame["patient_id"]]
    patients = patients.without([exclusion for exclusion in missing if exclusion is not None], agreed)
    looked = None
    if agreed.features and not files_only:
        patients, looked = _look(agreed, here, patients, columns, jobs, quiet=quiet)

    flow = patients.flow
    parts = ", ".join(f"{part} {n}" for part, n in patients.counts_by_part.items())
    typer.echo(f"site      {here.name} in study {agreed.study.name} ({agreed.hash[:12]})")
    typer.echo(f"given     {flow.given} rows of {here.patients_file.resolve()}")
    for reason, n in flow.excluded.items():
        typer.echo(f"excluded  {n}: {reason}")
    typer.echo(f"used      {flow.used}" + (f" ({parts})" if parts else ""))
    for column in columns:
        unit = f" ({column.unit})" if column.unit else ""
        found = "".join(f", {n} {reason}" for reason, n in column.problems.items() if not reason.endswith("is missing"))
        typer.echo(f"column    {column.name} <- {column.local}: {column.kind}{unit}, {column.missing} missing{found}")
    for name in patients.frame.columns.drop(["patient_id", "part"]):
        unknown = int(patients.frame[name].isna().sum())
        if unknown:
            typer.echo(f"missing   {unknown} of {flow.used}: {name}")
    for image, regions in needed_images(agreed).items():
        typer.echo(f"image     {image}" + (f" with mask of {', '.join(regions)}" if regions else ""))
    for part in agreed.parts_of(here.name):
        if part not in patients.counts_by_part:
            typer.echo(f"note      no usable patient in part {part}; the site answers with zeros there")
    _print_exclusions(patients.exclusions)
    if looked is not None:
        _print_findings(looked)


def _look(
    study: "Study", site: "Site", patients: "Patients", columns: "list[Column]", jobs: int, *, quiet: bool
) -> "tuple[Patients, ImageCheck]":
    """Open all images; the page and its tables go into the site's workspace."""
    from cohortium.client.imaging.workers import worker_pool
    from cohortium.client.site_check import PAGE, check_site
    from cohortium.common.progress import Progress

    out = site.workspace / "checks" / study.hash[:12]
    with worker_pool(min(jobs, max(len(patients.frame), 1))) as pool:
        looked = check_site(study, site, patients, columns, out, pool=pool, progress=Progress(quiet=quiet))
    typer.echo(f"page      {out / PAGE}")
    return looked


def _print_findings(looked: "ImageCheck") -> None:
    """How often each finding was made; where, says the page. Ends with status 1 if one concerns identity."""
    told = Counter(reason for _, reason, _, refuses in looked.findings if not refuses)
    for reason, n in told.items():
        typer.echo(f"finding   {n}: {reason}")
    if looked.identifying:
        typer.echo(f"identity  {looked.identifying} findings may name a patient; de-identify these files first")
        raise typer.Exit(1)


def prepare(
    study: StudyPath,
    site: SitePath = HERE,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that work on images.")] = os.cpu_count() or 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the table; default: the site's workspace.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a stage.")] = False,
) -> None:
    """Turn patients and images into the prepared table. Resumable; sends nothing."""
    from cohortium.client.prepare import EXCLUDED, QUALITY
    from cohortium.client.prepare import prepare as prepare_site
    from cohortium.common.progress import Progress
    from cohortium.sites.prepared import prepared_folder

    agreed, here = _study(study), _site(site)
    folder = out or prepared_folder(here.workspace, agreed.hash)
    prepared = prepare_site(agreed, here, folder, jobs=jobs, progress=Progress(quiet=quiet))
    flow = prepared.flow
    typer.echo(f"prepared  {flow.used} of {flow.given} patients: {prepared.table}")
    for reason, n in flow.excluded.items():
        typer.echo(f"excluded  {n}: {reason}")
    if flow.excluded:
        typer.echo(f"cases     {folder / EXCLUDED}")
    if (folder / QUALITY).exists():
        typer.echo(f"page      {folder / QUALITY}")


def approve(
    study: Annotated[Path | None, typer.Argument(help="study.toml, or the folder that holds it.")] = None,
    roster: Annotated[Path | None, typer.Option(help="Approve this roster.toml.")] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Approve the patients prepared for this study beside those summed before.")
    ] = None,
    digest: Annotated[str, typer.Option("--hash", help="The hash you were told; must be that of the file.")] = "",
    opt_in: Annotated[
        list[str] | None, typer.Option(help="Agree to a wider key of the study; repeat for more.")
    ] = None,
    approved_by: Annotated[str, typer.Option("--by", help="Who approves; default: this account.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    site: SitePath = HERE,
) -> None:
    """Show a study and, or, a roster, and agree to them by hash; or a changed cohort of a study."""
    if study is None and roster is None and cohort is None:
        raise SiteError("site approve: nothing to approve; give a study file, --roster FILE or --cohort STUDY")
    if digest and study is not None and roster is not None:
        raise SiteError("site approve: --hash belongs to one file; approve the study and the roster one by one")
    from cohortium.common.roster import load_roster
    from cohortium.sites.approvals import approve_roster, approve_study

    here, now = _site(site), datetime.now(UTC).replace(microsecond=0)
    person = approved_by or getpass.getuser()
    if study is not None:
        agreed = _study(study)
        _ask(summary(agreed), "study", agreed.hash, digest, ask=not yes)
        opted = {*here.site.opt_ins, *(opt_in or ())}
        approve_study(here.workspace, agreed, approved_by=person, time=now, opt_ins=opted & set(agreed.opt_ins))
        typer.echo(f"approved study {agreed.hash}")
    if roster is not None:
        sites = load_roster(roster)
        lines = [f"{name:20} {identity}" for name, identity in sites.identities.items()]
        _ask(lines, "roster", sites.hash, digest, ask=not yes)
        approve_roster(here.workspace, sites, approved_by=person, time=now)
        typer.echo(f"approved roster {sites.hash}")
    if cohort is not None:
        _approve_cohort(_study(cohort), here.workspace, person, now, ask=not yes)


def _approve_cohort(study: "Study", workspace: Path, person: str, now: datetime, *, ask: bool) -> None:
    """Show how a study's patients differ from those that were summed before, and agree to sum them as well."""
    from cohortium.client.cohorts import changes
    from cohortium.sites.approvals import approve_cohort

    found = changes(study, workspace)
    for digest, part in {change.digest: change.part for change in found}.items():
        lines = [
            f"{part}: {change.patients} patients; of {change.before} summed before, {change.shared} are among them, "
            f"and {change.differ} are in one of the two only"
            for change in found
            if change.digest == digest
        ]
        _ask(lines, "cohort", digest, "", ask=ask)
        approve_cohort(workspace, digest, f"{part} of {study.study.name}", approved_by=person, time=now)
        typer.echo(f"approved cohort {digest}")
    if not found:
        typer.echo("these are the patients that were summed before, or the first ones; nothing is to be approved")


def _ask(lines: list[str], what: str, actual: str, told: str, *, ask: bool) -> None:
    """Show what is approved; a hash that was typed must be the file's, otherwise a person must say yes."""
    for line in lines:
        typer.echo(line)
    if told and told.strip().lower() != actual:
        raise SiteError(f"this {what} has hash {actual}, not {told}; ask the coordinator for the file that was meant")
    if ask and not told and not typer.confirm(f"approve {what} {actual}?"):
        raise SiteError(f"{what} {actual[:12]} was not approved; nothing was written")


def _print_exclusions(exclusions: "tuple[Exclusion, ...]") -> None:
    """Which patient and why; shown at the site, where the values belong."""
    for exclusion in exclusions[:SHOWN_EXCLUSIONS]:
        detail = f" ({exclusion.detail})" if exclusion.detail else ""
        typer.echo(f"case      {exclusion.patient_id}: {exclusion.reason}{detail}")
    if len(exclusions) > SHOWN_EXCLUSIONS:
        typer.echo(f"case      ... and {len(exclusions) - SHOWN_EXCLUSIONS} more")


def _study(path: Path) -> "Study":
    from cohortium.common.study import load_study

    return load_study(path)


def _site(path: Path) -> "Site":
    from cohortium.sites.site_file import load_site

    return load_site(path)
