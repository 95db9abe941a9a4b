"""Site commands that connect: make this site's keys, join a federation, answer its studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohortium.cli.federation import WhilePid
from cohortium.cli.site import HERE, SitePath

if TYPE_CHECKING:
    from cohortium.sites.site_file import Site

Workspace = Annotated[Path | None, typer.Option(help="The site's workspace; default: that of the site file.")]


def join(
    site: SitePath = HERE,
    workspace: Workspace = None,
    out: Annotated[Path | None, typer.Option(help="The join file; default: SITE.join.toml.")] = None,
) -> None:
    """Make this site's keys, once, and the file that the coordinator enrols; it holds public keys only."""
    from cohortium.client import supernode
    from cohortium.sites.identity import public_hex, site_identity

    here = _site(site, workspace)
    identity = public_hex(site_identity(here.workspace))
    join_file = supernode.join(here.name, here.workspace, identity, out or Path(f"{here.name}.join.toml"))
    typer.echo(f"identity of {here.name}: {identity}")
    typer.echo(f"give {join_file} to the coordinator, and read the identity to them over the telephone")


def start(
    federation: Annotated[Path, typer.Option(help="invite.toml, as the coordinator gave it.")],
    site: SitePath = HERE,
    workspace: Workspace = None,
    while_pid: WhilePid = 0,
) -> None:
    """Connect to the federation, in the background, and answer the studies that this site approved."""
    from cohortium.client import supernode

    here = _site(site, workspace)
    supernode.start(here.name, Path(here.source), here.workspace, federation, while_pid=while_pid)
    typer.echo(f"site {here.name} is connected; `cohortium site stop` ends it, `cohortium site log` tells what left")


def stop(site: SitePath = HERE, workspace: Workspace = None) -> None:
    """Leave the federation; keys, approvals and ledger stay."""
    from cohortium.client import supernode

    stopped = supernode.stop(_site(site, workspace).workspace)
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def _site(path: Path, workspace: Path | None) -> "Site":
    from cohortium.sites.site_file import load_site

    site = load_site(path)
    return site.with_workspace(workspace.absolute()) if workspace else site
