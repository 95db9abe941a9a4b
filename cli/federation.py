"""Federation commands: the coordinator's server and the sites that may connect to it."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="Folder of the federation, on the coordinator's machine.")]
WhilePid = Annotated[
    int, typer.Option("--while-pid", help="Stop by itself when the process with this number ends; for scripts.")
]
ROSTER = "roster.toml"


def start(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Name or address under which the sites reach this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; by default a free one, kept from then on.")] = 0,
    while_pid: WhilePid = 0,
) -> None:
    """Start the coordinator's server, in the background; the first time, make its certificates."""
    from cohortium.server import superlink

    address = superlink.start(folder, host, port, while_pid=while_pid)
    typer.echo(f"federation runs at {address}; give {folder / 'invite.toml'} to the sites")


def stop(folder: Folder) -> None:
    """Stop the coordinator's server; certificates and enrolled sites stay."""
    from cohortium.server import superlink

    stopped = superlink.stop(folder)
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def enrol(
    folder: Folder,
    join_files: Annotated[list[Path], typer.Argument(metavar="JOIN_FILE...", help="What each site made with join.")],
) -> None:
    """Let sites in: register their node keys and enter their identities into the roster."""
    from cohortium.common.roster import load_roster, roster_of
    from cohortium.server import superlink

    roster_file = folder / ROSTER
    identities = dict(load_roster(roster_file).identities) if roster_file.exists() else {}
    for join_file in join_files:
        join = superlink.enrol(folder, join_file)
        identities[join["site"]] = join["identity"]
        typer.echo(f"enrolled {join['site']:20} {join['identity']}")
    roster = roster_of(identities)
    roster.write(roster_file)
    typer.echo(f"roster {roster.hash}; read the identities back to the sites, then give them {roster_file}")


def status(folder: Folder) -> None:
    """Show the roster and which sites are connected."""
    from cohortium.common.roster import load_roster
    from cohortium.server.control import connected

    with connected(folder) as control:
        nodes, runs = control.nodes(), control.runs()
    identities = load_roster(folder / ROSTER).identities if (folder / ROSTER).exists() else {}
    for site in sorted({*nodes, *identities}):
        typer.echo(f"{site:20} {nodes.get(site, 'not enrolled'):12} {identities.get(site, 'not in the roster')[:16]}")
    typer.echo(f"{sum(status == 'online' for status in nodes.values())} of {len(identities)} sites online")
    for run_id, outcome in runs.items():
        typer.echo(f"run {run_id} {outcome}")
