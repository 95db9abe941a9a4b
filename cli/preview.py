"""`cohortium site preview`: what would leave this site in a study, statistic by statistic, before anything does."""

from pathlib import Path

import typer

from cohortium.cli.site import HERE, SitePath
from cohortium.cli.study import StudyPath


def preview(study: StudyPath, site: SitePath = HERE) -> None:
    """Rehearse the study on this site's prepared table and print what would leave. Sends nothing."""
    from cohortium.common.errors import SiteError
    from cohortium.common.study import load_study
    from cohortium.common.table import Table
    from cohortium.simulation.preview import preview as rehearse
    from cohortium.sites.prepared import TABLE, prepared_folder
    from cohortium.sites.site_file import load_site

    agreed, here = load_study(study), load_site(site)
    path: Path = prepared_folder(here.workspace, agreed.hash) / TABLE
    if not path.exists():
        raise SiteError(f"site {here.name} has no prepared table for this study; run cohortium site prepare first")
    table = Table.read(path)
    found = rehearse(agreed, table, here.site.allow)
    typer.echo(f"site {here.name}, study {agreed.study.name} ({agreed.hash[:12]}): what would leave\n")
    masked = "under masks, readable only in the sum over all sites" if agreed.privacy.secure_aggregation else "UNMASKED"
    typer.echo("once, in the clear: flow counts (given, excluded by reason, used) and names of features")
    typer.echo(f"sums, {masked}:")
    typer.echo(f"  {'statistic':<28} {'part':<10} {'asked':>6} {'counts':>10} {'numbers':>10}  held back")
    for entry in found.sums:
        typer.echo(
            f"  {entry.statistic:<28} {entry.part:<10} {entry.times:>6} {entry.counts:>10} {entry.numbers:>10}  "
            f"{entry.held_back or '-'}"
        )
    if not found.sums:
        typer.echo("  zeros: this site holds no training patients, its shares of training sums are empty")
    if found.finished:
        typer.echo("finished figures, computed here and sent as such: " + ", ".join(found.finished))
    if found.stopped:
        typer.echo(f"the rehearsal went no further on this site's patients alone: {found.stopped}")
