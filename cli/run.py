"""`cohortium run`: the coordinator runs a study over the connected sites and watches it."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cohortium.cli.federation import ROSTER
from cohortium.common.errors import CohortiumError

# Flower's own log lines (coloured level names) and its note on unpacking the bundle say nothing about the study
_FLOWERS = re.compile(r"^(\x1b\[\d+m)?(INFO|DEBUG)\s|^Successfully installed cohortium-app|^\s*$")
_FAILED = "ServerApp failed with exception: "


class RunError(CohortiumError):
    """The study stopped at the coordinator; what it finished is kept for ``--resume``."""


def run(
    study: Annotated[Path, typer.Argument(help="study.toml, or the folder that holds it.")],
    federation: Annotated[Path, typer.Option(help="Folder of the federation.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/STUDY.")] = None,
    roster: Annotated[Path | None, typer.Option(help="By default roster.toml of the federation.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that OUT holds.")] = False,
) -> None:
    """Run a study over the connected sites."""
    from cohortium.common.study import load_study
    from cohortium.server.control import connected

    name = load_study(study).study.name  # a mistake in the file is told here, before anything starts
    study_file = study / "study.toml" if study.is_dir() else study
    out = out or Path("runs") / name
    files = {"study": study_file, "roster": roster or federation / ROSTER, "out": out}
    with connected(federation) as control:
        run_id = control.start_run({key: str(path.absolute()) for key, path in files.items()} | {"resume": resume})
        try:
            for text in control.logs(run_id):
                _show(text)
        except KeyboardInterrupt:
            control.stop_run(run_id)
            raise
        outcome, details = control.outcome(run_id)
    if outcome == "stopped":
        raise RunError("the run was stopped; the same command with --resume goes on from where it was")
    if outcome != "completed":
        reason = details.removeprefix(_FAILED) or "the server app died"
        raise RunError(f"{reason}\nwhen that is mended, the same command with --resume goes on from where it was")
    typer.echo(f"results {out / 'results.json'}, report {out / 'report.html'}")


def _show(text: str) -> None:
    """Lines of the study, without Flower's; a traceback stays in the coordinator's own log."""
    skip = False
    for line in text.splitlines():
        if "raised an exception" in line or "Exit Code:" in line:
            skip = True  # the reason follows once, as the command's error
        if not skip and not _FLOWERS.search(line):
            typer.echo(line)
