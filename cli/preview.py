"""`cohortium site preview`: what would leave this site in a study, statistic by statistic, before anything does."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cohortium.cli.site import HERE, SitePath
from cohortium.cli.study import StudyPath

if TYPE_CHECKING:
    from cohortium.common.study import Study


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
    typer.echo(f"  {'statistic':<38} {'part':<10} {'asked':>6} {'zeros':>6} {'counts':>10} {'numbers':>10}  held back")
    for entry in found.sums:
        sizes = f"{entry.times:>6} {entry.zeros:>6} {entry.counts:>10} {entry.numbers:>10}"
        typer.echo(f"  {entry.statistic:<38} {entry.part:<10} {sizes}  {entry.held_back or '-'}")
    typer.echo("  asked: as if every site held this one's patients. zeros: answers about no patient of this site, of")
    typer.echo("  parts that it does not hold and of fits without it; what stands there is zero under its masks")
    if found.finished:
        typer.echo("finished figures, computed here and sent as such, unless the cohort is too small:")
        for line in _finished(agreed, here.name, found.finished):
            typer.echo(f"  {line}")
    if found.stopped:
        typer.echo(f"the rehearsal went no further on this site's patients alone: {found.stopped}")
        typer.echo("what else is asked: cohortium study releases")
    typer.echo("already left in this study, by the ledger:")
    for line in _left(agreed, here.workspace):
        typer.echo(f"  {line}")


def _finished(study: "Study", site: str, names: Iterable[str]) -> Iterator[str]:
    """What each finished cohort tells, and Table 1 of its part."""
    from cohortium.server.release_figures import figure_names, study_cohorts
    from cohortium.server.stages.cohorts import finished_at

    specs = finished_at(study, study_cohorts(study), site)
    for name in names:
        models = ", ".join(model.name for model in specs[name].models)
        yield f"{name}: of {models}: {', '.join(figure_names(study, specs[name]))}"
    alone = [specs[name].part for name in names if not study.hides_its_sites(specs[name].part)]
    if study.variable and alone:
        parts = ", ".join(dict.fromkeys(alone))
        yield f"Table 1 of {parts}: {', '.join(study.variables)}"


def _left(study: "Study", workspace: Path) -> Iterator[str]:
    """What the site's ledger knows of this study: nothing, or a line a kind of message."""
    from cohortium.common.errors import SiteError
    from cohortium.common.ledger import Ledger

    messages: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    runs, broken = set(), ""
    try:
        for entry in Ledger(workspace).entries():
            if entry.get("study") == study.hash and entry.get("kind") != "approval":
                key = (str(entry.get("kind")), str(entry.get("outcome")))
                messages[key] += 1
                size[key] += int(entry.get("bytes", 0))
                runs.add(entry.get("run"))
    except SiteError as found:
        broken = str(found)
    if not messages:
        yield "nothing"
    for kind, outcome in messages:
        yield f"{kind:<10} {outcome:<10} {messages[kind, outcome]:>6} messages {size[kind, outcome]:>12,} bytes"
    if messages:
        yield f"in {len(runs)} run{'s' * (len(runs) > 1)}; line by line: cohortium site log"
    if broken:
        yield f"and more may have left: {broken}"
