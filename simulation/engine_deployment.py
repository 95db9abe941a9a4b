"""Deployment engine: a real federation on loopback, through the commands that people type.

It has no path of its own: one `cohortium` process after the other, as docs/first-federation.md shows them to a
coordinator and three hospitals. Everything it starts ends with this process, however that ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cohortium.common.errors import CohortiumError
from cohortium.common.progress import NullProgress, Progress


class CommandError(CohortiumError):
    """A command of the deployment failed; its own message follows."""


def deployment(
    site_files: Mapping[str, tuple[Path, Path]],
    *,
    study_file: Path,
    out: Path,
    roster_file: Path,
    resume: bool,
    progress: Progress | NullProgress | None = None,
) -> dict[str, Any]:
    """Run a study on a federation that lives as long as the run.

    Parameters
    ----------
    site_files : mapping of site name to (site file, workspace)
        Prepared and approved.
    study_file, roster_file : Path
        As approved; the identities enrolled here must be those of the roster.
    out : Path

    Returns
    -------
    What OUT/results.json holds.

    Raises
    ------
    CommandError
    """
    progress = progress or NullProgress()
    folder = out / "federation"
    places = {name: ["--site", str(file), "--workspace", str(space)] for name, (file, space) in site_files.items()}
    attached = ["--while-pid", str(os.getpid())]
    joins = {name: str(out / "run" / f"{name}.join.toml") for name in places}
    try:
        with progress.stage("start federation", total=2 * len(places) + 2) as step, ThreadPoolExecutor() as pool:

            def each(commands: Sequence[Sequence[str]]) -> None:
                for _ in pool.map(cohortium, commands):
                    step.advance()

            started = pool.submit(cohortium, ["federation", "start", str(folder), *attached])
            each([["site", "join", *place, "--out", joins[name]] for name, place in places.items()])
            started.result()
            cohortium(["federation", "enrol", str(folder), *joins.values()])
            step.advance(2)
            invite = ["--federation", str(folder / "invite.toml")]
            each([["site", "start", *place, *invite, *attached] for place in places.values()])
        run = ["run", str(study_file), "--federation", str(folder), "--roster", str(roster_file), "--out", str(out)]
        cohortium([*run, *(["--resume"] if resume else [])], show=True)
    finally:
        stops = [["site", "stop", *place] for place in places.values()] + [["federation", "stop", str(folder)]]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda command: cohortium(command, check=False), stops))
    return json.loads((out / "results.json").read_text())


def cohortium(arguments: Sequence[str], *, show: bool = False, check: bool = True) -> None:
    """Run one command in a process of its own.

    Raises
    ------
    CommandError
        It ended with an error, whose message is repeated.
    """
    command = [sys.executable, "-c", "import sys; from cohortium.cli.main import main; sys.exit(main())", *arguments]
    done = subprocess.run(
        command, stdout=None if show else subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False
    )
    if check and done.returncode:
        reason = done.stderr.strip().removeprefix("error: ")
        raise CommandError(f"cohortium {' '.join(arguments[:2])}: {reason}")
