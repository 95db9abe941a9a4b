"""`cohortium site log`: a site's ledger, verified, and its accounts, for the hospital and whoever protects its data."""

import json
from collections.abc import Iterator
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

    Below, of each approved study: released numbers and privacy spent, with the limits that were approved.
    The code is 2 if the ledger was tampered with; lines before the first broken one are printed.
    """
    from cohortium.client.accounts import account_of_all, accounts
    from cohortium.common.errors import SiteError
    from cohortium.common.ledger import Ledger
    from cohortium.sites.site_file import load_site

    if workspace is None:
        here = load_site(site)
        folder = here.workspace
    else:
        here, folder = None, workspace
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
    studies, together = [], None
    try:
        studies, together = accounts(folder), account_of_all(folder, here) if here else None
    except SiteError as found:  # an approved study was altered
        broken = broken or found
    if as_json:
        state = {"whole": broken is None, "broken": str(broken) if broken else None}
        state |= {"accounts": studies, "privacy_of_all_studies": together}
        typer.echo(json.dumps({**state, "lines": head.lines, "digest": head.digest, "entries": entries}, indent=1))
    else:
        for line in _accounts(studies, together):
            typer.echo(line)
    if broken is not None:
        raise broken
    if not as_json:
        messages = sum(entry.get("kind") != "approval" for entry in entries)
        typer.echo(f"{messages} messages left this site; the ledger is whole: {head.lines} lines, digest {head.digest}")


def _accounts(studies: list[dict[str, Any]], together: dict[str, float] | None) -> Iterator[str]:
    """What each study has cost, a line an account."""
    for entry in studies:
        about, released, privacy = f"study {entry['study'][:12]}", entry["released_numbers"], entry["privacy"]
        if released:
            yield f"{about}  {released['numbers']} of {released['limit']} numbers released"
        if privacy:
            yield f"{about}  {_privacy(privacy)} approved with it"
    if together:
        yield f"all studies         {_privacy(together)} of site.toml"


def _privacy(account: dict[str, float]) -> str:
    return f"epsilon {account['epsilon']:.3g} spent of {account['approved']:g} (delta {account['delta']:g})"


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
