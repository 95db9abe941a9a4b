"""`cohortium site log`: read and verify a site's ledger, for the hospital and whoever looks after its data."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cohortium.cli.site import HERE, SitePath


def log(
    workspace: Annotated[
        Path | None, typer.Option(help="The site's workspace; default: that of the site file.")
    ] = None,
    site: SitePath = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with every line in full.")] = False,
    noted: Annotated[str, typer.Option(help="A digest that this command gave before: must be in the ledger.")] = "",
) -> None:
    """Print and verify what left this site and what it approved, oldest first; the ledger holds no numbers.

    The code is 2 if the ledger was tampered with; lines before the first broken one are printed.
    """
    from cohortium.common.errors import SiteError
    from cohortium.common.ledger import Ledger
    from cohortium.sites.site_file import load_site

    folder = workspace or load_site(site).workspace
    if not folder.is_dir():
        raise SiteError(f"workspace {folder}: there is no such folder; give the site's with --workspace")
    ledger, entries, broken = Ledger(folder), [], None
    try:
        for entry in ledger.entries():
            entries.append(entry)
            if not as_json:
                typer.echo("  ".join(_words(entry)))
        if noted and not ledger.holds(noted.strip().lower()):
            broken = SiteError(
                "ledger: no line has the digest that was noted; it was written anew since, or is another"
            )
    except SiteError as found:
        broken = found
    head = ledger.head()
    if as_json:
        state = {"whole": broken is None, "broken": str(broken) if broken else None}
        typer.echo(json.dumps({**state, "lines": head.lines, "digest": head.digest, "entries": entries}, indent=1))
    if broken is not None:
        raise broken
    if not as_json:
        messages = sum(entry.get("kind") != "approval" for entry in entries)
        typer.echo(f"{messages} messages left this site; the ledger is whole: {head.lines} lines, digest {head.digest}")


def _words(entry: dict[str, Any]) -> list[str]:
    """One line of the ledger, shortened to read; the file itself has the digests in full."""
    time, kind = str(entry.get("time", "?")), str(entry.get("kind", "?"))
    by = "approved by " + " and ".join(dict.fromkeys(entry.get("approved_by", ()))) if entry.get("approved_by") else "-"
    if kind == "approval":
        what = str(entry.get("what", "?"))
        wider = [f"opted into {', '.join(entry['opt_ins'])}"] if entry.get("opt_ins") else []
        return [time, f"{what} {str(entry.get(what, '?'))[:12]}", kind, str(entry.get("name", "?")), *wider, by]
    return [
        time,
        f"study {str(entry.get('study', '?'))[:12]}",
        kind,
        ",".join(entry.get("statistics", ())) or "-",
        ",".join(entry.get("parts", ())) or "-",
        str(entry.get("outcome", "?")),
        f"{entry.get('bytes', '?')} bytes",
        f"sha256 {str(entry.get('sha256', '?'))[:12]}",
        by,
    ]
