"""Report command: write the page of a finished run again, for a coordinator."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run: the one that holds results.json.")],
) -> None:
    """Write RUN_DIR/report.html from RUN_DIR/results.json."""
    # matplotlib takes a second to import; `cohortium --help` does not need it.
    from cohortium.server.report.build import build_report

    typer.echo(f"report: {build_report(run_dir)}")
